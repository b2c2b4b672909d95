"""Means of two samples of different rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from perennial.statistics.means import Difference, mean_difference

Floats = npt.NDArray[np.floating[Any]]


def unpaired_difference(
    x: Floats,
    x_cluster: npt.NDArray[Any],
    y: Floats,
    y_cluster: npt.NDArray[Any],
    *,
    alpha: float,
    threshold: float,
) -> Difference:
    """Mean of ``x`` minus that of ``y``, by Welch's t test over clusters.

    Each mean's error is that of `mean_difference`; the degrees of freedom are Welch's (Biometrika
    34, 1947), of clusters instead of rows.

    Args:
        x: Values (N,).
        x_cluster: Which of them depend on each other (N,); at least two clusters.
        y: Values (M,) of other rows.
        y_cluster: Likewise (M,).
        alpha: Level of each bound.
        threshold: Of the p-values.
    """
    (mean_x, a, size_x), (mean_y, b, size_y) = _mean(x, x_cluster), _mean(y, y_cluster)
    estimate, error = mean_x - mean_y, math.sqrt(a + b)
    if error == 0:
        return Difference.constant(estimate, threshold=threshold)
    freedom = (a + b) ** 2 / (a**2 / (size_x - 1) + b**2 / (size_y - 1))
    half = float(special.stdtrit(freedom, 1 - alpha)) * error
    t = (estimate - threshold) / error
    return Difference(
        estimate=estimate,
        error=error,
        interval=(estimate - half, estimate + half),
        p_above=float(special.stdtr(freedom, -t)),
        p_below=float(special.stdtr(freedom, t)),
    )


def _mean(values: Floats, cluster: npt.NDArray[Any]) -> tuple[float, float, int]:
    """Mean, its squared error, and the number of clusters."""
    found = mean_difference(values, cluster, alpha=0.5, threshold=0.0)
    return found.estimate, found.error**2, len(np.unique(cluster))
