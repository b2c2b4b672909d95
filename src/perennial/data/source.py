"""Sources: open, validate, fingerprint.

`open_source` turns a path, a hub id or a built data set into one `datasets.Dataset`; `read_rows`
turns its columns into `Rows`.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from perennial.data.columns import (
    TEXT,
    is_bytes,
    is_number,
    is_text,
    is_varying,
    to_categories,
    to_lists,
    to_numbers,
    to_numpy,
    to_sequences,
    to_slices,
    to_strings,
    to_texts,
    to_times,
)
from perennial.data.content import content_hashes
from perennial.data.images import IMAGE, Pixels, decoded, encoded_as, is_image, to_encoded
from perennial.data.opening import open_source
from perennial.data.preprocess.base import Preprocessor, nature, setting_of
from perennial.data.rows import Rows
from perennial.data.targets import read_target, target_text
from perennial.errors import DataError
from perennial.types import Strings

# before the dtype of the numbers, in a lineage's columns
LIST = "list "

__all__ = ["SourceRows", "check_schema", "converted", "open_source", "read_rows"]


@dataclass(frozen=True)
class SourceRows:
    """A source, read.

    Attributes:
        rows: N rows.
        declared_role: The split column's values (N,), or None.
        time: The time column's values (N,), or None.
        label_names: Class names in the order of the labels.
        sorted_names: Whether that order is only the alphabet's, since labels are text.
        numbered: Whether labels are whole numbers from 0, so that names are positions.
        schema: Feature column to dtype and shape of a row.
        fingerprint: SHA-256 over the ordered content hashes, ids, clusters, roles and times.
    """

    rows: Rows
    declared_role: Strings | None
    time: npt.NDArray[Any] | None
    label_names: tuple[str, ...]
    schema: dict[str, str]
    fingerprint: str
    sorted_names: bool = False
    numbered: bool = False


def read_rows(
    dataset: datasets.Dataset,
    *,
    name: str,
    label: str | None = "label",
    kind: str = "class",
    features: Sequence[str] | None = None,
    id_column: str | None = None,
    group_column: str | None = None,
    split_column: str | None = None,
    time_column: str | None = None,
    slice_columns: Sequence[str] = (),
    label_names: Sequence[str] | None = None,
    new_classes: str | None = None,
    schema: Mapping[str, str] | None = None,
    preprocess: Preprocessor | None = None,
) -> SourceRows:
    """Columns to rows with identity.

    Args:
        dataset: N rows, at least 1.
        name: The source's name, for messages.
        label: Target column; None for the kind ``none``.
        kind: What the targets are, see `perennial.data.targets`.
        features: Feature columns; None takes all that have no other purpose.
        id_column: Column of row ids, or None for content hashes.
        group_column: Column of split keys, or None for content hashes.
        split_column: Column that declares train, validation and holdout.
        time_column: Column that orders the rows.
        slice_columns: Columns of text, whole numbers or dates that tell slices of the rows apart.
            They are features only where ``features`` names them.
        label_names: The lineage's class names; labels are matched with them by name.
        new_classes: ``grow`` appends names that the lineage lacks; see
            `perennial.data.labels.read_labels`.
        schema: The lineage's columns. Numbers of another dtype, as text files give them, are
            converted to it where nothing but float rounding is lost.
        preprocess: Says which columns are read as text, as categories, and as numbers with gaps.

    Raises:
        DataError: A column is missing, or its values cannot be used; the message names column,
            row and count.
    """
    if not len(dataset):
        raise DataError(
            "The data set has no rows.", where=f"data.{name}", mend="name a source with rows"
        )
    table: pa.Table = dataset.with_format("arrow")[:]
    roles = {
        "label": label,
        "id_column": id_column,
        "group_column": group_column,
        "split_column": split_column,
        "time_column": time_column,
    }
    for setting, column in roles.items():
        if column is not None:
            _require(column, table.column_names, name, f"data.{setting}")
    for column in slice_columns:
        _require(column, table.column_names, name, "data.slice_columns")
    taken = {*slice_columns, *(column for column in roles.values() if column is not None)}
    known = schema or {}
    columns = {}
    for column in _chosen(table, features, taken, known, preprocess, name):
        nature_ = known.get(column)
        read = _reader(dataset.features[column], table[column].type, column, nature_, preprocess)
        where = _where(name, column)
        columns[column] = as_kept(read(table[column], where=where), nature_, where=where)
    target = read_target(
        table,
        label,
        kind=kind,
        feature=None if label is None else dataset.features[label],
        label_names=label_names,
        where=f"data.{name}" if label is None else _where(name, label),
        new_classes=new_classes,
    )

    def keys(column: str | None) -> Strings | None:
        return None if column is None else to_strings(table[column], where=_where(name, column))

    ids, groups = keys(id_column), keys(group_column)
    values = {
        column: Pixels(kept, where=_where(name, column)) if is_bytes(kept) else kept
        for column, kept in columns.items()
    }
    content = content_hashes(
        values,
        target_text(target.values, target.names, kind),
        # two users who met the same items are two events, and no copy of one
        owners=groups if kind == "item" else None,
    )
    if ids is not None:
        _refuse_repeated(ids, _where(name, str(id_column)))
    role = keys(split_column)
    time = (
        None
        if time_column is None
        else to_times(table[time_column], where=_where(name, time_column))
    )
    rows = Rows(
        features=columns,
        label=target.values,
        id=content if ids is None else ids,
        content=content,
        cluster=content if groups is None else groups,
        slices={
            column: to_slices(table[column], where=_where(name, column)) for column in slice_columns
        },
        time=time,
    )
    return SourceRows(
        rows=rows,
        declared_role=role,
        time=time,
        label_names=target.names,
        schema={key: kind_of(value, where=key) for key, value in values.items()},
        fingerprint=_fingerprint(rows, role, time),
        sorted_names=target.sorted_names,
        numbered=target.numbered,
    )


def _chosen(
    table: pa.Table,
    features: Sequence[str] | None,
    taken: set[str],
    known: Mapping[str, str],
    preprocess: Preprocessor | None,
    name: str,
) -> list[str]:
    """Feature columns in their order; ``taken`` are those of another purpose.

    Raises:
        DataError: None is left, or one is missing.
    """
    named = features or (None if preprocess is None else preprocess.columns)
    chosen = list(named or [column for column in table.column_names if column not in taken])
    if preprocess is not None and set(chosen) == set(known):
        chosen = list(known)  # it takes them by name, in whatever order a file has them
    if not chosen:
        raise DataError(
            "No feature column is left.",
            where=f"data.{name}, data.features",
            mend=f"columns are {', '.join(table.column_names)}; name some in data.features",
        )
    for column in chosen:
        if features is None and named is not None and preprocess is not None:
            _require_read(column, table, taken, name, preprocess)
        _require(column, table.column_names, name, "data.features")
    return chosen


def check_schema(
    first: Mapping[str, str],
    second: Mapping[str, str],
    name_a: str,
    name_b: str,
) -> None:
    """Refuse two sources whose feature columns differ.

    Args:
        first: The first source's schema.
        second: The second one's.
        name_a: The first one's name, for messages.
        name_b: The second one's.

    Raises:
        DataError: A column is missing on one side, or differs in dtype or shape.
    """
    for column in dict.fromkeys([*first, *second]):
        if column in first and column in second:
            if first[column] != second[column]:
                raise DataError(
                    f"Column {column!r} is {first[column]} in {name_a} and {second[column]} in "
                    f"{name_b}.",
                    where=_where(name_b, column),
                    mend="convert one of them, so that both have one dtype and shape, without loss",
                )
            continue
        lacking, other, names = (
            (name_b, name_a, second) if column in first else (name_a, name_b, first)
        )
        raise DataError(
            f"Column {column!r} is in {other} but not in {lacking}.",
            where=_where(lacking, column),
            mend=_close(column, list(names))
            + f"give it in {lacking}, or, where the model does without, name the others in "
            "data.features",
        )
    if list(first) != list(second):
        # modules take columns by position, so another order would feed them silently wrong
        raise DataError(
            f"The columns of {name_b} are those of {name_a} in another order.",
            where=f"data.{name_b}",
            mend=f"set data.features=[{','.join(first)}]",
        )


def _reader(
    feature: Any, arrow: pa.DataType, column: str, kind: str | None, preprocess: Preprocessor | None
) -> Callable[..., npt.NDArray[Any]]:
    """How a column is read: as the lineage knows it, else by its own type."""
    if isinstance(feature, datasets.Image) or is_image(arrow):
        return to_encoded
    if preprocess is None:
        return to_numpy
    return READERS[preprocess.kind(column, _nature(arrow) if kind is None else nature(kind))]


READERS: dict[str, Callable[..., npt.NDArray[Any]]] = {
    "fixed": to_numpy,
    "number": to_numbers,
    "category": to_categories,
    "text": to_texts,
    "sequence": to_sequences,
    "list": to_lists,
}


def _nature(arrow: pa.DataType) -> str:
    if is_text(arrow):
        return "text"
    return "number" if is_number(arrow) else "other"


def kind_of(values: npt.NDArray[Any] | Pixels, *, where: str) -> str:
    """Dtype and shape of a row, as a lineage's columns have it.

    Args:
        values: (N, ...), at least one row where they are encoded images or lists.
        where: Source and column, for messages.

    Raises:
        DataError: The first image cannot be read.

    Examples:
        >>> kind_of(np.zeros((5, 2), np.float32), where="x"), kind_of(np.zeros(5), where="x")
        ('float32 (2,)', 'float64 ()')
    """
    if isinstance(values, Pixels):
        return values.kind
    if len(values) and is_bytes(values):
        return Pixels(values, where=where).kind
    if is_varying(values):
        return f"{LIST}{values[0].dtype} ()"
    return f"{'str' if values.dtype == TEXT else values.dtype} {values.shape[1:]}"


def as_kept(values: npt.NDArray[Any], kind: str | None, *, where: str) -> npt.NDArray[Any]:
    """A column as the lineage keeps it, if it keeps its value; else as it is.

    Args:
        values: (N, ...); images may be encoded (N,), or pixels (N, C, H, W).
        kind: Dtype and shape of a row, ``image uint8 (3, 32, 32)``; None leaves them.
        where: Source and column, for messages.

    Raises:
        DataError: An image cannot be read.
    """
    if kind is None:
        return values
    if is_varying(values):
        return _lists_as(values, kind)
    if is_bytes(values):
        if kind.startswith(IMAGE):
            return values
        values = decoded(values, where=where)
    if kind.startswith(IMAGE):
        values = converted(values, kind.removeprefix(IMAGE))
        same = f"{IMAGE}{values.dtype} {values.shape[1:]}" == kind
        return encoded_as(values) if same and values.dtype == np.uint8 else values
    return converted(values, kind)


def _lists_as(values: npt.NDArray[Any], kind: str) -> npt.NDArray[Any]:
    """Lists in the lineage's dtype if all of them keep their values; else as they are."""
    flat = converted(np.concatenate(values.tolist()), kind.removeprefix(LIST))
    found = np.empty(len(values), dtype=object)
    ends = np.cumsum([len(one) for one in values])
    for row, one in enumerate(np.split(flat, ends[:-1])):
        found[row] = one
    return found


