"""Whether the rows of a sweep are still those it began with, without reading them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def stamps(data: Any) -> list[tuple[str, int, int]]:
    """Size and time of change of every local file that settings name.

    A scheduled command names the same path week after week; what lies there is another file then,
    and another sweep. Rows behind an address or a constructor leave no trace here.

    Args:
        data: Settings, nested as they are; any text in them that is the path of a file or folder
            counts, and a folder by all files below it.

    Returns:
        (path, bytes, nanoseconds) of each file, in the order of paths.
    """
    found = set[Path]()
    for text in _texts(data):
        path = Path(text).expanduser()
        try:
            found |= {path} if path.is_file() else {p for p in path.rglob("*") if p.is_file()}
        except (OSError, ValueError):  # too long, or not to be looked into: not a path of rows
            continue
    told = [(str(path), path.stat()) for path in sorted(found)]
    return [(path, stat.st_size, stat.st_mtime_ns) for path, stat in told]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        # an empty text would be the folder one stands in
        yield from [value] if value and Path(value) != Path() else []
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, Sequence):
        for one in value:
            yield from _texts(one)
