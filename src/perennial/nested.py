"""Nested mappings by dotted keys, as the command line writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of what is no mapping, or an empty one.

    >>> leaves({"a": {"b": 1, "c": [2]}, "d": {}})
    {'a.b': 1, 'a.c': [2], 'd': {}}
    """
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            flat |= leaves(inner, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = inner
    return flat


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of everything, inner mappings included.

    >>> flatten({"a": {"b": 1}})
    {'a': {'b': 1}, 'a.b': 1}
    """
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        path = f"{prefix}{key}"
        flat[path] = inner
        if isinstance(inner, Mapping):
            flat |= flatten(inner, f"{path}.")
    return flat
