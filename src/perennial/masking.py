"""Values made fit to be shown and stored: plain, and without secrets."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

MASK = "***"

_SECRET_WORDS = frozenset(
    [
        "password",
        "passwd",
        "passphrase",
        "pwd",
        "secret",
        "secrets",
        "token",
        "apikey",
        "credential",
        "credentials",
    ]
)
_SECRET_PAIRS = frozenset(
    {("api", "key"), ("access", "key"), ("private", "key"), ("secret", "key")}
)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# Greedy to the last @: a password may hold an unescaped @ or /, and too much masked is no harm.
_URL_PASSWORD = re.compile(r"(://[^/\s:@?#]*:)\S*@")
_ASSIGNMENT = re.compile(
    r"(?i)([\w.-]*(?:password|passwd|passphrase|pwd|secret|token|api_?key|access_?key|credential|"
    r"odbc_connect)(?![a-z])[\w-]*=)[^&\s;]+"
)

# where a webhook's address and headers are given on a command line, they are credentials whole
_NOTIFY = re.compile(r"(\bnotify\.(?:url|headers)[\w.-]*=)[^'\"\n]+")


def plain(value: Any, *, key: str = "") -> Any:
    """Plain copy of a nested value, with secrets masked.

    Masked are values whose key looks like a password, token, secret or API key, passwords inside
    URLs, and ``password=…`` inside strings. An unset secret (``None`` or empty) stays visible.

    Args:
        value: Mappings, sequences, scalars; anything else becomes its ``str``.
        key: The key it stands under.

    Examples:
        >>> plain({"api_key": "abc", "url": "postgresql://ann:abc@db/registry", "max_tokens": 8})
        {'api_key': '***', 'url': 'postgresql://ann:***@db/registry', 'max_tokens': 8}
    """
    if value is None or value == "":
        return value
    if _is_secret(key):
        return MASK
    if isinstance(value, Mapping):
        return {str(name): plain(item, key=str(name)) for name, item in value.items()}
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [plain(item) for item in value]
    if isinstance(value, Set):
        return sorted((plain(item) for item in value), key=str)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return plain(value.item())
    return mask_text(str(value))


def mask_text(text: str) -> str:
    """Mask passwords inside URLs and secrets assigned inside a string."""
    masked = _NOTIFY.sub(rf"\1{MASK}", _URL_PASSWORD.sub(rf"\1{MASK}@", text))
    return _ASSIGNMENT.sub(rf"\1{MASK}", masked)


def _is_secret(key: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(key)]
    return not _SECRET_WORDS.isdisjoint(words) or any(
        pair in _SECRET_PAIRS for pair in itertools.pairwise(words)
    )
