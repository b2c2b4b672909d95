"""What a caller hands over for prediction, as the columns that a version was trained on.

Shapes: N rows; a column is (N, ...).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from perennial.data.columns import (
    refuse_not_finite,
    to_categories,
    to_lists,
    to_numbers,
    to_sequences,
    to_texts,
)
from perennial.data.images import IMAGE, decoded, pixels_of
from perennial.data.preprocess.base import Preprocessor, nature
from perennial.data.source import LIST, as_kept, converted
from perennial.errors import DataError

WHERE = "predict"


def to_columns(
    inputs: Any, schema: Mapping[str, str], *, preprocess: Preprocessor | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Inputs as the version's own raw columns, in their order, dtypes and shapes.

    Args:
        inputs: A table (pandas, Arrow, or a mapping) whose columns are matched by name, others
            left out; a list of records or of images, opened or as bytes; an array or tensor
            (N, ...), whose columns are matched by position; or one row of any of these.
        schema: Column to dtype and shape of a row, as the version's manifest keeps it.
        preprocess: Says which columns are text, categories, or numbers of which some may miss.

    Returns:
        Each column (N, ...).

    Raises:
        DataError: A column is missing, or has another dtype or shape.
    """
    schema = {name: kind.removeprefix(IMAGE) for name, kind in schema.items()}
    read = {
        name: "fixed" if preprocess is None else preprocess.kind(name, nature(kind))
        for name, kind in schema.items()
    }
    plain = set(read.values()) == {"fixed"}
    named = _named(inputs)
    if named is not None:
        columns = _by_name(named, schema)
    else:
        columns = _by_position(_array(inputs) if plain else _objects(inputs), schema)
    found = {
        name: _as_trained(_array(columns[name]), name, kind)
        if read[name] == "fixed"
        else _as_read(columns[name], name, kind, read[name])
        for name, kind in schema.items()
    }
    lengths = {name: len(column) for name, column in found.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(
            f"Columns differ in length: {lengths}.", where=WHERE, mend="give as many of each"
        )
    return found


def _named(inputs: Any) -> Mapping[str, Any] | None:
    """Columns by name, where the inputs have names."""
    if hasattr(inputs, "column_names"):  # Arrow, datasets
        names = inputs.column_names
        return {name: np.asarray(inputs[name]) for name in names}
    if hasattr(inputs, "columns") and hasattr(inputs, "to_numpy"):
        return {str(name): inputs[name].to_numpy() for name in inputs.columns}
    if hasattr(inputs, "index") and hasattr(inputs, "to_dict"):  # one row of a pandas table
        inputs = inputs.to_dict()
    if isinstance(inputs, Mapping):
        return inputs
    if isinstance(inputs, Sequence) and inputs and isinstance(inputs[0], Mapping):
        return {name: [one.get(name) for one in inputs] for name in inputs[0]}
    return None


def _by_name(named: Mapping[str, Any], schema: Mapping[str, str]) -> dict[str, Any]:
    if lacking := [name for name in schema if name not in named]:
        raise DataError(
            f"There is no column {lacking[0]!r}"
            + (f", nor {len(lacking) - 1} others" if len(lacking) > 1 else "")
            + ".",
            where=WHERE,
            mend=f"the version was trained on the columns {', '.join(schema)}",
        )
    return {name: named[name] for name in schema}


def _by_position(values: npt.NDArray[Any], schema: Mapping[str, str]) -> dict[str, Any]:
    if len(schema) == 1:
        return dict.fromkeys(schema, values)
    if any(_shape(kind) for kind in schema.values()) or values.ndim not in (1, 2):
        raise DataError(
            f"One array of shape {values.shape} cannot be told apart into {len(schema)} columns.",
            where=WHERE,
            mend=f"give a mapping of {', '.join(schema)} to arrays",
        )
    if values.shape[-1] != len(schema):
        raise DataError(
            f"A row has {values.shape[-1]} values, and the version takes {len(schema)}.",
            where=WHERE,
            mend=f"give {', '.join(schema)} in this order, or a table with these columns",
        )
    return {name: values[..., position] for position, name in enumerate(schema)}


def _as_read(values: Any, name: str, kind: str, read: str) -> npt.NDArray[Any]:
    """A column as the reader of sources reads it."""
    where = f"{WHERE}, column {name!r}"
    flat = _lists(values) if read in ("sequence", "list") else _objects(values).reshape(-1).tolist()
    try:
        column = pa.chunked_array([pa.array(flat, from_pandas=True)])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"The values are no column: {error}.", where=where, mend="give values of one type"
        ) from error
    if read == "number":
        return converted(to_numbers(column, where=where), kind)
    if read == "category":
        return to_categories(column, where=where)
    if read == "list":
        found = as_kept(to_lists(column, where=where), kind, where=where)
        if f"{LIST}{found[0].dtype} ()" != kind:
            raise DataError(
                f"The lists hold {found[0].dtype}, and the version takes {kind}.",
                where=where,
                mend="give the numbers as they were for training",
            )
        return found
    if read == "sequence":
        return to_sequences(column, where=where)
    return to_texts(column, where=where, blank=True)


