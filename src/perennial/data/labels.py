"""Labels: class labels, text or whole numbers to positions among class names, by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from perennial.data.columns import to_numpy, to_strings
from perennial.errors import DataError
from perennial.types import Strings

MAX_CLASSES = 1_000_000


def read_labels(
    column: pa.ChunkedArray,
    *,
    class_names: Sequence[str] | None,
    label_names: Sequence[str] | None,
    where: str,
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Labels (N,) as positions among class names, and these names.

    Args:
        column: Text, or numbers that are whole and not negative.
        class_names: Names that the source itself gives its numbers, if any.
        label_names: The lineage's names; None takes the source's own.
        where: Source and column, for messages.

    Raises:
        DataError: Missing, negative, fractional or unknown labels.
    """
    if is_text(column.type):
        values = to_strings(column, where=where)
        distinct, inverse = np.unique(values, return_inverse=True)
        own = distinct.tolist()
        position = inverse.astype(np.int64)
    else:
        position = _whole(column, where)
        most = int(position.max())
        if class_names is not None:
            own = list(class_names)
            _refuse(position >= len(own), position.astype(np.str_), own, where)
        else:
            own = [str(number) for number in range(most + 1)]
    if label_names is None:
        return position, tuple(own)
    known = {name: index for index, name in enumerate(label_names)}
    table = np.array([known.get(name, -1) for name in own], dtype=np.int64)
    mapped = table[position]
    _refuse(mapped < 0, np.array(own, dtype=np.str_)[position], list(label_names), where)
    return mapped, tuple(label_names)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of labels holds class names."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _whole(column: pa.ChunkedArray, where: str) -> npt.NDArray[np.int64]:
    values = to_numpy(column, where=where)
    if values.ndim != 1:
        raise DataError(
            f"A label is one value per row, not {values.shape[1:]} values.",
            where=where,
            mend="name a column of class labels in data.label",
        )
    for bad, what in ((values < 0, "negative"), (values != np.floor(values), "not a whole number")):
        if bad.any():
            row = int(np.argmax(bad))
            raise DataError(
                f"The label {values[row]} in row {row} is {what}; {int(bad.sum())} such rows.",
                where=where,
                mend="number the classes from 0, or give the labels as text; drop unlabelled rows",
            )
    if (most := values.max()) >= MAX_CLASSES:
        raise DataError(
            f"A label of {most:g} would mean as many classes.",
            where=where,
            mend="number the classes from 0, or give the labels as text",
        )
    return values.astype(np.int64)


def _refuse(bad: npt.NDArray[np.bool_], values: Strings, names: Sequence[str], where: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
        raise DataError(
            f"The label {str(values[row])!r} in row {row} is unknown (out of range); "
            f"{int(bad.sum())} such rows.",
            where=where,
            mend=f"the {len(names)} known labels are {shown}; a new class needs a new model_name",
        )
