"""Memories in files that versions share: shards of rows, and a small index that picks from them.

A shard is a file of rows as `perennial.data.store` writes it, known by its SHA-256. A memory is an
index into shards: for each of its rows the shard, the position there and the cycle it came with. An
update writes one shard with what is new, and goes on pointing into the others; rows that memory
dropped stay in them, dead, until half of a shard is dead. Its living rows then join the new shard.
With reservoir sampling in equal cycles this writes 2K/t rows in the t-th one, of a memory of K.

Shapes: N rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from perennial.data.memory import Remembered, Shard
from perennial.data.store import write_batch
from perennial.errors import DataError
from perennial.types import Booleans, Integers, Strings

# beyond so many files the smaller half becomes one
MOST = 64
_KEY = b"perennial"
_FORMAT = 1
_COLUMNS = ("shard", "place", "cycle")


@dataclass(frozen=True)
class Index:
    """A memory without its rows.

    Attributes:
        shard: SHA-256 of the file that holds each row (N,).
        place: Position in that file (N,).
        cycle: Number of the cycle that each row came with (N,).
        shards: SHA-256 to what is known of each file.
        bound: What bounded the memory, in words.
    """

    shard: Strings
    place: Integers
    cycle: Integers
    shards: Mapping[str, Shard]
    bound: str


def to_write(memory: Remembered) -> Booleans:
    """Which rows (N,) belong into a new shard: those in none, and those of shards half dead."""
    names, inverse, living = np.unique(memory.shard, return_inverse=True, return_counts=True)
    size = np.array([memory.shards[name].rows if name else 0 for name in names.tolist()])
    moves = (names == "") | (2 * living < size)
    if (~moves).sum() > MOST:
        moves[np.argsort(np.where(moves, 0, living), kind="stable")[: -MOST // 2]] = True
    found: Booleans = moves[inverse]
    return found


def written(memory: Remembered, which: Booleans, sha256: str, version: int) -> Remembered:
    """The memory once the rows of a mask (N,) lie, in their order, in a shard of their own."""
    shard = np.where(which, sha256, memory.shard)
    place = np.where(which, np.cumsum(which) - 1, memory.place)
    known = {**memory.shards, sha256: Shard(version, int(which.sum()))}
    kept = {name: known[name] for name in np.unique(shard).tolist()}
    return Remembered(memory.rows, memory.cycle, shard, place, kept)


def write_index(path: Path, index: Index) -> str:
    """Write an index durably and return its SHA-256; equal ones give equal files."""
    names = sorted(index.shards)
    number = {name: position for position, name in enumerate(names)}
    shards = [
        {"sha256": name, "version": index.shards[name].version, "rows": index.shards[name].rows}
        for name in names
    ]
    described = {"format": _FORMAT, "bound": index.bound, "shards": shards}
    columns = [
        pa.array(np.array([number[name] for name in index.shard.tolist()], dtype=np.int32)),
        pa.array(index.place.astype(np.int32)),
        pa.array(index.cycle.astype(np.int32)),
    ]
    schema = pa.schema(
        [pa.field(name, one.type) for name, one in zip(_COLUMNS, columns, strict=True)],
        metadata={_KEY: json.dumps(described).encode()},
    )
    return write_batch(path, pa.record_batch(columns, schema=schema))


def read_index(path: Path) -> Index:
    """What `write_index` wrote.

    Raises:
        DataError: The file is missing, cut off, or of another kind.
    """
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        described = json.loads((table.schema.metadata or {})[_KEY])
        assert described["format"] == _FORMAT
        shards = {one["sha256"]: Shard(one["version"], one["rows"]) for one in described["shards"]}
        number, place, cycle = (table[name].to_numpy() for name in _COLUMNS)
        names = np.array([one["sha256"] for one in described["shards"]], dtype="<U64")
        shard = names[number] if len(names) else np.empty(0, dtype="<U64")
        assert not len(place) or (place >= 0).all()
        bound = str(described["bound"])
    except (pa.ArrowException, OSError, KeyError, IndexError, ValueError, AssertionError) as error:
        raise DataError(
            f"A memory's index cannot be read: {str(error) or type(error).__name__}.",
            where=str(path),
            mend="restore the file from its version, or go back: perennial registry rollback",
        ) from error
    return Index(shard, place, cycle, shards, bound)


def index_of(memory: Remembered, bound: str) -> Index:
    """The index of a memory all of whose rows lie in shards."""
    assert not (memory.shard == "").any()
    return Index(memory.shard, memory.place, memory.cycle, memory.shards, bound)


def bounds_line(before: str, now: str, remembered: int) -> str:
    """What a change of the bound means, in a line; empty where there is none."""
    if before == now:
        return ""
    return (
        f"memory: bounded by {now} from now on, by {before} before; {remembered} rows are in it, "
        "and what earlier cycles dropped does not come back"
    )
