"""What a version carries of the rows that it was made and judged from, to tell drift by.

A bounded sample of the training and holdout rows of its own cycle: those of lowest priority, a hash
of the row id, so that it does not depend on the order of rows. Beside it what is known of all of
these rows: how many there are, which categories they have, and how numbers lie.

Shapes: N rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.data.columns import TEXT
from perennial.data.images import Pixels
from perennial.data.memory import row_bytes
from perennial.data.preprocess.base import Preprocessor, nature
from perennial.data.rows import Rows, concatenate
from perennial.data.selection import reservoir
from perennial.data.source import LIST
from perennial.data.store import read_rows_file, write_rows
from perennial.errors import DataError, RegistryError, require_setting
from perennial.types import Booleans, Integers, Strings

ROWS = "reference/rows.arrow"
FACTS = "reference/facts.json"
# of rows that take much, as images do, fewer are kept
MOST_BYTES = 64 * 2**20
ROLES = ("train", "holdout")
LEAST = 100
NO_TIME = -1
# how a column is read that holds many words or items a row
LONG = ("text", "sequence")
FORMAT = 1


@dataclass(frozen=True)
class Reference:
    """Rows of one cycle to compare a window with.

    Attributes:
        rows: The sample (N,), a smaller sample first.
        role: ``train`` or ``holdout`` (N,).
        order: Place in time among all of the cycle's rows (N,), or `NO_TIME`.
        reads: Column to how it is read; see `perennial.data.preprocess.base.Preprocessor.kind`.
        schema: Column to dtype and shape of a row.
        total: How many rows the sample stands for, by role.
        known: Column of categories to its names and their counts over all of these rows.
        moments: Column of numbers to ``mean``, ``deviation`` and ``missing`` over all of them.
        time: The earliest and the latest time, as text; None where no column tells.
        cycle: Name of the cycle.
        version: The version that carries it, for messages.
    """

    rows: Rows
    role: Strings
    order: Integers
    reads: Mapping[str, str]
    schema: Mapping[str, str]
    total: Mapping[str, int]
    known: Mapping[str, Mapping[str, int]]
    moments: Mapping[str, Mapping[str, float]]
    time: tuple[str, str] | None = None
    cycle: str = ""
    version: str = "the reference"

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """Feature columns."""
        return tuple(self.schema)

    @property
    def has_time(self) -> bool:
        """Whether its rows are ordered in time."""
        return bool(len(self.order)) and int(self.order[0]) != NO_TIME

    def kind(self, column: str) -> str:
        """What is compared of a column; see `column_kind`."""
        return column_kind(self.schema[column], self.reads[column])

    def numbers(self, column: str) -> npt.NDArray[np.float64]:
        """The numbers of a column (N,); see `as_numbers`."""
        return as_numbers(self.rows.features[column], self.kind(column))


def column_kind(schema: str, reads: str) -> str:
    """What is compared of a column: ``number``, ``category``, ``length`` or ``mean``.

    The length is that of texts and of lists, the mean that of images and of several numbers a row.

    Args:
        schema: Dtype and shape of a row.
        reads: How it is read.

    Examples:
        >>> column_kind("str ()", "text"), column_kind("str ()", "category")
        ('length', 'category')
        >>> column_kind("float32 ()", "number"), column_kind("uint8 (8, 8)", "fixed")
        ('number', 'mean')
        >>> column_kind("list int64 ()", "list"), column_kind("image uint8 (3, 8, 8)", "fixed")
        ('length', 'mean')
    """
    if schema.startswith(LIST):
        return "length"
    what = nature(schema)
    if what == "text":
        return "length" if reads in LONG else "category"
    return "number" if what == "number" else "mean"


def as_numbers(values: npt.NDArray[Any], kind: str) -> npt.NDArray[np.float64]:
    """A column (N, ...) as one number a row (N,): itself, how long it is, or the mean.

    Raises:
        DataError: An encoded image cannot be read.
    """
    if values.dtype == object:
        if kind == "length":
            return np.array([len(row) for row in values], dtype=np.float64)
        parts = Pixels(values, where="an image column").parts() if len(values) else iter(())
        means = [part.reshape(len(part), -1).mean(axis=1, dtype=np.float64) for part in parts]
        return np.concatenate([np.empty(0), *means])
    if kind == "length":
        return np.strings.str_len(values).astype(np.float64)
    flat = values.reshape(len(values), -1).astype(np.float64)
    return flat[:, 0] if flat.shape[1] == 1 else flat.mean(axis=1)


def counted(values: npt.NDArray[Any]) -> dict[str, int]:
    """Category to how often it occurs in a column (N,)."""
    names, counts = np.unique(values, return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def check_capacity(rows: int) -> None:
    """Refuse a sample too small to compare anything with.

    Raises:
        ConfigError: It is.
    """
    good = isinstance(rows, int) and not isinstance(rows, bool) and rows >= LEAST
    words = f"a whole number of rows from {LEAST} up"
    require_setting(good, "data.reference_rows", rows, words)


def sample(
    parts: Mapping[str, Rows],
    *,
    capacity: int,
    seed: int,
    schema: Mapping[str, str],
    preprocess: Preprocessor | None,
    cycle: str = "",
) -> Reference | None:
    """The reference that one cycle leaves; None where it met no row.

    Args:
        parts: Training and holdout rows by role, raw as they came.
        capacity: Rows to keep, fewer where they take more than `MOST_BYTES`.
        seed: Of the lineage's memory, which orders rows alike in all cycles.
        schema: Column to dtype and shape of a row.
        preprocess: Says how columns are read.
        cycle: Its name.
    """
    given = [parts[role] for role in ROLES if len(parts[role])]
    if not given:
        return None
    rows = concatenate(given)
    role = np.repeat([role for role in ROLES if len(parts[role])], [len(part) for part in given])
    reads = {
        column: "fixed" if preprocess is None else preprocess.kind(column, nature(schema[column]))
        for column in rows.features
    }
    kept = reservoir(rows.id, seed=seed)[:capacity]
    size = np.cumsum(row_bytes(rows.take(kept)))
    kept = kept[: max(int(np.searchsorted(size, MOST_BYTES, side="right")), 1)]
    bare = replace(rows.take(kept), logits=None, logits_version=None, slices={}, time=None)
    time = None if rows.time is None else np.sort(rows.time)[[0, -1]].astype(str).tolist()
    whole = Reference(
        rows=rows,
        role=role,
        order=_order(rows),
        reads=reads,
        schema={column: schema[column] for column in rows.features},
        total={one: len(parts[one]) for one in ROLES},
        known={},
        moments={},
        time=None if time is None else (time[0], time[1]),
        cycle=cycle,
    )
    summed = summarised(whole)
    return replace(summed, rows=bare, role=role[kept], order=whole.order[kept])


def summarised(reference: Reference) -> Reference:
    """With what is known of all rows taken from those that are there."""
    known, moments = {}, {}
    for column in reference.columns:
        if reference.kind(column) == "category":
            known[column] = counted(reference.rows.features[column])
            continue
        values = reference.numbers(column)
        there = values[~np.isnan(values)]
        moments[column] = {
            "mean": float(there.mean()) if len(there) else 0.0,
            "deviation": float(there.std()) if len(there) else 0.0,
            "missing": len(values) - len(there),
        }
    return replace(reference, known=known, moments=moments)


def write(reference: Reference, folder: Path) -> dict[str, Path | bytes]:
    """Its files by their paths inside a version; rows are written to a folder first."""
    path = folder / "reference.arrow"
    write_rows(path, reference.rows, {"role": reference.role, "order": reference.order})
    return {ROWS: path, FACTS: facts(reference)}


def facts(reference: Reference) -> bytes:
    """What is known beside the sample, as JSON."""
    told = {
        "format": FORMAT,
        "cycle": reference.cycle,
        "reads": dict(reference.reads),
        "schema": dict(reference.schema),
        "total": dict(reference.total),
        "known": {column: dict(names) for column, names in reference.known.items()},
        "moments": {column: dict(values) for column, values in reference.moments.items()},
        "time": reference.time,
    }
    return (json.dumps(told, indent=2, allow_nan=False) + "\n").encode()


def read(rows: Path, told: Path, *, version: str) -> Reference:
    """A reference from its two files, whose hashes were checked where they were opened.

    Args:
        rows: The sample.
        told: The facts.
        version: Whose, for messages.

    Raises:
        RegistryError: They are not what `write` wrote.
    """
    found, extra = read_rows_file(rows)
    try:
        known: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
        if known["format"] != FORMAT or set(known["schema"]) != set(found.features):
            raise ValueError("its columns are others than those of its rows")
        time = known["time"]
        return Reference(
            rows=found,
            role=extra["role"],
            order=extra["order"],
            reads=known["reads"],
            schema=known["schema"],
            total=known["total"],
            known=known["known"],
            moments=known["moments"],
            time=None if time is None else (time[0], time[1]),
            cycle=known["cycle"],
            version=version,
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise RegistryError(
            f"The reference of {version} is malformed: {error}.",
            where=f"{version}: {told.name}",
            mend="restore the version from a copy",
        ) from error


def refuse_other_columns(reference: Reference, names: Sequence[str], *, where: str) -> None:
    """Refuse a window that lacks a column which the reference has; others are not looked at.

    Raises:
        DataError: Names the columns.
    """
    lacking = [column for column in reference.columns if column not in names]
    if lacking:
        raise DataError(
            f"The window has no column {', '.join(map(repr, lacking))}, which {reference.version} "
            "was made from.",
            where=where,
            mend="give it as it was then; a column that is gone is no small drift, and the model "
            "cannot be served without it",
        )


def _order(rows: Rows) -> Integers:
    if rows.time is None:
        return np.full(len(rows), NO_TIME, dtype=np.int64)
    found = np.empty(len(rows), dtype=np.int64)
    found[np.argsort(rows.time, kind="stable")] = np.arange(len(rows))
    return found


def is_missing(values: npt.NDArray[Any]) -> Booleans:
    """Which values of a column (N,) are missing: NaN, or empty text."""
    if values.dtype == TEXT:
        return np.asarray(values == "")
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)
