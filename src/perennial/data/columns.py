"""Arrow columns to contiguous arrays, and rows to content hashes.

Shapes: N rows; a feature column is (N, ...).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, UnidentifiedImageError

from perennial.errors import DataError
from perennial.types import Booleans, Strings

Column = npt.NDArray[Any]

_HASH_CHUNK_BYTES = 1 << 24
_NULL_MEND = "fill in or drop these rows before they reach Perennial"
_RANGE_MEND = "scale the column, or drop these rows, before they reach Perennial"


def to_numpy(column: pa.ChunkedArray, *, where: str) -> Column:
    """A numeric column as a contiguous array (N, ...), without a copy where Arrow allows.

    Lists of uniform length become further dimensions.

    Args:
        column: Numbers, booleans, or lists of them.
        where: Source and column, for messages.

    Raises:
        DataError: Nulls, NaN, infinities or numbers too large to train on; lists of varying length;
            text or another type.
    """
    rows = len(column)
    array = _one_chunk(column)
    shape: list[int] = [rows]
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        _refuse_nulls(array, rows, where)
        if not _is_list(array.type):
            break
        shape.append(_uniform_length(array, rows, where))
        array = array.flatten()
    kind = array.type
    if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise DataError(
            f"A feature of type {kind} cannot be used: text, dates and nested records need "
            "preprocessing to fixed-size numeric columns.",
            where=where,
            mend="convert the column, leave it out of data.features, or, if it identifies rows, "
            "name it in data.id_column, data.group_column, data.split_column or data.time_column",
        )
    values = np.ascontiguousarray(array.to_numpy(zero_copy_only=False)).reshape(shape)
    refuse_not_finite(values, where)
    if values.dtype == np.uint64:
        most = np.iinfo(np.int64).max
        _refuse_rows(values > most, "numbers above 2^63 - 1", where, mend=_RANGE_MEND)
    return values


def to_images(column: pa.ChunkedArray, *, where: str) -> Column:
    """Encoded images to uint8 (N, C, H, W): one channel for grey ones, otherwise three.

    Args:
        column: Structs of ``bytes`` and ``path``, as ``datasets.Image`` stores them.
        where: Source and column, for messages.

    Raises:
        DataError: An image is missing, unreadable, or of another size than the first.
    """
    _refuse_nulls(_one_chunk(column), len(column), where)
    decoded = []
    for row, item in enumerate(column.to_pylist()):
        try:
            with Image.open(io.BytesIO(item["bytes"]) if item["bytes"] else item["path"]) as image:
                mode = "L" if image.mode in ("1", "L") else "RGB"
                pixels = np.asarray(image.convert(mode))
        except (OSError, UnidentifiedImageError, AttributeError, TypeError) as error:
            raise DataError(
                f"The image in row {row} cannot be read: {error}.",
                where=where,
                mend="remove or repair it",
            ) from error
        decoded.append(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
        if decoded[-1].shape != decoded[0].shape:
            raise DataError(
                f"Images differ in shape: row 0 is {decoded[0].shape} and row {row} is "
                f"{decoded[-1].shape} (channels, height, width).",
                where=where,
                mend="resize and convert them to one size and mode first",
            )
    return np.stack(decoded)


def to_strings(column: pa.ChunkedArray, *, where: str) -> Strings:
    """A column of keys as strings (N,).

    Raises:
        DataError: Nulls or blanks, or a type without a textual form.
    """
    array = _one_chunk(column)
    _refuse_nulls(array, len(column), where)
    values = np.array(_as_text(array, "a key", where), dtype=np.str_)
    _refuse_rows(np.char.strip(values) == "", "blank values", where)
    return values


def to_slices(column: pa.ChunkedArray, *, where: str) -> Strings:
    """A column that tells slices apart, as text (N,); what is missing or blank is empty text.

    Raises:
        DataError: A type without a textual form.
    """
    found = _as_text(_one_chunk(column), "slices", where)
    return np.array([(value or "").strip() for value in found], dtype=np.str_)


def to_times(column: pa.ChunkedArray, *, where: str) -> Column:
    """A column of dates, times, numbers or sortable text (N,).

    Raises:
        DataError: Nulls or NaN.
    """
    array = _one_chunk(column)
    _refuse_nulls(array, len(column), where)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return to_strings(column, where=where)
    values: Column = array.to_numpy(zero_copy_only=False)
    refuse_not_finite(values, where)
    return values


def content_hashes(features: Mapping[str, Column], label_names: Strings) -> Strings:
    """Content hashes (N,) of rows: BLAKE2b with 128 bits, as 32 hex digits.

    Columns enter sorted by name, in canonical dtypes (whole numbers int64, floats float64,
    booleans uint8) with their shapes, then the *name* of the label: a row hashes the same from
    every file format and under every numbering of the classes.

    Args:
        features: Column name to values (N, ...).
        label_names: Each row's label, by name (N,).
    """
    ordered = sorted(features)
    layout = [
        (name, _canonical(features[name][:0]).dtype.str, features[name].shape[1:])
        for name in ordered
    ]
    start = hashlib.blake2b(repr(layout).encode(), digest_size=16)
    width = sum(8 * int(np.prod(shape)) for _, _, shape in layout)
    step = max(1, _HASH_CHUNK_BYTES // max(width, 1))
    hashes: list[str] = []
    for first in range(0, len(label_names), step):
        part = slice(first, first + step)
        names = label_names[part].tolist()
        blocks = [
            np.ascontiguousarray(_canonical(features[name][part]))
            .reshape(len(names), -1)
            .view(np.uint8)
            for name in ordered
        ]
        packed = np.concatenate(blocks, axis=1)
        rows = packed.view(f"V{packed.shape[1]}").ravel().tolist()
        for row, name in zip(rows, names, strict=True):
            digest = start.copy()
            digest.update(row)
            digest.update(name.encode())
            hashes.append(digest.hexdigest())
    return np.array(hashes, dtype="<U32")


def refuse_not_finite(values: Column, where: str) -> None:
    """Raise a DataError where floats (N, ...) hold NaN, an infinity, or more than float32 can."""
    if values.dtype.kind == "f":
        _refuse_rows(~np.isfinite(values), "NaN or infinite values", where)
        if values.dtype.itemsize > 4:
            most = np.finfo(np.float32).max
            odd = np.abs(values) > most
            _refuse_rows(odd, f"values beyond ±{most:.3g} (float32)", where, mend=_RANGE_MEND)


def _refuse_rows(
    odd: npt.NDArray[np.bool_], kind: str, where: str, *, mend: str = _NULL_MEND
) -> None:
    """Refuse rows with any odd value (N, ...)."""
    bad: Booleans = np.asarray(odd.reshape(len(odd), -1).any(axis=1))
    if bad.any():
        _refuse(bad, kind, where, mend)


def _canonical(values: Column) -> Column:
    if values.dtype.kind == "b":
        return values.astype("u1")
    if values.dtype.kind == "f":
        # -0.0 equals 0.0 and has to hash alike
        canonical: Column = values.astype("<f8") + 0.0
        return canonical
    return values.astype("<i8")


def _as_text(array: pa.Array, use: str, where: str) -> list[str | None]:
    try:
        found: list[str | None] = pc.cast(array, pa.string()).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"A column of type {array.type} cannot be used as {use}.",
            where=where,
            mend="use a column of text, whole numbers or dates",
        ) from error
    return found


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _uniform_length(array: pa.Array, rows: int, where: str) -> int:
    if pa.types.is_fixed_size_list(array.type):
        return int(array.type.list_size)
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    odd = np.flatnonzero(lengths != lengths[0])
    if len(odd):
        raise DataError(
            f"Lists vary in length: {lengths[0]} in row 0 and {lengths[odd[0]]} in row "
            f"{odd[0] * rows // len(lengths)}.",
            where=where,
            mend="pad or cut them to one length first",
        )
    return int(lengths[0])


def _refuse_nulls(array: pa.Array, rows: int, where: str) -> None:
    if array.null_count:
        missing = array.is_null().to_numpy(zero_copy_only=False)
        _refuse(missing.reshape(rows, -1).any(axis=1), "missing values", where)
    elif pa.types.is_null(array.type):
        _refuse(np.ones(rows, dtype=bool), "missing values", where)


def _refuse(bad: Booleans, kind: str, where: str, mend: str = _NULL_MEND) -> None:
    count, first = int(bad.sum()), int(np.argmax(bad))
    raise DataError(
        f"There are {kind} in {count} of {len(bad)} rows, first in row {first}.",
        where=where,
        mend=mend,
    )
