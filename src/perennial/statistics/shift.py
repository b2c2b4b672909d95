"""How far a column has moved: population stability, Kolmogorov–Smirnov, what was never seen.

Shapes: N reference values, M new ones, K bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

BINS = 10


def population_stability(
    reference: npt.NDArray[np.integer[Any]], values: npt.NDArray[np.integer[Any]]
) -> float:
    """PSI of two histograms over the same bins: Σ (p − q) ln(p / q), Jeffreys' divergence in nats.

    Half a row is added to each bin, so that an empty one is finite. By custom 0.1 is a small and
    0.25 a large shift (Siddiqi, *Credit Risk Scorecards*, 2006).

    Args:
        reference: Counts (K,).
        values: Counts (K,).

    Examples:
        >>> round(population_stability(np.array([500, 500]), np.array([800, 200])), 3)
        0.415
    """
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (reference, values))
    return float(((q - p) * np.log(q / p)).sum())


def numerical_shift(
    reference: npt.NDArray[np.floating[Any]], values: npt.NDArray[np.floating[Any]]
) -> dict[str, float]:
    """``psi`` over the reference's tenths, and ``ks``, the two distributions' largest distance.

    Args:
        reference: (N,), at least one that is not NaN; NaN are missing and left out of both.
        values: (M,), likewise.
    """
    old, new = (np.asarray(part, np.float64)[~np.isnan(part)] for part in (reference, values))
    edges = np.unique(np.quantile(old, np.arange(1, BINS) / BINS))
    bins = [np.bincount(np.searchsorted(edges, x), minlength=len(edges) + 1) for x in (old, new)]
    distance = float(stats.ks_2samp(old, new, method="asymp").statistic)
    return {"psi": population_stability(*bins), "ks": distance}


def categorical_shift(reference: Mapping[str, int], values: Mapping[str, int]) -> dict[str, float]:
    """``psi`` over the categories of both, and ``unseen``, the share of values the reference lacks.

    Args:
        reference: Category to count.
        values: Category to count, at least one.

    Examples:
        >>> round(categorical_shift({"a": 50, "b": 50}, {"a": 60, "c": 40})["unseen"], 2)
        0.4
    """
    names = sorted({*reference, *values})
    counts = [np.array([part.get(name, 0) for name in names]) for part in (reference, values)]
    total = sum(values.values())
    unseen = sum(count for name, count in values.items() if not reference.get(name))
    return {"psi": population_stability(*counts), "unseen": unseen / total}
