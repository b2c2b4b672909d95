"""Texts in batches of like length, cut at a few lengths.

A batch of texts is as long as the longest of them, so that rows of one length should share it. They
are drawn as ever, then exchanged within a window of batches: a window holds the rows that it would
hold in any case, each batch as many new and as many replayed ones.

Shapes: N rows of a pool, B rows of a batch, L positions of a text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from perennial.data.permutation import Index

# most lengths that texts are cut at: each is a shape to the device
LENGTHS = 8
# batches among which rows are exchanged
WINDOW = 16
# lengths told apart where the best ones are chosen
_TOLD = 512

Lengths = npt.NDArray[np.int32]
Drawn = tuple[Index, Index]


def lengths(mask: npt.NDArray[np.integer | np.bool_]) -> Lengths:
    """Positions (N,) up to the last one that counts of each row of a mask (N, L), at least 1."""
    used = mask.astype(bool)
    last = used.shape[1] - np.argmax(used[:, ::-1], axis=1)
    return np.where(used.any(axis=1), last, 1).astype(np.int32)


def even_cuts(width: int) -> tuple[int, ...]:
    """Where texts of ``width`` positions are cut as long as nothing is known of them.

    Examples:
        >>> even_cuts(128), even_cuts(3)
        ((16, 32, 48, 64, 80, 96, 112, 128), (1, 2, 3))
    """
    step = -(-width // LENGTHS)
    return tuple(min(cut, width) for cut in range(step, width + step, step))


def best_cuts(pools: Sequence[Lengths]) -> tuple[int, ...]:
    """At most `LENGTHS` lengths, the last that of the longest row, with the least padding.

    That is the least sum over rows of the first cut that is not below the row's length, each pool
    counting alike, by dynamic programming over lengths; beyond 512 of these, over multiples.

    Args:
        pools: Length of each row (N,), at least 1, of at least one pool that has rows.

    Examples:
        >>> best_cuts([np.array([3, 3, 9], dtype=np.int32)])
        (3, 9)
    """
    full = [one for one in pools if len(one)]
    longest = max(int(one.max()) for one in full)
    unit = -(-longest // _TOLD)
    counts = np.zeros(-(-longest // unit) + 1)
    for one in full:
        counts += np.bincount(-(-one // unit), minlength=len(counts)) / len(one)
    steps = np.flatnonzero(counts)
    before = np.concatenate([[0.0], np.cumsum(counts[steps])])
    # of the rows between two cuts (from, to), where they are cut at the second
    cost = np.maximum(before[None, 1:] - before[:-1, None], 0) * steps
    cost[np.tril_indices(len(steps), -1)] = np.inf
    least, came = [cost[0]], [np.zeros(len(steps), dtype=np.int64)]
    for _ in range(1, min(LENGTHS, len(steps))):
        ways = np.concatenate([[np.inf], least[-1][:-1]])[:, None] + cost
        came.append(ways.argmin(axis=0))
        least.append(ways.min(axis=0))
    number = int(np.argmin([one[-1] for one in least]))
    found, end = [], len(steps) - 1
    for level in range(number, -1, -1):
        found.append(min(int(steps[end]) * unit, longest))
        end = int(came[level][end]) - 1
    return tuple(reversed(found))


def cut_at(longest: int, cuts: Sequence[int]) -> int:
    """The first of the cuts, in order, that is not below the longest text of a batch.

    Examples:
        >>> cut_at(9, (8, 16)), cut_at(16, (8, 16))
        (16, 16)
    """
    return cuts[bisect_left(cuts, longest)]


def grouped(
    drawn: Sequence[Drawn], pools: Sequence[Lengths], *, key: tuple[int, ...]
) -> list[Drawn]:
    """The batches of a window with their rows exchanged, so that those of like length share one.

    New rows are ordered by length, replayed ones too, rows of one length as they were drawn; the
    shortest of either make up one batch, the next ones another. Which place in the window a batch
    gets is drawn: a model never meets short rows first.

    Args:
        drawn: Positions of the new and the replayed rows of each batch (B₁,), (B₂,).
        pools: Length of each new row (N,), and of each history row where there are any.
        key: Whole numbers of at least 0 that fix the order of the batches.

    Returns:
        As many batches; each has as many rows of either kind as it had.
    """
    places = np.random.Generator(np.random.PCG64(list(key))).permutation(len(drawn))
    parts = []
    for kind, known in enumerate(pools):
        rows = np.concatenate([one[kind] for one in drawn])
        rows = rows[np.argsort(known[rows], kind="stable")]
        ends = np.cumsum([len(drawn[place][kind]) for place in places])
        parts.append(np.split(rows, ends[:-1]))
    found = list(drawn)
    for turn, place in enumerate(places.tolist()):
        old = parts[1][turn] if len(parts) > 1 else drawn[place][1]
        found[place] = (parts[0][turn], old)
    return found
