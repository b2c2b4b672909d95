"""Arrow columns to contiguous arrays.

Shapes: N rows; a feature column is (N, ...).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from perennial.errors import DataError
from perennial.types import Booleans, Strings

Column = npt.NDArray[Any]

# one long text costs its own length, not that of a column padded to it
TEXT = np.dtypes.StringDType()

# a whole number as floats are written
_WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))\.0+")
_TRUTH = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
# between the names of a list that is given or kept as text
SEPARATOR = "|"

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
    array = one_chunk(column)
    shape: list[int] = [rows]
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        refuse_nulls(array, rows, where)
        if not is_list(array.type):
            break
        shape.append(_uniform_length(array, rows, where))
        array = array.flatten()
    kind = array.type
    if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise DataError(
            f"A feature of type {kind} cannot be used: text, dates and nested records need "
            "preprocessing to fixed-size numeric columns.",
            where=where,
            mend=_use_mend(kind, where),
        )
    values = np.ascontiguousarray(array.to_numpy(zero_copy_only=False)).reshape(shape)
    refuse_not_finite(values, where)
    if values.dtype == np.uint64:
        most = np.iinfo(np.int64).max
        _refuse_rows(values > most, "numbers above 2^63 - 1", where, mend=_RANGE_MEND)
    return values


def _use_mend(kind: pa.DataType, where: str) -> str:
    """What a column that is no number may be for, the likeliest first."""
    found = re.search(r"column '(.+)'$", where)
    name = found[1] if found else "NAME"
    roles = "data.id_column, data.group_column or data.split_column"
    if pa.types.is_temporal(kind):
        return (
            f"if it orders the rows, set data.time_column={name}; else name it in "
            f"data.slice_columns=[{name}], leave it out of data.features, or make numbers of it"
        )
    if is_text(kind):
        return (
            f"if it tells parts of the rows apart, set data.slice_columns=[{name}]; if it "
            f"identifies them, name it in {roles}; if the model is to see it, use data=table "
            "(categories) or data=text, or leave it out of data.features"
        )
    return "leave it out of data.features, or make columns of numbers of it"


def to_numbers(column: pa.ChunkedArray, *, where: str) -> Column:
    """Numbers (N,) of which some may be missing, which are NaN.

    Floats keep their dtype, all else becomes float64, so that a file in which none is missing gives
    what one with gaps gives.

    Raises:
        DataError: Text, lists or dates; infinities or numbers too large to train on.
    """
    array = one_chunk(column)
    kind = array.type
    if not is_number(kind):
        raise DataError(
            f"A column of type {kind} cannot be read as numbers.",
            where=where,
            mend="name it under data.preprocess.categorical, correct the values that are no "
            "numbers, or leave the column out",
        )
    if not pa.types.is_floating(kind):
        if pa.types.is_boolean(kind):  # which Arrow does not cast to float
            array = pc.cast(array, pa.uint8())
        array = pc.cast(array, pa.float64(), safe=False)
    values: Column = np.array(array.to_numpy(zero_copy_only=False))
    refuse_not_finite(values, where, missing=True)
    return values


def to_categories(column: pa.ChunkedArray, *, where: str) -> Column:
    """Category names (N,), of `TEXT`; what is missing or blank is empty.

    A value has one name, however a file or a caller writes it: whole numbers are named by their
    digits, 1.0 and "1.0" like 1, and truth by ``true`` and ``false``. Leading zeros are kept.

    Raises:
        DataError: A type without a textual form.
    """
    array = one_chunk(column)
    if pa.types.is_floating(array.type):
        values = array.to_numpy(zero_copy_only=False)
        found = np.array([_number_name(value) for value in values.tolist()], dtype=TEXT)
    else:
        given = _as_text(array, "categories", where)
        found = np.array([_category_name(value) for value in given], dtype=TEXT)
    return found


def to_texts(column: pa.ChunkedArray, *, where: str, blank: bool = False) -> Column:
    """Texts (N,), of `TEXT`.

    Args:
        column: Text, or what has a textual form.
        where: Source and column, for messages.
        blank: Whether a text may be empty.

    Raises:
        DataError: Missing or blank texts, or a type without a textual form.
    """
    array = one_chunk(column)
    refuse_nulls(array, len(column), where)
    values = np.array(_as_text(array, "text", where), dtype=TEXT)
    if not blank:
        empty = np.strings.str_len(np.strings.strip(values)) == 0
        _refuse_rows(empty, "blank texts", where)
    return values


def to_sequences(column: pa.ChunkedArray, *, where: str) -> Column:
    """Lists of names (N,), of `TEXT`, with `SEPARATOR` between the names; a list may be empty.

    Args:
        column: Lists of text or of whole numbers, or text with the separator between the names.
        where: Source and column, for messages.

    Raises:
        DataError: A list or a name is missing or blank, or a name holds the separator.
    """
    array = one_chunk(column)
    refuse_nulls(array, len(column), where)
    if not is_list(array.type):
        given = [text.split(SEPARATOR) if text else [] for text in _as_text(array, "names", where)]
        return _joined(given, where)
    flat = array.flatten()
    names = _as_text(flat, "names", where)
    odd = sum(name is not None and SEPARATOR in name for name in names)
    if odd:
        raise DataError(
            f"{odd} names hold {SEPARATOR}, which stands between names.",
            where=where,
            mend=f"give names without {SEPARATOR}",
        )
    if pa.types.is_fixed_size_list(array.type):
        lengths = np.full(len(array), array.type.list_size)
    else:
        lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths).tolist()
    starts = [0, *ends[:-1]]
    return _joined([names[a:b] for a, b in zip(starts, ends, strict=True)], where)


def _joined(rows: Sequence[Sequence[str | None]], where: str) -> Column:
    told = [[(name or "").strip() for name in row] for row in rows]
    blank = np.array([not all(row) for row in told], dtype=bool)
    _refuse_rows(blank, "missing or blank names", where)
    return np.array([SEPARATOR.join(row) for row in told], dtype=TEXT)


def to_strings(column: pa.ChunkedArray, *, where: str) -> Strings:
    """A column of keys as strings (N,).

    Raises:
        DataError: Nulls or blanks, or a type without a textual form.
    """
    array = one_chunk(column)
    refuse_nulls(array, len(column), where)
    values = np.array(_as_text(array, "a key", where), dtype=np.str_)
    _refuse_rows(np.char.strip(values) == "", "blank values", where)
    return values


def to_slices(column: pa.ChunkedArray, *, where: str) -> Strings:
    """A column that tells slices apart, by the names of `to_categories`, as text (N,).

    Raises:
        DataError: A type without a textual form.
    """
    found = _as_text(one_chunk(column), "slices", where)
    return np.array([_category_name(value) for value in found], dtype=np.str_)


def to_times(column: pa.ChunkedArray, *, where: str) -> Column:
    """A column of dates, times, numbers or sortable text (N,).

    Raises:
        DataError: Nulls or NaN.
    """
    array = one_chunk(column)
    refuse_nulls(array, len(column), where)
    if is_text(array.type):
        return to_strings(column, where=where)
    values: Column = array.to_numpy(zero_copy_only=False)
    refuse_not_finite(values, where)
    return values


def refuse_not_finite(values: Column, where: str, *, missing: bool = False) -> None:
    """Raise a DataError where floats (N, ...) hold NaN, an infinity, or more than float32 can.

    Args:
        values: (N, ...).
        where: Source and column, for messages.
        missing: Whether NaN stands for a missing number, and may.
    """
    if values.dtype.kind == "f":
        if missing:
            _refuse_rows(np.isinf(values), "infinite values", where)
        else:
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


def _category_name(value: str | None) -> str:
    name = (value or "").strip()
    if whole := _WHOLE.fullmatch(name):
        return whole[1] if whole[1] != "-0" else "0"
    return _TRUTH.get(name, name)


def _number_name(value: float | None) -> str:
    if value is None or value != value:  # NaN alone differs from itself
        return ""
    return str(int(value)) if value.is_integer() else repr(value)


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array, without a dictionary."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def is_text(kind: pa.DataType) -> bool:
    """Whether a column, or its dictionary, holds text."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether a column holds numbers or truth; one of nulls alone holds missing ones."""
    return bool(
        pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    )


