"""Rows in Arrow files: memory, holdouts and the index of what was learned.

Each column is one contiguous buffer in one record batch, so reading maps the file and copies
nothing but what varies in length: text, bytes (encoded images), lists of numbers (columns of
objects, each an array of one dimension). NumPy dtype and shape of a row lie in the schema's
metadata, and with stored logits the class name of each of their columns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from perennial import files
from perennial.data.columns import TEXT
from perennial.data.logits import aligned
from perennial.data.rows import Rows
from perennial.errors import DataError
from perennial.types import Booleans

_KEY = b"perennial"
_FORMAT = 1
_IDENTITY = ("label", "id", "content", "cluster")
_LOGITS = ("logits", "logits_version")


def write_rows(
    path: Path,
    rows: Rows,
    extra: Mapping[str, npt.NDArray[Any]] | None = None,
    *,
    label_names: Sequence[str] = (),
) -> str:
    """Write rows durably and return the file's SHA-256; equal rows give equal files.

    Args:
        path: Target.
        rows: N rows.
        extra: Further columns (N, ...), numeric or strings.
        label_names: Class names of the logits' columns, where the rows have any.

    Raises:
        StorageError: The file could not be written.
    """
    columns = {f"feature/{name}": column for name, column in rows.features.items()}
    columns |= {name: getattr(rows, name) for name in _IDENTITY}
    if rows.logits is not None:
        assert len(set(label_names)) == rows.logits.shape[1], "each column is a class"
        columns |= {name: getattr(rows, name) for name in _LOGITS}
    columns |= {f"slice/{name}": column for name, column in rows.slices.items()}
    columns |= {f"extra/{name}": column for name, column in (extra or {}).items()}
    layout = {
        name: {"dtype": _dtype(column), "shape": column.shape[1:]}
        for name, column in columns.items()
    }
    described: dict[str, Any] = {"format": _FORMAT, "columns": layout}
    if rows.logits is not None:
        described["label_names"] = list(label_names)
    metadata = {_KEY: json.dumps(described).encode()}
    arrays = [_to_arrow(column) for column in columns.values()]
    schema = pa.schema(
        [pa.field(name, array.type) for name, array in zip(columns, arrays, strict=True)],
        metadata=metadata,
    )
    return write_batch(path, pa.record_batch(arrays, schema=schema))


def write_batch(path: Path, batch: pa.RecordBatch) -> str:
    """Write one record batch as an Arrow file, durably; returns its SHA-256.

    Raises:
        StorageError: The file could not be written.
    """

    def writer(file: BinaryIO) -> None:
        with pa.ipc.new_file(file, batch.schema) as sink:
            sink.write_batch(batch)

    return files.write(path, writer)


def read_rows_file(
    path: Path, *, label_names: Sequence[str] | None = None
) -> tuple[Rows, dict[str, npt.NDArray[Any]]]:
    """Rows and extra columns of a file that `write_rows` wrote; numeric ones are read-only maps.

    Args:
        path: The file.
        label_names: Class names in the order in which stored logits are wanted; a class that the
            file does not name is NaN. None leaves logits out.

    Raises:
        DataError: The file is missing, cut off, or of another kind.
    """
    table = _table(path)
    try:
        described = json.loads(table.schema.metadata[_KEY])
        layout = described["columns"]
        columns = {name: _to_numpy(table[name], layout[name]) for name in table.column_names}
        identity = {name: columns[name] for name in _IDENTITY}
        if label_names is not None and "logits" in columns:
            identity |= {name: columns[name] for name in _LOGITS}
            identity["logits"] = aligned(columns["logits"], described["label_names"], label_names)
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise _unreadable(path, error) from error
    features = {name[8:]: column for name, column in columns.items() if name[:8] == "feature/"}
    slices = {name[6:]: column for name, column in columns.items() if name[:6] == "slice/"}
    extra = {name[6:]: column for name, column in columns.items() if name[:6] == "extra/"}
    return Rows(features=features, **identity, slices=slices), extra


def _table(path: Path) -> pa.Table:
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        assert json.loads((table.schema.metadata or {})[_KEY])["format"] == _FORMAT
    except (pa.ArrowException, OSError, KeyError, ValueError, AssertionError) as error:
        raise _unreadable(path, error) from error
    return table


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"A file of rows cannot be read: {str(error) or type(error).__name__}.",
        where=str(path),
        mend="restore the file from its version, or start the cycle over",
    )


def row_ids(path: Path) -> npt.NDArray[Any]:
    """Ids of a file's rows (N,), without reading anything else; raises as `read_rows_file` does."""
    return np.array(_table(path)["id"].to_pylist(), dtype=np.str_)


def keep_rows(source: Path, target: Path, keep: Booleans) -> str:
    """Write a file's rows under a mask (N,) to another, everything else as it was.

    Returns:
        The new file's SHA-256.

    Raises:
        DataError: The source cannot be read.
        StorageError: The target cannot be written.
    """
    table = _table(source).filter(pa.array(keep))
    columns = [table[name].combine_chunks() for name in table.column_names]
    return write_batch(target, pa.record_batch(columns, schema=table.schema))


def _dtype(column: npt.NDArray[Any]) -> str:
    if column.dtype.kind == "O":
        arrays = [value for value in column.tolist() if not isinstance(value, bytes)]
        return f"list {arrays[0].dtype.str}" if arrays else "bytes"
    return "text" if column.dtype == TEXT else column.dtype.str


def _to_arrow(column: npt.NDArray[Any]) -> pa.Array:
    if column.dtype.kind in "TU":
        return pa.array(column.tolist(), type=pa.string())
    if column.dtype.kind == "O":
        kind = _dtype(column)
        varying = pa.list_(pa.from_numpy_dtype(np.dtype(kind[5:]))) if kind != "bytes" else None
        return pa.array(column.tolist(), type=varying or pa.binary())
    if column.dtype.kind == "b":
        # Arrow packs booleans into bits, which cannot be mapped
        column = column.view(np.uint8)
    flat = pa.array(np.ascontiguousarray(column).reshape(-1))
    if column.ndim == 1:
        return flat
    return pa.FixedSizeListArray.from_arrays(flat, int(np.prod(column.shape[1:])))


def _to_numpy(column: pa.ChunkedArray, layout: Mapping[str, Any]) -> npt.NDArray[Any]:
    if layout["dtype"] == "text":
        return np.array(column.to_pylist(), dtype=TEXT)
    if layout["dtype"] == "bytes" or layout["dtype"].startswith("list "):
        return _varying(column, layout["dtype"])
    dtype, shape = np.dtype(layout["dtype"]), tuple(layout["shape"])
    if dtype.kind == "U":
        return np.array(column.to_pylist(), dtype=dtype)
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if shape:
        array = array.flatten()
    values: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False).view(dtype)
    return values.reshape(len(column), *shape)


def _varying(column: pa.ChunkedArray, kind: str) -> npt.NDArray[Any]:
    """Bytes or arrays of one dimension, one object a row."""
    values = np.empty(len(column), dtype=object)
    for row, value in enumerate(column.to_pylist()):
        values[row] = value if kind == "bytes" else np.array(value, dtype=np.dtype(kind[5:]))
    return values
