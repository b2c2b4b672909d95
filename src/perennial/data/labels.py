"""Labels: class labels, text or whole numbers to positions among class names, by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from perennial.data.columns import is_text, to_numpy, to_strings
from perennial.errors import DataError
from perennial.types import Strings

MAX_CLASSES = 1_000_000
NEW_CLASSES = ("refuse", "grow")


def read_labels(
    column: pa.ChunkedArray,
    *,
    class_names: Sequence[str] | None,
    label_names: Sequence[str] | None,
    where: str,
    new_classes: str | None = None,
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Labels (N,) as positions among class names, and these names.

    Known names keep their positions. New ones follow them: text labels that occur, in the order
    of the alphabet (or of the source's own names), whole numbers up to the largest.

    Args:
        column: Text, or numbers that are whole and not negative.
        class_names: Names that the source itself gives its numbers, if any.
        label_names: The lineage's names; None takes the source's own.
        where: Source and column, for messages.
        new_classes: What becomes of a label that the lineage does not know: ``grow`` appends it,
            ``refuse`` does not; None where the source is not one that may bring classes.

    Raises:
        DataError: Missing, negative, fractional or unknown labels, or numbers where the lineage
            knows its classes by name.
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
            _refuse(position >= len(own), position.astype(np.str_), own, where, mend="")
        else:
            own = [str(number) for number in range(most + 1)]
    if label_names is None:
        return position, tuple(own)
    names = list(label_names)
    if new_classes == "grow":
        numbered = class_names is None and not is_text(column.type)
        names += _new_names(own, position, names, numbered=numbered, where=where)
    known = {name: index for index, name in enumerate(names)}
    table = np.array([known.get(name, -1) for name in own], dtype=np.int64)
    mapped = table[position]
    mend = (
        "for a new class set data.new_classes=grow"
        if new_classes
        else "only data.new may bring a new class"
    )
    _refuse(mapped < 0, np.array(own, dtype=np.str_)[position], names, where, mend=f"; {mend}")
    return mapped, tuple(names)


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


def _new_names(
    own: Sequence[str],
    position: npt.NDArray[np.int64],
    names: Sequence[str],
    *,
    numbered: bool,
    where: str,
) -> list[str]:
    """Names to append for the labels that occur and are not among the lineage's."""
    known = set(names)
    met = [own[index] for index in np.unique(position).tolist()]
    fresh = [name for name in met if name not in known]
    if not numbered:
        return fresh
    if fresh and not all(name.isdigit() for name in names):
        raise DataError(
            f"The labels are whole numbers such as {fresh[0]}, and the lineage's classes have "
            f"names such as {names[0]!r}.",
            where=where,
            mend="give the labels as text, with the names that the lineage uses",
        )
    if list(names) == [str(number) for number in range(len(names))]:
        # positions stand for classes, so that one without a row is a class too
        return list(own[len(names) :])
    return fresh


def _refuse(
    bad: npt.NDArray[np.bool_], values: Strings, names: Sequence[str], where: str, *, mend: str
) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
        raise DataError(
            f"The label {str(values[row])!r} in row {row} is unknown (out of range); "
            f"{int(bad.sum())} such rows.",
            where=where,
            mend=f"the {len(names)} known labels are {shown}{mend}",
        )