def is_list(kind: pa.DataType) -> bool:
    """Whether each row of a column is a list."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def to_lists(column: pa.ChunkedArray, *, where: str) -> Column:
    """Lists of numbers, of any length each, as arrays of one dtype (N,).

    Raises:
        DataError: A list or a number is missing, or cannot be trained on; the lists are of
            something else.
    """
    array = one_chunk(column)
    refuse_nulls(array, len(column), where)
    flat = array.flatten() if is_list(array.type) else array
    plain = pa.types.is_integer(flat.type) or pa.types.is_floating(flat.type)
    if not is_list(array.type) or not plain:
        raise DataError(
            f"A column of type {array.type} is no lists of numbers.",
            where=where,
            mend="give lists of numbers, or name another column in data.preprocess.column",
        )
    sizes = [len(one) for one in array]
    ends = np.cumsum(sizes)
    row = np.repeat(np.arange(len(sizes)), sizes)
    values = np.array(flat.to_numpy(zero_copy_only=False))
    odd = flat.is_null().to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        odd = ~np.isfinite(values) | (np.abs(values) > np.finfo(np.float32).max)
    _refuse_rows(np.isin(np.arange(len(sizes)), row[odd]), "missing or infinite values", where)
    found = np.empty(len(sizes), dtype=object)
    for place, (end, size) in enumerate(zip(ends.tolist(), sizes, strict=True)):
        found[place] = values[end - size : end]
    return found


def is_varying(values: Column) -> bool:
    """Whether each row of a column (N,) is an array of its own."""
    return values.dtype.kind == "O" and bool(len(values)) and not isinstance(values[0], bytes)


def is_bytes(values: Column) -> bool:
    """Whether a column (N,) holds bytes; one without rows does where it holds objects."""
    return values.dtype.kind == "O" and (not len(values) or isinstance(values[0], bytes))


def _uniform_length(array: pa.Array, rows: int, where: str) -> int:
    if pa.types.is_fixed_size_list(array.type):
        lengths = np.full(min(len(array), 1), array.type.list_size)
    else:
        lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    if not lengths.any():
        raise DataError(
            "Its lists are empty.", where=where, mend="leave the column out of data.features"
        )
    odd = np.flatnonzero(lengths != lengths[0])
    if len(odd):
        raise DataError(
            f"Lists vary in length: {lengths[0]} in row 0 and {lengths[odd[0]]} in row "
            f"{odd[0] * rows // len(lengths)}.",
            where=where,
            mend="pad or cut them to one length first, or have that done for every batch: "
            "data.preprocess={_target_: perennial.data.preprocess.Lists, column: NAME}",
        )
    return int(lengths[0])


def refuse_nulls(array: pa.Array, rows: int, where: str) -> None:
    """Raise a DataError where values are missing, of which each row has as many."""
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
