"""Means of dependent, skewed or weighted rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special, stats

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Difference:
    """A difference with its one-sided bounds.

    Attributes:
        estimate: Candidate minus champion.
        error: Its standard error.
        interval: One-sided bounds at alpha.
        p_above: p-value of H0: difference <= threshold.
        p_below: p-value of H0: difference >= threshold.
        skewness: Of the estimate's own distribution, for `mean_power`; 0 where that is taken to be
            symmetric.
    """

    estimate: float
    error: float
    interval: tuple[float, float]
    p_above: float
    p_below: float
    skewness: float = 0.0

    @classmethod
    def constant(cls, estimate: float, *, threshold: float) -> Difference:
        """One without any spread, which lies where it lies."""
        return cls(
            estimate=estimate,
            error=0.0,
            interval=(estimate, estimate),
            p_above=0.0 if estimate > threshold else 1.0,
            p_below=0.0 if estimate < threshold else 1.0,
        )


@dataclass(frozen=True)
class Skewed:
    """Hall's transformation g(t) = t + a t² + a² t³ / 3 + b, which is monotone.

    Attributes:
        a: Of the square.
        b: Shift.
    """

    a: float
    b: float

    def forward(self, t: float) -> float:
        """What is nearly t distributed."""
        return t * (1 + self.a * t + (self.a * t) ** 2 / 3) + self.b

    def inverse(self, g: float) -> float:
        """The studentised mean that is transformed to ``g``."""
        shifted = g - self.b
        bent = 3 * self.a * shifted
        if bent == 0:
            return shifted
        if abs(bent) < 0.5:  # the root of nearly one, less one, would lose digits
            return math.expm1(math.log1p(bent) / 3) / self.a
        return (math.cbrt(1 + bent) - 1) / self.a


def mean_difference(
    difference: Floats,
    cluster: npt.NDArray[Any],
    *,
    weight: Floats | None = None,
    alpha: float,
    threshold: float,
) -> Difference:
    """Mean difference of rows that may be skewed, dependent and weighted.

    The mean is a ratio of cluster totals and its error the jackknife's, over clusters' linearised
    residuals (Cochran, Sampling Techniques, 1977). Its studentised distance from the threshold is
    freed of skewness by Hall's monotone cubic (Journal of the Royal Statistical Society B 54,
    1992), whose inverse gives the bounds; a ratio is also skewed by the covariance of a cluster's
    residual with its weight, which the quadratic term takes off. Reference is t with C - 1
    degrees for clusters of one weight, and for others as many as Satterthwaite's rule (Biometrics
    Bulletin 2, 1946) leaves of residuals that grow as the weight does.

    Args:
        difference: Candidate minus champion (N,).
        cluster: Which rows depend on each other (N,); at least two clusters of positive weight.
        weight: Of each row (N,), at least 0; None counts each alike.
        alpha: Level of each bound.
        threshold: Of the p-values.
    """
    weight = np.ones(len(difference)) if weight is None else np.asarray(weight, dtype=np.float64)
    kept = weight > 0
    _, index = np.unique(cluster[kept], return_inverse=True)
    total = np.bincount(index, weights=weight[kept])
    share = total / total.sum()
    estimate = float(np.average(difference[kept], weights=weight[kept]))
    residual = (
        np.bincount(index, weights=weight[kept] * (difference[kept] - estimate)) / total.sum()
    )
    count = len(share)
    left_out = residual / (1 - share)
    error = math.sqrt((count - 1) / count * float(left_out @ left_out))
    # what rounding leaves of a constant
    if error <= 1e-12 * max(abs(estimate), float(np.abs(difference).max())):
        return Difference.constant(estimate, threshold=threshold)
    freedom = max(float(share @ share) ** 2 / float(np.sum(share**4)) - 1, 1.0)
    skew = _skewness(residual, share)
    critical = float(special.stdtrit(freedom, 1 - alpha))
    g = skew.forward((estimate - threshold) / error)
    return Difference(
        estimate=estimate,
        error=error,
        interval=(
            estimate - error * skew.inverse(critical),
            estimate - error * skew.inverse(-critical),
        ),
        p_above=float(special.stdtr(freedom, -g)),
        p_below=float(special.stdtr(freedom, g)),
        skewness=6 * skew.b,
    )


def _skewness(residual: Floats, share: Floats) -> Skewed:
    """Coefficients of the transformation from clusters' residuals and shares of weight (C,)."""
    count = len(residual)
    spread = math.sqrt(float(np.mean(residual**2)))
    gamma = float(np.mean(residual**3)) / spread**3
    with_weight = float(residual @ share) / spread
    root = math.sqrt(count)
    return Skewed(a=(gamma / 3 - with_weight) / root, b=gamma / (6 * root))


def cluster_means(values: Floats, cluster: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Mean value of each cluster, in the order of the clusters' sorted names."""
    _, index = np.unique(cluster, return_inverse=True)
    means: npt.NDArray[np.float64] = np.bincount(index, weights=values) / np.bincount(index)
    return means


def welch_below(x: Floats, y: Floats) -> float:
    """One-sided p-value that the mean of ``x`` lies below that of ``y``; variances may differ.

    Welch's t test (Biometrika 34, 1947), each sample of at least two values.
    """
    a, b = float(np.var(x, ddof=1)) / len(x), float(np.var(y, ddof=1)) / len(y)
    difference = float(np.mean(x) - np.mean(y))
    if a + b == 0:
        return 0.0 if difference < 0 else 1.0
    freedom = (a + b) ** 2 / (a**2 / (len(x) - 1) + b**2 / (len(y) - 1))
    return float(stats.t.cdf(difference / math.sqrt(a + b), freedom))
