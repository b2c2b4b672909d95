"""Target columns by the kind of target that a task has.

Shapes: N rows, C classes, T positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from perennial.data.columns import SEPARATOR, is_list, is_text, to_numpy, to_strings
from perennial.data.labels import MAX_CLASSES, read_labels
from perennial.errors import DataError
from perennial.types import Strings

IGNORED = -100
# the first of a catalogue's names: padding, and what is not known
NO_ITEM = ""


@dataclass(frozen=True)
class Target:
    """What the rows' targets are.

    Attributes:
        values: (N, ...): int64 for a class, an item or positions, int8 (N, C) for several classes,
            float32 for a number.
        names: Class names, none for a kind without classes; of items that have names the
            catalogue, whose first is `NO_ITEM`.
        sorted_names: Whether their order is only the alphabet's, since the column is text.
        numbered: Whether they are positions, since the column is whole numbers.
    """

    values: npt.NDArray[Any]
    names: tuple[str, ...] = ()
    sorted_names: bool = False
    numbered: bool = False


def read_target(
    table: pa.Table,
    label: str | None,
    *,
    kind: str,
    feature: Any,
    label_names: Sequence[str] | None,
    new_classes: str | None,
    where: str,
) -> Target:
    """A target column as the kind's array, and its class names.

    Args:
        table: N rows.
        label: The column; None for the kind ``none``.
        kind: One of `perennial.types.TARGET_KINDS`.
        feature: The column's type as ``datasets`` has it, which may name classes.
        label_names: The lineage's names; None takes the source's own.
        new_classes: See `perennial.data.labels.read_labels`; of the kinds ``class`` and ``item``.
        where: Source and column, for messages.

    Raises:
        DataError: The values are not of the kind, or unknown.
    """
    if kind == "none":
        return Target(np.zeros(len(table), dtype=np.int64))
    assert label is not None
    column = table[label]
    if kind == "number":
        return Target(_numbers(column, where))
    if kind == "item":
        return _items(column, label_names, new_classes, where)
    # a lineage without names of classes has an empty list of them
    known = label_names or None
    if kind == "class":
        values, names = read_labels(
            column,
            class_names=getattr(feature, "names", None),
            label_names=known,
            where=where,
            new_classes=new_classes,
        )
        own = known is None
        return Target(
            values,
            names,
            sorted_names=own and is_text(column.type),
            numbered=own and not is_text(column.type) and names == _positions(len(names)),
        )
    inner = getattr(getattr(feature, "feature", None), "names", None)
    if kind == "classes":
        return _several(column, inner, known, where)
    return _by_position(column, inner, known, where)


def target_text(values: npt.NDArray[Any], names: Sequence[str], kind: str) -> Strings:
    """Targets (N, ...) as text (N,), alike under every numbering of the classes.

    It is what a row's content hash takes of its target.
    """
    if kind == "class" or (kind == "item" and names):
        found: Strings = np.array(names, dtype=np.str_)[values]
        return found
    if kind == "none":
        return np.full(len(values), "", dtype=np.str_)
    if kind == "classes":
        told = ["\0".join(sorted(names[i] for i in np.flatnonzero(row).tolist())) for row in values]
    elif kind == "tokens":
        told = [
            "\0".join("" if one == IGNORED else names[one] for one in row).rstrip("\0")
            for row in values.tolist()
        ]
    else:
        # -0.0 equals 0.0 and has to hash alike
        told = [repr(value) for value in (values + 0).tolist()]
    return np.array(told, dtype=np.str_)


def padded(values: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    """Targets of positions (N, T) as (N, width), filled up with `IGNORED`."""
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=IGNORED)


def _positions(count: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(count))


def _numbers(column: pa.ChunkedArray, where: str) -> npt.NDArray[np.float32]:
    if is_text(column.type):
        raise DataError(
            "The target is text, and the task takes numbers.",
            where=where,
            mend="give a column of numbers, or use task=classification",
        )
    values = to_numpy(column, where=where)
    if values.ndim != 1:
        raise DataError(
            f"A target is one number per row, not {values.shape[1:]} values.",
            where=where,
            mend="name a column of numbers in data.label",
        )
    return values.astype(np.float32)


def _items(
    column: pa.ChunkedArray, known: Sequence[str] | None, new_classes: str | None, where: str
) -> Target:
    """Items by name, as positions from 1 in a catalogue, or by number, as they are."""
    if is_text(column.type) and known is not None and not known:
        raise DataError(
            "The items are text, and the lineage was founded with numbers.",
            where=where,
            mend="number the items from 0 as the model's outputs are",
        )
    if is_text(column.type):
        own = [NO_ITEM, *np.unique(to_strings(column, where=where)).tolist()]
        values, names = read_labels(
            column,
            class_names=None,
            label_names=known or own,
            where=where,
            new_classes=new_classes,
        )
        return Target(values, names, sorted_names=known is None)
    if known or new_classes == "grow":
        raise DataError(
            "The items are numbers, and only items with names can be matched and appended by them.",
            where=where,
            mend="give the items as text"
            + (", as the lineage was founded with" if known else " from the founding rows on"),
        )
    values, _ = read_labels(column, class_names=None, label_names=None, where=where)
    return Target(values)


def _lists(column: pa.ChunkedArray, where: str) -> list[list[Any]]:
    """Each row's values; of text, what stands between the separators."""
    if is_text(column.type):
        array = column.combine_chunks()
        if array.null_count:
            to_strings(column, where=where)  # says which row
        return [
            [part.strip() for part in text.split(SEPARATOR) if part.strip()]
            for text in pc.cast(array, pa.string()).to_pylist()
        ]
    if not is_list(column.type):
        raise DataError(
            f"A row's target is {column.type}, and the task takes a list.",
            where=where,
            mend=f"give lists, or text with {SEPARATOR} between the names",
        )
    inner = column.type.value_type
    numbers = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_null)
    if not is_text(inner) and not any(one(inner) for one in numbers):
        raise DataError(
            f"A row's target is a list of {inner}, and the task takes names or whole numbers.",
            where=where,
            mend="give each label its name, as text, or its number",
        )
    found: list[list[Any]] = column.to_pylist()
    for row, values in enumerate(found):
        if values is None or any(value is None for value in values):
            raise DataError(
                f"The target of row {row} is missing, in whole or in part.",
                where=where,
                mend="fill in or drop these rows; an empty list says that there is no label",
            )
        if odd := [one for one in values if isinstance(one, float) and not one.is_integer()]:
            raise DataError(
                f"The label {odd[0]} in row {row} is no whole number.",
                where=where,
                mend="number the classes from 0, or give their names",
            )
    return found


