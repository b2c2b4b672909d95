"""Which rows a bounded memory keeps: every policy is an order of rows, of which the first stay.

`reservoir` is bottom-k sampling: a row's priority is a uniform hash of (seed, row id), and the k
rows of lowest priority stay. Over n distinct rows each is kept with probability exactly k/n, and
every set of k rows is equally likely, as with Vitter's reservoir (1985, Algorithm R): the hashes
are exchangeable, and ties, of probability n²/2⁶⁵, go by id. But no state besides the rows is
needed, so the sample does not depend on order, batch size, ranks or interruptions, and the sample
of a union comes from the samples of its parts (Cohen & Kaplan, 2007): a row among the k lowest of
all is among the k lowest of any part that holds it.

Shapes: N rows, D features, S strata.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.types import Floats, Integers, Strings

Order = npt.NDArray[np.int64]

# of a bound in bytes: what one row may take
LARGEST = 0.05


def priorities(ids: Strings, *, seed: int) -> npt.NDArray[np.uint64]:
    """Uniform 64-bit hashes (N,) of (seed, row id); the lowest are kept."""
    start = hashlib.blake2b(f"perennial-memory\0{seed}\0".encode(), digest_size=8)
    values = bytearray()
    for row in ids.tolist():
        digest = start.copy()
        digest.update(row.encode())
        values += digest.digest()
    return np.frombuffer(bytes(values), dtype="<u8").astype(np.uint64)


def reservoir(ids: Strings, *, seed: int) -> Order:
    """Rows in the order of their priority.

    Args:
        ids: Distinct row ids (N,).
        seed: Of the lineage's memory.

    Returns:
        All N positions. The order of the ids behind them does not depend on that of ``ids``.
    """
    return np.lexsort((ids, priorities(ids, seed=seed))).astype(np.int64)


def most_recent(ids: Strings, cycle: Integers, *, seed: int) -> Order:
    """Rows of the newest cycle first; within a cycle in the order of their priority.

    What is kept of the oldest cycle that is kept at all is thus a uniform sample of it, and samples
    merge as those of `reservoir` do.

    Args:
        ids: Distinct row ids (N,).
        cycle: Number of the cycle that each row came with (N,).
        seed: Of the lineage's memory.
    """
    return np.lexsort((ids, priorities(ids, seed=seed), -cycle)).astype(np.int64)


def class_balanced(ids: Strings, label: npt.NDArray[np.integer[Any]], *, seed: int) -> Order:
    """Rows in turn from every class, so that there are as many of each as there can be.

    In turn the row of lowest priority of every class, then the second of each, and so on: a small
    class is kept whole, and what it leaves goes to the others. Within a class the sample is
    uniform. Bounded by rows, the sample of a union comes from the samples of its parts: a row that
    K others precede is preceded by K others after any more rows have come.

    Args:
        ids: Distinct row ids (N,).
        label: Class of each row (N,).
        seed: Of the lineage's memory.
    """
    place = _places(reservoir(ids, seed=seed))
    by_class = np.lexsort((place, label))
    starts = np.concatenate([[0], np.flatnonzero(np.diff(label[by_class])) + 1]).astype(np.int64)
    sizes = np.diff(np.append(starts, len(ids)))
    turn = np.empty(len(ids), dtype=np.int64)
    turn[by_class] = np.arange(len(ids)) - np.repeat(starts, sizes) if len(ids) else 0
    return np.lexsort((place, turn)).astype(np.int64)


def herding(
    ids: Strings,
    features: Floats,
    label: npt.NDArray[np.integer[Any]],
    *,
    weight: Floats,
    capacity: int,
    seed: int,
) -> Order:
    """Rows in turn from every class, each the one that brings the mean of its features nearest.

    Greedy selection of exemplars (Welling, Herding Dynamical Weights to Learn, 2009; Rebuffi et
    al., iCaRL, 2017, Algorithm 4): after k rows of a class the next is the one whose features φ
    minimise ‖μ − (φ + the sum of those k) / (k + 1)‖, with μ the weighted mean over the class and
    features scaled to length 1. Unlike a random sample it is not uniform within a class, and the
    sample of a union does not come from those of its parts.

    Args:
        ids: Distinct row ids (N,).
        features: Of the present model (N, D).
        label: Class of each row (N,); all equal where rows have none.
        weight: How many rows each stands for (N,), at least 0.
        capacity: How many rows may be wanted in all.
        seed: Decides between equal rows.

    Returns:
        At least min(N, capacity) positions.

    Cost: for each class as many steps over its rows as it gets, each as many multiplications as it
    has rows, times D.
    """
    first = reservoir(ids, seed=seed)
    unit = _unit(features)
    turn = np.full(len(ids), len(ids), dtype=np.int64)
    values, sizes = np.unique(label, return_counts=True)
    # the turns there are, until so many rows are found
    turns = bisect_left(
        range(int(sizes.max(initial=0))), capacity, key=lambda t: int(np.minimum(sizes, t).sum())
    )
    for value in values:
        rows = first[label[first] == value]
        chosen = _greedy(unit[rows], weight[rows], min(len(rows), turns))
        turn[rows[chosen]] = np.arange(len(chosen))
    order = np.lexsort((_places(first), turn)).astype(np.int64)
    return order[turn[order] < len(ids)]


def within(order: Order, size: npt.NDArray[np.int64], capacity_bytes: int) -> Order:
    """The beginning of an order that takes so many bytes, and never more.

    A row stays if those before it take less than the bound without the share of one row, which is
    at most `LARGEST`. So its own size does not decide on it, as it would if rows were taken while
    they fit, and samples merge: what comes before a row takes no less after more rows have come,
    and the rows that crossed the line are there to be counted.

    Args:
        order: Positions (M,) among N rows.
        size: Bytes of each row (N,), none above ``capacity_bytes`` · `LARGEST`.
        capacity_bytes: The bound.
    """
    line = capacity_bytes * (1 - LARGEST)
    before = np.cumsum(size[order]) - size[order]
    return order[: int(np.searchsorted(before, line, side="left"))]


def _unit(features: Floats) -> npt.NDArray[np.float64]:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit: npt.NDArray[np.float64] = features / np.where(length > 0, length, 1.0)
    return unit


def _greedy(unit: npt.NDArray[np.float64], weight: Floats, count: int) -> npt.NDArray[np.int64]:
    """Positions of ``count`` rows of one class (N, D), in the order of herding."""
    total = weight.sum()
    mean = (weight if total > 0 else np.ones(len(unit))) @ unit / (total or len(unit))
    squares = np.square(unit).sum(axis=1)
    taken = np.zeros(len(unit), dtype=bool)
    reached = np.zeros(unit.shape[1])
    found = np.empty(count, dtype=np.int64)
    for step in range(count):
        # ‖(k+1)μ − reached − φ‖² without what is the same for every φ
        distance = squares - 2 * unit @ ((step + 1) * mean - reached)
        found[step] = np.where(taken, np.inf, distance).argmin()
        taken[found[step]] = True
        reached += unit[found[step]]
    return found


def _places(order: Order) -> Order:
    """Where in an order each row is."""
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return place
