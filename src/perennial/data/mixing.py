"""Which rows make up a batch: a pure function of seed, epoch and position.

Because nothing but (seed, epoch, batch) enters, a run resumed in the middle of an epoch draws
what the uninterrupted run would have drawn.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.int64]

SAMPLINGS = ("passes", "replacement")


def batches_per_epoch(new_rows: int, new_per_batch: int) -> int:
    """Batches in one pass over the new rows."""
    return math.ceil(new_rows / new_per_batch)


def draw(
    *,
    seed: int,
    epoch: int,
    batch: int,
    new_rows: int,
    history_rows: int,
    new_per_batch: int,
    replayed_per_batch: int,
    sampling: str = "passes",
) -> tuple[Index, Index]:
    """Rows of one batch of fixed size.

    In ``passes``, new rows are visited once an epoch in a seeded order. The replayed ones run
    through seeded passes over history of their own, without repetition within a pass. The last
    batch of an epoch is filled up with replay, or, where there is none, with new rows of the same
    epoch. With ``replacement``, every row of every batch is drawn uniformly and on its own.

    Args:
        seed: Of the run.
        epoch: Pass over the new rows, from 0.
        batch: Position in the epoch, from 0.
        new_rows: Number of new training rows, at least 1.
        history_rows: Number of history rows to replay from; 0 means no replay.
        new_per_batch: New rows of a full batch.
        replayed_per_batch: Replayed rows of a full batch; 0 where ``history_rows`` is 0.
        sampling: ``passes`` or ``replacement``.

    Returns:
        Positions among the new rows and positions among the history rows.
    """
    if sampling == "replacement":
        generator = np.random.Generator(np.random.PCG64([seed, 2, epoch, batch]))
        fresh = generator.integers(new_rows, size=new_per_batch)
        return fresh, generator.integers(max(history_rows, 1), size=replayed_per_batch)
    order = _permutation(seed, 0, epoch, new_rows)
    start = batch * new_per_batch
    new = order[start : start + new_per_batch]
    missing = new_per_batch - len(new)
    if not history_rows:
        return np.concatenate([new, order[np.arange(missing) % new_rows]]), order[:0]
    batches = batches_per_epoch(new_rows, new_per_batch)
    filled_up = batches * new_per_batch - new_rows
    first = epoch * (batches * replayed_per_batch + filled_up) + batch * replayed_per_batch
    return new, _passes(seed, first, replayed_per_batch + missing, history_rows)


def _passes(seed: int, first: int, count: int, rows: int) -> Index:
    """``count`` positions from the endless series of seeded passes over ``rows``."""
    picked = []
    while count:
        lap, offset = divmod(first, rows)
        part = _permutation(seed, 1, lap, rows)[offset : offset + count]
        picked.append(part)
        first += len(part)
        count -= len(part)
    return np.concatenate(picked) if picked else np.empty(0, dtype=np.int64)


def _permutation(seed: int, stream: int, lap: int, rows: int) -> Index:
    key = (seed, stream, lap, rows)
    if key not in _CACHE:
        while len(_CACHE) >= 4:
            _CACHE.pop(next(iter(_CACHE)))
        generator = np.random.Generator(np.random.PCG64([seed, stream, lap]))
        _CACHE[key] = generator.permutation(rows)
    return _CACHE[key]


_CACHE: dict[tuple[int, int, int, int], Index] = {}
