"""How many rows each row of a sample stands for.

Shapes: N rows of a sample, M rows of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from perennial.data.rows import Rows
from perennial.types import Integers


def standing(sample: Rows, whole: Mapping[str, Rows]) -> npt.NDArray[np.float64]:
    """How many rows of the whole each row of a memory stands for, so that all are counted once.

    Within one cycle and one class a memory is a uniform sample of the ids (unless it selects by
    ``herding``, whose rows are near the mean), because a row's priority depends on its id alone.
    There its rows share what there is (post-stratification; Holt & Smith, 1979), each in proportion
    to how often its id occurs. What a memory lost of a cycle altogether is shared by its rows of
    the same class, and where it has none of these, by all.

    Args:
        sample: N rows with distinct ids, of any of the cycles.
        whole: Name of each cycle to its rows, M in all.

    Returns:
        Weights (N,), at least 0, with sum M where there is any row.
    """
    sizes = [len(rows) for rows in whole.values()]
    if not len(sample) or not sum(sizes):
        return np.zeros(len(sample))
    ids = np.concatenate([rows.id for rows in whole.values()])
    label = np.concatenate([strata(rows) for rows in whole.values()])
    cycle = np.repeat(np.arange(len(sizes)), sizes)
    distinct, first, counts = np.unique(ids, return_index=True, return_counts=True)
    place = np.minimum(np.searchsorted(distinct, sample.id), len(distinct) - 1)
    copies = np.where(distinct[place] == sample.id, counts[place], 0).astype(np.float64)

    weight = np.zeros(len(sample))
    unshared = np.ones(len(ids), dtype=bool)
    own = cycle[first[place]]
    for by_cycle, by_class in ((1, 1), (0, 1), (0, 0)):
        keys = np.concatenate(
            [
                np.stack([by_cycle * cycle, by_class * label], axis=1),
                np.stack([by_cycle * own, by_class * strata(sample)], axis=1),
            ]
        )
        groups, inverse = np.unique(keys, axis=0, return_inverse=True)
        stratum, drawn = np.split(inverse.reshape(-1), [len(ids)])
        number = len(groups)
        there = np.bincount(drawn, weights=copies, minlength=number)
        mass = np.bincount(stratum[unshared], minlength=number)
        share = np.divide(mass, there, out=np.zeros(number), where=there > 0)
        weight += copies * share[drawn]
        unshared &= there[stratum] == 0
    return weight


def strata(rows: Rows) -> Integers:
    """The class of each row (N,); where a row has not one, all are alike."""
    plain = rows.label.ndim == 1 and rows.label.dtype.kind == "i"
    return rows.label if plain else np.zeros(len(rows), dtype=np.int64)