def converted(values: npt.NDArray[Any], kind: str | None) -> npt.NDArray[Any]:
    """Numbers in the lineage's dtype if they keep their value; else as they are.

    Args:
        values: (N, ...).
        kind: Dtype and shape of a row, ``float32 (8, 8)``; None leaves them.
    """
    if kind is None or kind.startswith("str ") or values.dtype == TEXT:
        return values
    dtype = np.dtype(kind.partition(" ")[0])
    if dtype == values.dtype or f"{dtype} {values.shape[1:]}" != kind:
        return values
    if not {dtype.kind, values.dtype.kind} <= set("iuf"):
        return values
    with np.errstate(invalid="ignore", over="ignore"):
        converted = values.astype(dtype)
        back = converted.astype(values.dtype)
    floats = dtype.kind == values.dtype.kind == "f"
    kept = (
        np.array_equal(np.isfinite(converted), np.isfinite(values))
        if floats
        else np.array_equal(back, values)
    )
    return converted if kept else values


def _require(column: str, columns: Sequence[str], name: str, setting: str) -> None:
    if column not in columns:
        raise DataError(
            f"There is no column {column!r}.",
            where=f"data.{name}, {setting}",
            mend=_close(column, columns) + f"columns are {', '.join(columns)}",
        )


def _require_read(
    column: str, table: pa.Table, taken: set[str], name: str, preprocess: Preprocessor
) -> None:
    """A column that a preprocessor takes by a name of its settings, which is where it is mended."""
    if column in table.column_names:
        return
    setting, listed = setting_of(preprocess, column)
    free = [field.name for field in table.schema if field.name not in taken]
    texts = [one for one in free if is_text(table.schema.field(one).type)]
    likely = difflib.get_close_matches(column, free, n=1) or (texts if len(texts) == 1 else [])
    instead = f"{setting}={'[...]' if listed else likely[0] if likely else 'NAME'}"
    raise DataError(
        f"There is no column {column!r}, which data.preprocess takes.",
        where=f"data.{name}, {setting}",
        mend=f"set {instead}; columns are {', '.join(table.column_names)}",
    )


def _close(word: str, words: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def _where(name: str, column: str) -> str:
    return f"data.{name}, column {column!r}"


def _refuse_repeated(ids: Strings, where: str) -> None:
    distinct, first, counts = np.unique(ids, return_index=True, return_counts=True)
    if len(distinct) < len(ids):
        worst = np.flatnonzero(counts > 1)
        index = worst[np.argmin(first[worst])]
        raise DataError(
            f"{len(ids) - len(distinct)} rows repeat the id of another row; "
            f"{str(distinct[index])!r}, first in row {first[index]}, occurs {counts[index]} times.",
            where=where,
            mend="make the ids unique, or set data.id_column=null to tell rows by their content",
        )


def _fingerprint(rows: Rows, role: Strings | None, time: npt.NDArray[Any] | None) -> str:
    digest = hashlib.sha256()
    for values in (rows.content, rows.id, rows.cluster, role, time):
        text = [] if values is None else values.astype(np.str_).tolist()
        digest.update(f"{len(text)}\0".encode())
        for value in text:
            digest.update(value.encode() + b"\0")
    return digest.hexdigest()
