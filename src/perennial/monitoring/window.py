"""The rows that are looked at, in chunks: each is met once and then forgotten.

Shapes: B rows of a chunk, N rows kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from perennial.data.columns import is_text, to_categories
from perennial.data.images import IMAGE
from perennial.data.rows import Rows
from perennial.data.source import LIST, READERS, kind_of
from perennial.data.streaming import pieces
from perennial.data.tables import PLAIN, Csv
from perennial.errors import DataError
from perennial.monitoring.reference import (
    Reference,
    as_numbers,
    counted,
    refuse_other_columns,
)

Features = Mapping[str, npt.NDArray[Any]]


class Chunk(Protocol):
    """Some rows of a window, column by column."""

    def __len__(self) -> int: ...

    def numbers(self, column: str) -> npt.NDArray[np.float64]:
        """The numbers of a column (B,), NaN where missing; see `as_numbers`."""
        ...

    def counts(self, column: str) -> Mapping[str, int]:
        """Category to rows, empty text for what is missing."""
        ...

    def features(self, index: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """Raw columns (N, ...) of the rows at an index vector (N,)."""
        ...


class Window:
    """Rows to look at.

    Args:
        chunks: Gives the chunks, from the first whenever it is called.
    """

    def __init__(self, chunks: Callable[[], Iterable[Chunk]]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self._chunks())

    @classmethod
    def of(cls, features: Features, reference: Reference, *, name: str = "new") -> Window:
        """Of columns (N, ...) in memory, as `perennial.data.source.read_rows` gives them.

        Args:
            features: Raw columns; of those that the reference has none may be missing.
            reference: What they are compared with.
            name: Of their source, for messages.

        Raises:
            DataError: A column is missing, or of another type or shape than the reference's.
        """
        refuse_other_columns(reference, list(features), where=f"data.{name}")
        for column in reference.columns:
            _require_like(features[column], column, reference, name)
        return cls(lambda: [_Arrays(features, reference)])

    @classmethod
    def open(
        cls, spec: Any, reference: Reference, *, name: str = "new", csv: Csv = PLAIN
    ) -> Window:
        """Of a source, of which only the reference's columns are read, labels or not.

        Args:
            spec: See `perennial.data.streaming.pieces`.
            reference: What they are compared with.
            name: Of the source, for messages.
            csv: How csv and tsv files are read.
        """

        def chunks() -> Iterator[Chunk]:
            for piece in pieces(spec, columns=reference.columns, name=name, csv=csv):
                refuse_other_columns(reference, piece.schema.names, where=f"data.{name}")
                yield _Piece(piece, reference, name)

        return cls(chunks)


class _Arrays:
    """Columns in memory."""

    def __init__(self, features: Features, reference: Reference) -> None:
        self._features = {column: features[column] for column in reference.columns}
        self._reference = reference

    def __len__(self) -> int:
        return len(next(iter(self._features.values())))

    def numbers(self, column: str) -> npt.NDArray[np.float64]:
        return _numbers(self._features[column], column, self._reference)

    def counts(self, column: str) -> Mapping[str, int]:
        return counted(self._features[column])

    def features(self, index: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        return {name: values[index] for name, values in self._features.items()}


class _Piece:
    """A record batch; categories are counted before they become text of ours."""

    def __init__(self, batch: pa.RecordBatch, reference: Reference, name: str) -> None:
        self._batch = batch
        self._reference = reference
        self._name = name

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def numbers(self, column: str) -> npt.NDArray[np.float64]:
        array = self._batch.column(column)
        if self._reference.kind(column) == "length" and is_text(array.type):
            return np.asarray(pc.utf8_length(array.fill_null("")), dtype=np.float64)
        return _numbers(self._read(column, array), column, self._reference)

    def counts(self, column: str) -> Mapping[str, int]:
        found = pc.value_counts(self._batch.column(column))
        names = to_categories(pa.chunked_array([found.field("values")]), where=self._where(column))
        total: Counter[str] = Counter()
        for name, count in zip(names.tolist(), found.field("counts").to_pylist(), strict=True):
            total[name] += count
        return total

    def features(self, index: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        taken = self._batch.take(pa.array(index))
        names = self._reference.columns
        return {name: self._read(name, taken.column(name)) for name in names}

    def _read(self, column: str, array: pa.Array) -> npt.NDArray[Any]:
        read = READERS[self._reference.reads[column]]
        values = read(pa.chunked_array([array]), where=self._where(column))
        _require_like(values, column, self._reference, self._name)
        return values

    def _where(self, column: str) -> str:
        return f"data.{self._name}, column {column!r}"


class Sampler:
    """A uniform sample of the rows that go by, by the lowest of random keys.

    Args:
        size: Rows to keep.
        seed: Of the keys; chunks of other sizes give the same sample.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._random = np.random.default_rng(seed)
        self._keys = np.empty(0)
        self._parts: list[dict[str, npt.NDArray[Any]]] = []

    def add(self, chunk: Chunk) -> None:
        """Let the rows of a chunk go by."""
        keys = self._random.random(len(chunk))
        last = self._keys.max() if len(self._keys) == self._size else 1.0
        index = np.flatnonzero(keys < last)
        index = index[np.argsort(keys[index], kind="stable")][: self._size]
        if not len(index):
            return
        self._parts.append(chunk.features(index))
        self._keys = np.concatenate([self._keys, keys[index]])
        if len(self._keys) > self._size:
            self._shrink()

    def features(self, size: int) -> dict[str, npt.NDArray[Any]]:
        """The columns (N, ...) of the rows of lowest keys, at most ``size`` of them."""
        self._shrink()
        return {name: values[:size] for name, values in self._parts[0].items()}

    def _shrink(self) -> None:
        kept = np.argsort(self._keys, kind="stable")[: self._size]
        whole = {n: np.concatenate([part[n] for part in self._parts]) for n in self._parts[0]}
        self._keys = self._keys[kept]
        self._parts = [{name: values[kept] for name, values in whole.items()}]


