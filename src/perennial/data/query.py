"""Which rows somebody means: by id, or by one value of one column.

Shapes: N rows.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np

from perennial.data.rows import Rows
from perennial.errors import ConfigError
from perennial.types import Booleans

KINDS = ("ids", "ids-file", "where")


@dataclass(frozen=True)
class Query:
    """Rows that are named.

    Attributes:
        kind: How, one of `KINDS`.
        ids: Row ids, as text; empty for ``where``.
        column: Of ``where``: the id, group or label column, a slice column or a feature.
        value: Its value, as text.
    """

    kind: str
    ids: frozenset[str] = frozenset()
    column: str = ""
    value: str = ""


@dataclass(frozen=True)
class Named:
    """What columns are called in a lineage.

    Attributes:
        id: The id column; None where an id is the content's hash.
        group: The group column, or None.
        label: The target column, or None.
        label_names: Class names, where rows are of one class each.
    """

    id: str | None
    group: str | None
    label: str | None
    label_names: Sequence[str] = ()

    @property
    def of_every_row(self) -> list[str]:
        """Columns that are kept of every row that the lineage met."""
        known = (self.id, self.group, self.label if self.label_names else None)
        return [name for name in known if name is not None]


def matching(rows: Rows, query: Query, named: Named) -> Booleans | None:
    """Which rows (N,) a query names; None where they are kept without its column.

    Raises:
        ConfigError: The column is not one value a row, or the value is none of its kind.
    """
    if query.kind != "where":
        return np.isin(rows.id, sorted(query.ids))
    if query.column == named.id:
        return _equal(rows.id, query)
    if query.column == named.group:
        return _equal(rows.cluster, query)
    if query.column == named.label and named.label_names:
        names = np.array(named.label_names)
        return _equal(names[rows.label], query)
    columns: Mapping[str, Any] = {**rows.features, **rows.slices}
    return _equal(columns[query.column], query) if query.column in columns else None


def unknown_column(query: Query, known: Sequence[str]) -> ConfigError:
    """The error of a column that no file keeps."""
    close = difflib.get_close_matches(query.column, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return ConfigError(
        f"No row that the lineage keeps has a column {query.column!r}.",
        where="where",
        mend=f"{hint}columns are {', '.join(known)}; or name the rows by ids",
    )


def _equal(column: Any, query: Query) -> Booleans:
    if column.ndim != 1 or column.dtype.kind == "O":
        raise ConfigError(
            f"Column {query.column!r} is not one value a row.",
            where="where",
            mend="name a column of numbers or text, or the rows by ids",
        )
    if column.dtype.kind in "TU":
        found: Booleans = np.array([value == query.value for value in column.tolist()], dtype=bool)
        return found
    try:
        number = Decimal(query.value)
    except InvalidOperation:
        raise ConfigError(
            f"Column {query.column!r} holds numbers, and {query.value!r} is none.",
            where="where",
            mend="write the value as the column has it",
        ) from None
    if column.dtype.kind != "f":
        return _equal_whole(column, number)
    equal: Booleans = column == column.dtype.type(float(number))
    return equal


def _equal_whole(column: Any, number: Decimal) -> Booleans:
    """Whole numbers are compared exactly: a rounded or wrapped one would name other rows."""
    low, high = (0, 1) if column.dtype.kind == "b" else _range(column.dtype)
    if not number.is_finite() or not low <= number <= high or number != number.to_integral_value():
        return np.zeros(len(column), dtype=bool)
    equal: Booleans = column == column.dtype.type(int(number))
    return equal


def _range(dtype: np.dtype[Any]) -> tuple[int, int]:
    known = np.iinfo(dtype)
    return int(known.min), int(known.max)