def _several(
    column: pa.ChunkedArray,
    class_names: Sequence[str] | None,
    known: Sequence[str] | None,
    where: str,
) -> Target:
    """Lists of names, or lists of 0 and 1, one for each class."""
    rows = _lists(column, where)
    if is_list(column.type) and not is_text(column.type.value_type) and class_names is None:
        values = _switches(rows, where)
        names = tuple(known or _positions(values.shape[1]))
        if len(names) != values.shape[1]:
            raise DataError(
                f"A row has {values.shape[1]} values of 0 and 1, and there are {len(names)} "
                "labels.",
                where=where,
                mend="give one for each label, in the order of task.labels",
            )
        return Target(values, names, numbered=known is None)
    named = [
        [_named(one, class_names, row, where).strip() for one in one_row]
        for row, one_row in enumerate(rows)
    ]
    # as of text with separators: what is blank is no name
    told = [[name for name in one_row if name] for one_row in named]
    own = tuple(class_names or sorted({name for one_row in told for name in one_row}))
    names = tuple(known or own)
    table = {name: place for place, name in enumerate(names)}
    values = np.zeros((len(rows), len(names)), dtype=np.int8)
    for row, one_row in enumerate(told):
        for name in one_row:
            values[row, _place(name, table, row, where)] = 1
    return Target(values, names, sorted_names=known is None and class_names is None)


def _by_position(
    column: pa.ChunkedArray,
    class_names: Sequence[str] | None,
    known: Sequence[str] | None,
    where: str,
) -> Target:
    """Lists of names or of whole numbers, -100 where a position has none."""
    if not is_list(column.type):
        raise DataError(
            f"A row's target is {column.type}, and the task takes a list with a label for each "
            "position.",
            where=where,
            mend="name a column of lists in data.label",
        )
    rows = _lists(column, where)
    width = max((len(row) for row in rows), default=0)
    if not width:
        raise DataError("No position has a label.", where=where, mend="give labels")
    flat = [(row, one) for row, values in enumerate(rows) for one in values]
    text = is_text(column.type.value_type)
    odd = [] if text else [it for it in flat if it[1] != IGNORED and not 0 <= it[1] < MAX_CLASSES]
    if odd:
        raise DataError(
            f"The label {odd[0][1]} in row {odd[0][0]} is no class; classes count from 0 to fewer "
            f"than {MAX_CLASSES:,}, and {IGNORED} has none.",
            where=where,
            mend="number the classes from 0, or give names",
        )
    if text:
        own: Sequence[str] = sorted({one for _, one in flat})
    else:
        most = max((int(one) for _, one in flat), default=-1)
        own = class_names or _positions(most + 1)
    names = tuple(known or own)
    table = {name: place for place, name in enumerate(names)}
    values = np.full((len(rows), width), IGNORED, dtype=np.int64)
    for row, one_row in enumerate(rows):
        for place, one in enumerate(one_row):
            if text or one != IGNORED:
                name = one if text else _named(one, class_names, row, where)
                values[row, place] = _place(name, table, row, where)
    own_names = known is None
    return Target(
        values,
        names,
        sorted_names=own_names and text,
        numbered=own_names and not text and class_names is None,
    )


def _switches(rows: list[list[Any]], where: str) -> npt.NDArray[np.int8]:
    width = len(rows[0])
    for row, values in enumerate(rows):
        if len(values) != width or any(one not in (0, 1) for one in values):
            raise DataError(
                f"The target of row {row} is {values[:10]}, not {width} values of 0 and 1.",
                where=where,
                mend="give as many values of 0 and 1 in each row as there are labels, or lists of "
                "the labels' names",
            )
    return np.array(rows, dtype=np.int8)


def _named(value: Any, class_names: Sequence[str] | None, row: int, where: str) -> str:
    """A value's class name: of a number the source's own, or the number itself."""
    if class_names is None or isinstance(value, str):
        return str(value) if isinstance(value, str) else str(int(value))
    if not 0 <= value < len(class_names):
        raise DataError(
            f"The label {value} in row {row} is out of range.",
            where=where,
            mend=f"there are {len(class_names)} labels",
        )
    return str(class_names[value])


def _place(name: str, table: dict[str, int], row: int, where: str) -> int:
    if name not in table:
        shown = ", ".join(list(table)[:10]) + (", …" if len(table) > 10 else "")
        raise DataError(
            f"The label {name!r} in row {row} is unknown.",
            where=where,
            mend=f"the {len(table)} known labels are {shown}; labels of this task are never "
            "appended: found another lineage for others",
        )
    return table[name]
