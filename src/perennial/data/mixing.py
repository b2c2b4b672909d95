"""Which rows make up a batch: a pure function of seed, epoch and position.

Because nothing but (seed, epoch, batch) enters, a run resumed in the middle of an epoch draws
what the uninterrupted run would have drawn.
"""

from __future__ import annotations

import math

import numpy as np

from perennial.data.permutation import Index, permuted

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
    key = (seed, 0, epoch)
    new = permuted(key, new_rows, batch * new_per_batch, new_per_batch)
    missing = new_per_batch - len(new)
    if not history_rows:
        if missing:
            again = permuted(key, new_rows, 0, min(missing, new_rows))
            new = np.concatenate([new, again[np.arange(missing) % new_rows]])
        return new, new[:0]
    batches = batches_per_epoch(new_rows, new_per_batch)
    filled_up = batches * new_per_batch - new_rows
    first = epoch * (batches * replayed_per_batch + filled_up) + batch * replayed_per_batch
    return new, _passes(seed, first, replayed_per_batch + missing, history_rows)


def of_rank(drawn: tuple[Index, Index], *, rank: int, ranks: int) -> tuple[Index, Index]:
    """One rank's share of a batch that was drawn for all of them; each row goes to one rank.

    Args:
        drawn: What `draw` gave for a batch ``ranks`` times as large as a rank's.
        rank: From 0.
        ranks: How many share the batch.

    Returns:
        Positions among the new rows and among the history rows: on every rank as many in all.
    """
    new, replayed = drawn
    if ranks == 1:
        return drawn
    return new[rank::ranks], replayed[(rank - len(new)) % ranks :: ranks]


def _passes(seed: int, first: int, count: int, rows: int) -> Index:
    """``count`` positions from the endless series of seeded passes over ``rows``."""
    picked = []
    while count:
        lap, offset = divmod(first, rows)
        part = permuted((seed, 1, lap), rows, offset, count)
        picked.append(part)
        first += len(part)
        count -= len(part)
    return np.concatenate(picked) if picked else np.empty(0, dtype=np.int64)
