"""Whether a source has changed, told from its files without reading them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perennial.files import digest


def listing(spec: Any) -> str | None:
    """What files a source is made of now, as one hash.

    Args:
        spec: As in ``data.new``.

    Returns:
        SHA-256 of paths, sizes and times of change, of no file too; None for a source that is no
        file or folder, such as a query, of which only reading tells.
    """
    if isinstance(spec, Mapping):
        spec = spec.get("partitions")
    if not isinstance(spec, str | Path):
        return None
    path = Path(spec).expanduser()
    found = sorted(item for item in path.rglob("*") if item.name[0] != ".") if path.is_dir() else []
    return digest([_state(item) for item in [path, *found] if item.is_file()])


def _state(path: Path) -> list[Any]:
    try:
        known = path.stat()
    except OSError:  # it went away meanwhile
        return [str(path)]
    return [str(path), known.st_size, known.st_mtime_ns]
