"""What dependent and weighted rows are worth, in independent ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

# clusters of one mind that are added to those seen: few discordant clusters say little
_PRIOR = 2.0
# what rounding leaves of a variance that is none
_NOTHING = 1e-20


class Counts(NamedTuple):
    """Counts of independent rows, fractions included.

    Attributes:
        b: Rows that only the candidate gets right.
        c: Rows that only the champion gets right.
        n: All rows.
    """

    b: float
    c: float
    n: float


def effective_counts(
    difference: Floats, cluster: npt.NDArray[Any], *, weight: Floats | None = None
) -> Counts:
    """Counts of as many independent rows as these are worth, for Tango's and McNemar's tests.

    n rows count n over `design_effect`; of them the weighted share of rows gained is ``b``, and
    that of rows lost ``c`` (Rao & Scott, Biometrics 48, 1992). Plain rows keep their counts.

    Args:
        difference: Candidate minus champion, of 0/1 scores (N,).
        cluster: Which rows depend on each other (N,).
        weight: Of each row (N,), at least 0; None counts each alike.
    """
    weight = np.ones(len(difference)) if weight is None else weight
    effect = design_effect(np.sign(difference), cluster, weight=weight)
    rows = int(np.count_nonzero(weight)) / effect
    scale = rows / float(weight.sum())
    return Counts(
        b=float(weight[difference > 0].sum()) * scale,
        c=float(weight[difference < 0].sum()) * scale,
        n=rows,
    )


def design_effect(
    sign: Floats, cluster: npt.NDArray[Any], *, weight: Floats | None = None
) -> float:
    """How many dependent and weighted rows are worth one independent row, at least 1.

    The variance of the weighted mean of ``sign`` over that of as many independent rows, the larger
    of two estimates. One is that of the linearised ratio over clusters (Rao & Scott, Biometrics 48,
    1992). The other is Kish's (Survey Sampling, 1965), 1 - r + r·sum m² / sum m for cluster sizes
    m and the correlation r of two rows of a cluster, a mean over rows, drawn towards 1 by two more
    clusters of one mind. The first alone would not see big clusters in which no row happens to
    differ, and both would know too much where few clusters have rows that differ.

    Args:
        sign: +1 where only the candidate is right, -1 where only the champion is, else 0 (N,).
        cluster: Which rows depend on each other (N,).
        weight: Of each row (N,), at least 0, not all 0; None counts each alike.
    """
    weight = np.ones(len(sign)) if weight is None else np.asarray(weight, dtype=np.float64)
    kept = weight > 0
    w, s = weight[kept], sign[kept]
    _, index = np.unique(cluster[kept], return_inverse=True)
    residual = s - float(w @ s) / float(w.sum())
    correlation = _correlation(residual, s != 0, index)
    total = np.bincount(index, weights=w)
    per_row = len(w) / float(w.sum()) ** 2
    modelled = per_row * float((1 - correlation) * (w @ w) + correlation * (total @ total))
    alone = float(w @ residual**2) / float(w.sum())
    if alone < _NOTHING:
        return max(1.0, modelled)
    between = np.bincount(index, weights=w * residual)
    return max(1.0, modelled, per_row * float(between @ between) / alone)


def _correlation(
    residual: Floats, discordant: npt.NDArray[np.bool_], index: npt.NDArray[np.int64]
) -> float:
    """Correlation of two rows of one cluster, in [0, 1], each row counting alike."""
    size = np.bincount(index)
    several = size > 1
    within = np.bincount(index, weights=residual**2)[several]
    total = np.bincount(index, weights=residual)[several]
    seen = int((np.bincount(index, weights=discordant)[several] > 0).sum())
    if float(within.sum()) < _NOTHING:
        return 1.0
    pairs = float(np.sum((total**2 - within) / (size[several] - 1)))
    estimate = min(max(pairs / float(within.sum()), 0.0), 1.0)
    return (seen * estimate + _PRIOR) / (seen + _PRIOR)