def _lists(values: Any) -> list[Any]:
    """A column of lists, or of texts that stand for lists; one list is one row."""
    rows = values.tolist() if hasattr(values, "tolist") else values
    rows = [rows] if isinstance(rows, str) else list(rows)
    return [row.tolist() if hasattr(row, "tolist") else row for row in rows]


def _objects(values: Any) -> npt.NDArray[Any]:
    """Any values as an array; what has no common type as objects."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    if isinstance(values, np.ndarray):
        return values
    try:
        return np.array(values, dtype=object)
    except ValueError as error:
        raise DataError(
            f"The inputs are no table: {error}.", where=WHERE, mend="give rows of equal length"
        ) from error


def _as_trained(values: npt.NDArray[Any], name: str, kind: str) -> npt.NDArray[Any]:
    shape = _shape(kind)
    values = _rows(values, shape)
    where = f"{WHERE}, column {name!r}"
    if values.shape[1:] != shape:
        raise DataError(
            f"A row has the shape {values.shape[1:]}, and the version takes {shape}.",
            where=where,
            mend="reshape or resize it as it was for training",
        )
    refuse_not_finite(values, where)
    found = converted(values, kind)
    if f"{found.dtype} {found.shape[1:]}" != kind:
        pixels = "; pixels are whole numbers from 0 to 255" if kind.startswith("uint8") else ""
        raise DataError(
            f"The values are {values.dtype}, and the version takes {kind.partition(' ')[0]}.",
            where=where,
            mend=f"give the values as they were for training{pixels}",
        )
    return found


def _rows(values: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """(N, *shape) where it can be: one row may lack its axis, grey images their channel."""
    if values.shape[:1] == (0,):
        return values.reshape(0, *shape)
    grey = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
    for row in (shape, grey):
        if row in (values.shape, values.shape[1:]):
            return values.reshape(-1, *shape)
    return values


def _array(values: Any) -> npt.NDArray[Any]:
    if isinstance(values, Sequence) and len(values) and hasattr(values[0], "getbands"):
        return np.stack([_pixels(image) for image in values])
    if hasattr(values, "getbands"):
        return _pixels(values)
    if (encoded := _encoded(values)) is not None:
        return decoded(encoded, where=WHERE)
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    try:
        # a copy: arrays from Arrow are read-only, and a tensor would promise otherwise
        found = np.array(values)
        if found.dtype == object and found.ndim == 1 and all(map(_is_list, found)):
            # a table's column of lists
            found = np.array([np.asarray(one) for one in found])
    except (TypeError, ValueError) as error:
        raise DataError(
            f"The inputs are no array: {error}.", where=WHERE, mend="give rows of equal length"
        ) from error
    if found.dtype.kind not in "biuf":
        raise DataError(
            f"The inputs are {found.dtype.name}, not numbers.",
            where=WHERE,
            mend="give numbers, a table of them, or opened images (PIL.Image.open)",
        )
    return found


def _encoded(values: Any) -> npt.NDArray[Any] | None:
    """Images as bytes (N,), where the values are some, or records of them as datasets have it."""
    if isinstance(values, bytes):
        values = [values]
    if isinstance(values, np.ndarray) and values.dtype == object and values.ndim == 1:
        values = values.tolist()
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        return None
    found = np.empty(len(values), dtype=object)
    for row, one in enumerate(values):
        found[row] = one.get("bytes") if isinstance(one, Mapping) else one
        if not isinstance(found[row], bytes):
            return None
    return found


def _is_list(value: Any) -> bool:
    return isinstance(value, np.ndarray | list | tuple)


def _pixels(image: Any) -> npt.NDArray[Any]:
    """A PIL image as (C, H, W), by the rule that training data are read by."""
    try:
        return pixels_of(image)
    except ValueError as error:
        raise DataError(
            f"An image cannot be taken: {error}.",
            where=WHERE,
            mend="convert it as those that the version was trained on",
        ) from error


def _shape(kind: str) -> tuple[int, ...]:
    """The shape in ``float32 (8, 8)``."""
    inner = kind.partition("(")[2].rstrip(")")
    return tuple(int(part) for part in inner.split(",") if part.strip())
