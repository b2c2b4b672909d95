"""Memory: a bounded, durable sample of history that travels with a version.

A remembered row has no weight of its own. How many learned rows it stands for follows from the
index of what each cycle learned, which every version keeps whole: see `perennial.data.standing`.

Shapes: N rows, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.data import selection as order
from perennial.data.rows import Rows, concatenate
from perennial.data.standing import strata
from perennial.errors import ConfigError
from perennial.types import Booleans, Floats, Integers, Strings

SELECTIONS = ("reservoir", "class_balanced", "herding", "most_recent")


@dataclass(frozen=True)
class Remembered:
    """Rows of a memory, and where each is kept.

    Attributes:
        rows: N rows, the first ones those that a smaller memory would keep.
        cycle: Number of the cycle that each came with (N,).
        shard: SHA-256 of the file that holds the row (N,); empty where none does yet.
        place: Position in that file (N,).
        shards: SHA-256 to what is known of each file.
    """

    rows: Rows
    cycle: Integers
    shard: Strings
    place: Integers
    shards: Mapping[str, Shard] = field(default_factory=dict)

    @classmethod
    def fresh(cls, rows: Rows, cycle: int) -> Remembered:
        """Rows that came with one cycle, and are in no file yet."""
        count = len(rows)
        numbers = np.full(count, cycle, dtype=np.int32)
        return cls(rows, numbers, np.full(count, "", "<U64"), np.zeros(count, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: npt.NDArray[Any]) -> Remembered:
        """The rows at an index vector or a boolean mask (N,)."""
        return Remembered(
            self.rows.take(index),
            self.cycle[index],
            self.shard[index],
            self.place[index],
            self.shards,
        )

    def changed(self, rows: Rows, which: Booleans) -> Remembered:
        """With other rows in the place of the same ones; those of a mask (N,) are in no file."""
        return replace(self, rows=rows, shard=np.where(which, "", self.shard))


@dataclass(frozen=True)
class Shard:
    """A file of rows that memories share.

    Attributes:
        version: Number of the version that wrote it, `perennial.data.rows.OWN` for the one at hand.
        rows: How many it holds, dead ones too.
    """

    version: int
    rows: int


def union(parts: Sequence[Remembered]) -> Remembered:
    """Rows of several memories without repetition by id; the first of them keeps its form."""
    full = [part for part in parts if len(part)] or parts[:1]
    cycle, shard, place = (
        np.concatenate([getattr(part, name) for part in full])
        for name in ("cycle", "shard", "place")
    )
    shards = {name: one for part in full for name, one in part.shards.items()}
    joined = Remembered(concatenate([part.rows for part in full]), cycle, shard, place, shards)
    # return_index gives the first occurrence, so a remembered row keeps its remembered form
    _, first = np.unique(joined.rows.id, return_index=True)
    return joined.take(np.sort(first))


def row_bytes(rows: Rows) -> npt.NDArray[np.int64]:
    """What each row (N,) takes in a file: its columns, identity and logits, without padding."""
    columns = [*rows.features.values(), rows.label, rows.id, rows.content, rows.cluster]
    if rows.logits is not None and rows.logits_version is not None:
        columns += [rows.logits, rows.logits_version]
    size = np.zeros(len(rows), dtype=np.int64)
    for column in columns:
        size += _column_bytes(column)
    return size


class Memory:
    """Keeps a sample of every row it was ever shown, without repetition by id.

    See `perennial.data.selection` for the policies, and for why they need no state besides the
    rows. The bound holds for training rows and, on their own, for validation rows. It may change
    from cycle to cycle: a smaller memory keeps the first rows of a larger one; a larger one has
    room for new rows, while rows that an earlier cycle dropped are gone.

    Args:
        capacity: Rows to keep, at least 1, or None where bytes are the bound.
        capacity_bytes: Bytes to keep rows in, see `row_bytes`, or None where rows are.
        seed: Decides which; one seed per lineage, or samples of different cycles do not merge
            into one.
        selection: ``reservoir``, uniform over rows; ``class_balanced``, as many rows of each class
            as there can be; ``herding``, likewise, those that together are nearest to the mean of
            their class in the model's features; ``most_recent``, rows of the newest cycles.
            Validation rows are drawn as by ``reservoir`` where training rows are by ``herding``:
            a sample near the mean would flatter.

    Raises:
        ConfigError: There is not exactly one bound, it is below 1, or the selection is unknown.
    """

    def __init__(
        self,
        capacity: int | None = 2000,
        seed: int = 0,
        selection: str = "reservoir",
        capacity_bytes: int | None = None,
    ) -> None:
        _check_bound(capacity, capacity_bytes)
        if selection not in SELECTIONS:
            raise ConfigError(
                f"{selection!r} is not a way to select rows.",
                where="data.memory.selection",
                mend=f"use {', '.join(SELECTIONS[:-1])} or {SELECTIONS[-1]}",
            )
        self.capacity = capacity
        self.capacity_bytes = capacity_bytes
        self.seed = seed
        self.selection = selection

    @property
    def bound(self) -> str:
        """In words, ``2000 rows``."""
        of_rows = self.capacity_bytes is None
        return f"{self.capacity} rows" if of_rows else f"{self.capacity_bytes} bytes"

    def needs_features(self, kind: str) -> bool:
        """Whether rows of a kind, ``train`` or ``validation``, are selected by their features."""
        return self.selection == "herding" and kind == "train"

    def check(self, rows: Rows, *, name: str, logits_bytes: int = 0) -> None:
        """Refuse rows that can never be remembered.

        Args:
            rows: N rows of one source.
            name: Of the source, ``history`` or ``new``.
            logits_bytes: What each will take besides, see `update`.

        Raises:
            ConfigError: One row takes more than its share, `perennial.data.selection.LARGEST`.
        """
        if self.capacity_bytes is None or not len(rows):
            return
        size = row_bytes(rows) + logits_bytes
        if (most := int(size.max())) > self.capacity_bytes * order.LARGEST:
            raise ConfigError(
                f"Row {rows.id[size.argmax()]!s} of data.{name} takes {most:,} bytes, more than "
                f"{order.LARGEST:.0%} of memory, which has {self.capacity_bytes:,} in all.",
                where="data.memory.capacity_bytes",
                mend=f"give memory many times as much as the largest row takes, {1000 * most} say, "
                "or bound it by rows: data.memory.capacity=2000 data.memory.capacity_bytes=null",
            )

    def update(
        self,
        previous: Remembered | None,
        new: Remembered,
        *,
        kind: str = "train",
        features: Floats | None = None,
        weight: Floats | None = None,
        logits_bytes: int = 0,
    ) -> Remembered:
        """The memory after ``new`` was shown, in the order in which rows would stay.

        Args:
            previous: What an earlier `update` returned, or None.
            new: Rows learned since; those remembered already count once.
            kind: ``train`` or ``validation``.
            features: Of the rows of `union` of both (N, D), where `needs_features` says so.
            weight: How many rows each of these stands for (N,), likewise.
            logits_bytes: What each row takes besides, once it has its logits.
        """
        both = union([new] if previous is None else [previous, new])
        by = {"features": features, "weight": weight}
        if self.capacity is not None:
            kept = self._order(both, kind=kind, most=self.capacity, **by)
            return both.take(kept[: self.capacity])
        assert self.capacity_bytes is not None
        rows = replace(both.rows, logits=None, logits_version=None) if logits_bytes else both.rows
        size = row_bytes(rows) + logits_bytes
        most = 1 + self.capacity_bytes // int(size.min(initial=self.capacity_bytes))
        kept = self._order(both, kind=kind, most=most, **by)
        # a bound that shrank may be below old rows
        kept = kept[size[kept] <= self.capacity_bytes * order.LARGEST]
        return both.take(order.within(kept, size, self.capacity_bytes))

    def _order(
        self,
        both: Remembered,
        *,
        kind: str,
        most: int,
        features: Floats | None,
        weight: Floats | None,
    ) -> order.Order:
        rows = both.rows
        if self.needs_features(kind):
            assert features is not None
            assert weight is not None
            return order.herding(
                rows.id,
                features,
                strata(rows),
                weight=weight,
                capacity=most,
                seed=self.seed,
            )
        if self.selection == "class_balanced":
            return order.class_balanced(rows.id, rows.label, seed=self.seed)
        if self.selection == "most_recent":
            return order.most_recent(rows.id, both.cycle, seed=self.seed)
        return order.reservoir(rows.id, seed=self.seed)


def _column_bytes(column: npt.NDArray[Any]) -> npt.NDArray[np.int64] | int:
    if column.dtype.kind in "TUO":
        # an offset of four bytes beside what varies in length, as Arrow keeps it
        lengths = [4 + _length(value) for value in column.tolist()]
        return np.array(lengths, dtype=np.int64)
    return int(np.prod(column.shape[1:])) * column.dtype.itemsize


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    return len(value) if isinstance(value, bytes) else int(value.nbytes)


def _check_bound(capacity: int | None, capacity_bytes: int | None) -> None:
    if (capacity is None) == (capacity_bytes is None):
        both = "both" if capacity is not None else "neither"
        raise ConfigError(
            f"Memory is bounded by rows or by bytes; {both} is given.",
            where="data.memory.capacity, data.memory.capacity_bytes",
            mend="give one, and null for the other: data.memory.capacity=null "
            "data.memory.capacity_bytes=500000000",
        )
    for name, value, unit in (
        ("capacity", capacity, "rows"),
        ("capacity_bytes", capacity_bytes, "bytes"),
    ):
        if value is not None and value < 1:
            raise ConfigError(
                f"A memory cannot keep {value} {unit}.",
                where=f"data.memory.{name}",
                mend="use at least 1; history=memory and replay need many more",
            )
