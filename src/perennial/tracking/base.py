"""What a tracker is, and how values are made fit to leave the machine: plain, and without secrets.

The registry is the truth and a tracker its mirror, so no tracker may stop a cycle.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

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
    r"(?i)([\w.-]*(?:password|passwd|passphrase|secret|token|api_?key|access_?key|credential)"
    r"(?![a-z])[\w-]*=)[^&\s;]+"
)

# where a webhook's address and headers are given on a command line, they are credentials whole
_NOTIFY = re.compile(r"(\bnotify\.(?:url|headers)[\w.-]*=)[^'\"\n]+")


class Tracker(Protocol):
    """Where a cycle tells what it does; one run per cycle."""

    def start(
        self,
        *,
        name: str,
        group: str,
        job_type: str,
        config: Mapping[str, Any],
        folder: Path,
        tags: Sequence[str] = (),
    ) -> None:
        """Open a run; its files lie under ``folder``. Never prompts and never raises for a server.

        Args:
            name: What the run is called.
            group: What it belongs with, such as the lineage.
            job_type: ``retrain``, ``trial`` or ``adopt``.
            config: The resolved configuration; secrets in it are masked.
            folder: Folder for the tracker's own files.
            tags: Words to find the run by.
        """

    def logger(self, prefix: str = "") -> Logger | None:
        """A logger for a Lightning Trainer, or ``None``; metric names get the prefix as it is."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Record final values, such as ``retention/candidate`` or ``decision/verdict``."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Record a table of plain values; one without rows is left out."""

    def tag(self, word: str) -> None:
        """Add a word to find the run by."""

    def use(
        self,
        *,
        name: str,
        kind: str,
        files: Mapping[str, Path],
        aliases: Sequence[str],
        metadata: Mapping[str, Any],
    ) -> None:
        """Say that the run started from an artifact, which is mirrored where it is not yet.

        Arguments are those of `artifact`; a failure is a warning.
        """

    def artifact(
        self,
        *,
        name: str,
        kind: str,
        files: Mapping[str, Path],
        aliases: Sequence[str],
        metadata: Mapping[str, Any],
    ) -> None:
        """Mirror files as one artifact; a failure is a warning.

        Args:
            name: The artifact's name.
            kind: Its type, such as ``"model"``.
            files: Name inside the artifact to local path.
            aliases: Such as ``candidate``, and ``champion`` on promotion.
            metadata: Plain values beside it; secrets are masked.
        """

    def identity(self) -> dict[str, str | None]:
        """``run_id``, ``url`` and ``directory``, each ``None`` where there is none."""

    def finish(self, exit_code: int) -> None:
        """Close the run; calling it again does nothing."""


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
