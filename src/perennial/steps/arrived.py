"""Rows of a window as they arrive: with labels, without any, or with some.

Shapes: N rows, K labelled rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from perennial.data.columns import is_text, one_chunk, to_strings
from perennial.data.content import content_hashes
from perennial.data.forgotten import Forgotten
from perennial.data.rows import Rows
from perennial.data.source import check_schema, open_source, read_rows
from perennial.data.targets import Target, read_target, target_text
from perennial.errors import ConfigError, DataError
from perennial.monitoring.reference import Reference, refuse_other_columns
from perennial.steps.collect import Data
from perennial.types import Booleans, Strings


@dataclass(frozen=True)
class Arrived:
    """A window, read.

    Attributes:
        rows: N rows; the label of one that has none yet is 0.
        is_labelled: Which have one (N,).
        label_names: The version's classes, then others that labels name.
        unknown: Of these the others.
        keyed: Whether row ids are the same before and after a label comes.
    """

    rows: Rows
    is_labelled: Booleans
    label_names: tuple[str, ...]
    unknown: tuple[str, ...]
    keyed: bool

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Late:
    """Labels that came in a table of their own.

    Attributes:
        ids: Of their rows (K,).
        target: (K, ...).
        label_names: As `Arrived` has them.
    """

    ids: Strings
    target: npt.NDArray[Any]
    label_names: tuple[str, ...]


def read_window(
    data: Data,
    *,
    version: str,
    schema: dict[str, str],
    names: Sequence[str],
    reference: Reference | None,
    forgotten: Forgotten,
) -> Arrived:
    """Read ``data.new`` as a version takes it, labelled or not.

    Args:
        data: The sources, with preprocessing as stored.
        version: Its id, for messages.
        schema: Its columns.
        names: Its classes.
        reference: What the rows will be compared with, or None.
        forgotten: What the lineage forgot: such rows are left out.

    Raises:
        DataError: A column vanished or changed its type, or values cannot be used.
    """
    dataset = open_source(data.new, name="new", csv=data.csv(schema))
    there = dataset.column_names
    if reference is not None:
        refuse_other_columns(reference, there, where="data.new")
    groups = data.group_column if data.group_column in there else None
    bare = read_rows(
        dataset,
        name="new",
        label=None,
        kind="none",
        features=list(schema),
        id_column=data.id_column,
        group_column=groups,
        time_column=data.time_column,
        schema=schema,
        preprocess=data.preprocess,
    )
    check_schema(schema, bare.schema, version, "the window")
    if data.kind == "none":
        labelled, target = np.ones(len(dataset), dtype=bool), Target(bare.rows.label)
    else:
        labelled = _labelled(dataset, data.label)
        target = _target(dataset, labelled, data, names)
    rows = _with_labels(bare.rows, labelled, target, data, grouped=groups is not None)
    keep = ~forgotten.mask(rows.id)
    if data.id_column is None:  # rows of one content are one row
        _, first = np.unique(rows.id, return_index=True)
        keep &= np.isin(np.arange(len(rows)), first)
    if not keep.any():
        raise DataError(
            "Every row of the window was forgotten.",
            where="data.new",
            mend="look at a window with other rows",
        )
    if not keep.all():
        rows, labelled = rows.take(keep), labelled[keep]
    return Arrived(
        rows=rows,
        is_labelled=labelled,
        label_names=target.names,
        unknown=tuple(target.names[len(names) :]),
        keyed=data.id_column is not None or data.kind == "none",
    )


def read_late(spec: Any, data: Data, *, names: Sequence[str]) -> Late:
    """Read a table of row ids and labels.

    Args:
        spec: As `perennial.data.opening.open_source` takes it.
        data: Names the columns.
        names: The version's classes.

    Raises:
        ConfigError: No column tells rows apart, or the task has no labels that could be late.
        DataError: A column is missing, or its values cannot be used.
    """
    if data.id_column is None or data.label is None:
        key = "data.id_column" if data.id_column is None else "data.label"
        raise ConfigError(
            f"monitor.labels is given, and {key} is null: labels are joined to rows by their ids.",
            where=f"monitor.labels, {key}",
            mend="give rows with labels in data.new, or found a lineage with data.id_column=NAME",
        )
    dataset = open_source(spec, name="labels", csv=data.csv())
    for key, column in (("id_column", data.id_column), ("label", data.label)):
        if column not in dataset.column_names:
            raise DataError(
                f"The labels have no column {column!r}.",
                where=f"monitor.labels, data.{key}",
                mend=f"its columns are {', '.join(dataset.column_names)}",
            )
    labelled = _labelled(dataset, data.label)
    if not labelled.any():
        raise DataError(
            "No row of the labels has one.", where="monitor.labels", mend="give them when they come"
        )
    target = _target(dataset, labelled, data, names)
    table = dataset.select(np.flatnonzero(labelled)).with_format("arrow")[:]
    ids = to_strings(table[data.id_column], where=f"monitor.labels, column {data.id_column!r}")
    return Late(ids, target.values, target.names)


def _labelled(dataset: datasets.Dataset, label: str | None) -> Booleans:
    """Which rows have a label (N,): none where there is no such column."""
    assert label is not None
    if label not in dataset.column_names:
        return np.zeros(len(dataset), dtype=bool)
    array = one_chunk(dataset.with_format("arrow")[:][label])
    missing = np.asarray(pc.is_null(array, nan_is_null=True))
    if is_text(array.type):
        blank = pc.equal(pc.utf8_trim_whitespace(array.cast(pa.large_string())), "")
        missing |= np.asarray(pc.fill_null(blank, True))
    found: Booleans = ~missing
    return found


def _target(
    dataset: datasets.Dataset, labelled: Booleans, data: Data, names: Sequence[str]
) -> Target:
    """Targets of the labelled rows; a class that the version does not know is one more."""
    if not labelled.any():
        return Target(np.zeros(0, dtype=np.int64), tuple(names))
    assert data.label is not None
    grows = data.kind in ("class", "item") and bool(names)
    return read_target(
        dataset.select(np.flatnonzero(labelled)).with_format("arrow")[:],
        data.label,
        kind=data.kind,
        feature=dataset.features[data.label],
        label_names=tuple(names),
        new_classes="grow" if grows else None,
        where=f"column {data.label!r}",
    )


def _with_labels(
    rows: Rows, labelled: Booleans, target: Target, data: Data, *, grouped: bool
) -> Rows:
    if data.kind == "none":
        return rows
    shape = target.values.shape[1:]
    if data.kind == "classes" and not labelled.any():
        shape = (len(target.names),)
    label = np.zeros((len(rows), *shape), dtype=_dtype(data.kind, target))
    label[labelled] = target.values
    found = replace(rows, label=label)
    if data.id_column is not None or not labelled.any():
        return found
    part = found.take(labelled)
    ids = rows.id.copy()
    ids[labelled] = content_hashes(
        part.features,
        target_text(part.label, target.names, data.kind),
        owners=part.cluster if data.kind == "item" and grouped else None,
    )
    return replace(found, id=ids, content=ids)


def _dtype(kind: str, target: Target) -> Any:
    if len(target.values):
        return target.values.dtype
    return {"number": np.float32, "classes": np.int8}.get(kind, np.int64)