def as_rows(features: Features) -> Rows:
    """Columns (N, ...) as rows without a label, an id or a content: for a model to run on."""
    count = len(next(iter(features.values())))
    names = np.arange(count).astype(np.str_)
    label = np.zeros(count, dtype=np.int64)
    return Rows(features=features, label=label, id=names, content=names, cluster=names)


def _numbers(
    values: npt.NDArray[Any], column: str, reference: Reference
) -> npt.NDArray[np.float64]:
    if values.dtype.kind == "f":
        # what a file holds as 0.1 is the reference's 0.1 only in the reference's dtype
        dtype = np.dtype(reference.schema[column].partition(" ")[0])
        if values.dtype != dtype and dtype.kind == "f":
            values = values.astype(dtype)
    return as_numbers(values, reference.kind(column))


def _require_like(values: npt.NDArray[Any], column: str, reference: Reference, name: str) -> None:
    """Refuse a column of another nature or shape than the reference's."""
    then = reference.schema[column]
    now = kind_of(values, where=f"data.{name}, column {column!r}")
    if now == then or (_plain(now) and _plain(then) and _alike(now, then)):
        return
    raise DataError(
        f"Column {column!r} is {now} in the window and {then} in {reference.version}.",
        where=f"data.{name}, column {column!r}",
        mend="give it as it was then: a column of another type cannot be compared",
    )


def _plain(kind: str) -> bool:
    return not kind.startswith((LIST, IMAGE))


def _alike(now: str, then: str) -> bool:
    """Both text, or both numbers, in rows of one shape: a file may hold numbers otherwise."""
    (dtype, _, shape), (old_dtype, _, old_shape) = now.partition(" "), then.partition(" ")
    return (dtype == "str") == (old_dtype == "str") and shape == old_shape
