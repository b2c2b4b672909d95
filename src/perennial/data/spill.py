"""Columns that do not fit into memory, in files of their own that are memory-mapped.

A file has no name, so that it goes with the process, and nobody can cut it off under a mapping. It
lies in the system's folder for temporary files (``TMPDIR``).
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from perennial.data.columns import TEXT
from perennial.data.placement import SHARE, free_bytes
from perennial.errors import DataError

Column = npt.NDArray[Any]

# below this nobody asks how much memory is free
SMALL = 64 << 20
PART = 16 << 20


def selected(column: Column, index: npt.NDArray[Any] | slice) -> Column:
    """The rows of a column (N, ...) at an index vector, a boolean mask (N,) or a slice.

    What takes more than a quarter of the free memory is mapped; a slice of a mapped column is one.
    """
    if isinstance(index, slice):
        return column[index]
    index = np.asarray(index)
    if index.dtype.kind != "b" and len(index) * _row_bytes(column) <= SMALL:
        return _plain(column[index])
    at = np.flatnonzero(index) if index.dtype.kind == "b" else index
    if _fits(column, len(at)):
        return _plain(column[index])
    step = max(PART // _row_bytes(column), 1)
    parts = (column[at[start : start + step]] for start in range(0, len(at), step))
    return _written(parts, (len(at), *column.shape[1:]), column.dtype)


def joined(columns: Sequence[Column]) -> Column:
    """Columns (N, ...) one after another; mapped where they take too much, as in `selected`.

    Those without rows say nothing of the others' shape.
    """
    columns = [column for column in columns if len(column)] or columns[:1]
    dtype = np.result_type(*(column.dtype for column in columns))
    count = sum(map(len, columns))
    if _fits(columns[0], count):
        return np.concatenate(columns)
    parts = (
        column[start : start + step].astype(dtype, copy=False)
        for column in columns
        for step in [max(PART // _row_bytes(column), 1)]
        for start in range(0, len(column), step)
    )
    return _written(parts, (count, *columns[0].shape[1:]), dtype)


def filled(parts: Iterable[Column], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Column:
    """A column of a shape whose rows come in parts; mapped where it takes too much."""
    if not _fits(np.empty((0, *shape[1:]), dtype), shape[0]):
        return _written(parts, shape, dtype)
    found = np.empty(shape, dtype)
    start = 0
    for part in parts:
        found[start : start + len(part)] = part
        start += len(part)
    return found


def read_at_random(column: Column) -> None:
    """Tell the system that a mapped column's rows are read one here, one there.

    It would else read 128 KiB around each of them.
    """
    if isinstance(column, np.memmap) and isinstance(column.base, mmap.mmap):
        advice = getattr(mmap, "MADV_RANDOM", None)
        if advice is not None:  # Windows has none
            column.base.madvise(advice)


def _fits(column: Column, rows: int) -> bool:
    size = rows * _row_bytes(column)
    plain = column.dtype == TEXT or column.dtype.kind == "O"
    return plain or size <= SMALL or size <= SHARE * free_bytes(torch.device("cpu"))


def _written(parts: Iterable[Column], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Column:
    with tempfile.TemporaryFile() as file:
        try:
            for part in parts:
                file.write(np.ascontiguousarray(part).data)
            file.flush()
        except OSError as error:
            size = int(np.prod(shape)) * dtype.itemsize
            raise DataError(
                f"A column of {size / 2**30:,.1f} GiB fits neither into memory nor into "
                f"{tempfile.gettempdir()}: {error.strerror}.",
                where="data",
                mend="set TMPDIR to a folder with room, or give fewer rows",
            ) from error
        return np.memmap(file, dtype=dtype, mode="r", shape=shape)


def _plain(values: Column) -> Column:
    """Without the class of a map, which a copy in memory keeps."""
    return values.view(np.ndarray) if isinstance(values, np.memmap) else values


def _row_bytes(column: Column) -> int:
    return max(column.dtype.itemsize * int(np.prod(column.shape[1:])), 1)
