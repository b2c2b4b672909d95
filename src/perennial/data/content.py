"""Rows to content hashes: what a row is, whatever file it came from.

Shapes: N rows; a feature column is (N, ...).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from perennial.data.columns import TEXT, Column
from perennial.types import Strings

_HASH_CHUNK_BYTES = 1 << 24


class Sliced(Protocol):
    """A column (N, ...) of which parts can be had; an array is one."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its values."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""
        ...

    def __getitem__(self, part: slice, /) -> Column:
        """Some of its rows."""
        ...


def content_hashes(
    features: Mapping[str, Sliced], label_names: Strings, *, owners: Strings | None = None
) -> Strings:
    """Content hashes (N,) of rows: BLAKE2b with 128 bits, as 32 hex digits.

    Columns enter sorted by name, in canonical dtypes (whole numbers int64, floats float64,
    booleans uint8) with their shapes, then columns of text and of lists, each value with its
    length, then the *name* of the label: a row hashes the same from every file format and under
    every numbering of the classes.

    Args:
        features: Column name to values (N, ...).
        label_names: Each row's label, by name (N,).
        owners: Whose row each is (N,), where equal rows of two owners are no copies.
    """
    ordered = sorted(features)
    texts = [name for name in ordered if features[name].dtype in (TEXT, object)]
    numbers = [name for name in ordered if name not in texts]
    layout = [(name, _dtype(features[name]), features[name].shape[1:]) for name in ordered]
    start = hashlib.blake2b(repr(layout).encode(), digest_size=16)
    width = sum(8 * int(np.prod(features[name].shape[1:])) for name in numbers)
    step = max(1, _HASH_CHUNK_BYTES // max(width, 1))
    hashes: list[str] = []
    for first in range(0, len(label_names), step):
        part = slice(first, first + step)
        names = label_names[part].tolist()
        rows = _packed([features[name][part] for name in numbers], len(names))
        words = [features[name][part].tolist() for name in texts]
        for position, (row, name) in enumerate(zip(rows, names, strict=True)):
            digest = start.copy()
            digest.update(row)
            for column in words:
                word = _bytes(column[position])
                digest.update(len(word).to_bytes(8, "little"))
                digest.update(word)
            digest.update(name.encode())
            if owners is not None:
                digest.update(b"\0" + str(owners[first + position]).encode())
            hashes.append(digest.hexdigest())
    return np.array(hashes, dtype="<U32")


def _packed(columns: Sequence[Column], rows: int) -> list[bytes]:
    """The numbers of each row, one after another, as bytes."""
    if not columns:
        return [b""] * rows
    blocks = [
        np.ascontiguousarray(_canonical(column)).reshape(rows, -1).view(np.uint8)
        for column in columns
    ]
    packed = np.concatenate(blocks, axis=1)
    found: list[bytes] = packed.view(f"V{packed.shape[1]}").ravel().tolist()
    return found


def _dtype(column: Sliced) -> str:
    """What a column holds, in canonical words."""
    if column.dtype == TEXT:
        return "text"
    some = column[:1]
    if column.dtype == object:
        return f"list {_canonical(some[0]).dtype.str}" if len(some) else "list"
    return _canonical(some[:0]).dtype.str


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else _canonical(value).tobytes()


def _canonical(values: Column) -> Column:
    if values.dtype.kind == "b":
        return values.astype("u1")
    if values.dtype.kind == "f":
        # -0.0 equals 0.0 and has to hash alike, as do all the ways to write NaN
        canonical: Column = values.astype("<f8") + 0.0
        canonical[np.isnan(canonical)] = np.nan
        return canonical
    return values.astype("<i8")
