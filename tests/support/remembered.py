"""Memories in tests: rows shown to one, and those that a version keeps."""

from __future__ import annotations

from collections.abc import Iterator

from perennial.data.memory import Memory, Remembered
from perennial.data.rows import Rows
from perennial.promotion.registry import Version
from perennial.steps.remember import remembered


def shown(memory: Memory, *parts: Rows) -> Rows:
    """What a memory keeps of rows that come cycle by cycle."""
    kept: Remembered | None = None
    for number, rows in enumerate(parts, start=1):
        kept = memory.update(kept, Remembered.fresh(rows, number))
    assert kept is not None
    return kept.rows


def stored(version: Version, kind: str = "train", names: tuple[str, ...] | None = None) -> Rows:
    """The rows of a version's memory."""
    kept = remembered(version, kind, names or tuple(version.manifest["label_names"]))
    assert kept is not None
    return kept.rows


def memories(version: Version) -> Iterator[tuple[str, Rows]]:
    """Each part of a version's memory that has rows."""
    for kind in ("train", "validation"):
        if remembered(version, kind, ()) is not None:
            yield kind, stored(version, kind)
