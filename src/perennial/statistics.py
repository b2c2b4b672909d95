"""Statistics of paired comparisons, as functions of counts and arrays.

``b`` counts rows that only the candidate gets right, ``c`` those that only the champion does, ``n``
all rows; the difference is candidate minus champion, (b - c) / n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats


def tango_z(b: float, c: float, n: float, *, delta: float) -> float:
    """Tango's score statistic of H0: difference = delta.

    The variance is taken at the maximum-likelihood estimate under H0 (Tango, Statistics in
    Medicine 17, 1998, equation 10); standard normal under H0, positive where the observed
    difference lies above ``delta``.

    Args:
        b: Rows only the candidate gets right.
        c: Rows only the champion gets right.
        n: All rows, above 0; fractions of rows are those left by a design effect.
        delta: Difference under H0, in (-1, 1).
    """
    numerator = b - c - n * delta
    linear = -b - c + (2 * n - b + c) * delta
    root = math.sqrt(max(linear**2 + 8 * n * c * delta * (1 - delta), 0.0))
    q = max((root - linear) / (4 * n), 0.0)
    variance = n * (2 * q + delta * (1 - delta))
    if variance <= 0:
        return 0.0 if numerator == 0 else math.copysign(math.inf, numerator)
    return numerator / math.sqrt(variance)


def tango_test(b: float, c: float, n: float, *, delta: float) -> float:
    """One-sided p-value of H0: difference <= delta."""
    return float(stats.norm.sf(tango_z(b, c, n, delta=delta)))


def tango_interval(b: float, c: float, n: float, *, alpha: float) -> tuple[float, float]:
    """Score interval for the paired difference; each bound is one-sided at ``alpha``.

    The set of differences that `tango_z` does not reject at ``alpha`` on either side.
    """
    z = float(stats.norm.isf(alpha))
    estimate = (b - c) / n
    edge = 1 - 1e-12

    def bound(sign: float, end: float) -> float:
        def excess(delta: float) -> float:
            return tango_z(b, c, n, delta=delta) - sign * z

        if abs(end - estimate) < 1e-12 or excess(end) * sign < 0:
            return math.copysign(1.0, end)
        return float(optimize.brentq(excess, estimate, end, xtol=1e-12))

    return bound(1.0, -edge), bound(-1.0, edge)


def mcnemar(b: float, c: float) -> float:
    """One-sided p-value that the candidate is better: P(X >= b), X ~ Bin(b + c, 1/2).

    Exact for whole numbers; between them the regularised incomplete beta function, whose values
    these are, goes on.
    """
    return float(special.betainc(b, c + 1, 0.5)) if b else 1.0


def mcnemar_power(n: int, *, discordance: float, alternative: float, alpha: float) -> float:
    """Power of `mcnemar` at a true difference, summed over the number of discordant rows.

    Args:
        n: Rows.
        discordance: Share of rows on which the two differ, in [0, 1].
        alternative: True difference, at most the discordance.
        alpha: Level.
    """
    discordance = min(max(discordance, alternative), 1.0)
    if discordance <= 0:
        return 0.0
    share = min((discordance + alternative) / (2 * discordance), 1.0)
    low, high = (int(stats.binom.ppf(q, n, discordance)) for q in (1e-12, 1 - 1e-12))
    discordant = np.arange(low, high + 1)
    # least b that is significant among m discordant rows
    least = stats.binom.isf(alpha, discordant, 0.5) + 1
    power = stats.binom.sf(least - 1, discordant, share)
    return float(np.sum(stats.binom.pmf(discordant, n, discordance) * power))


def tango_power(
    n: int, *, discordance: float, margin: float, alpha: float, alternative: float = 0.0
) -> float:
    """Power of `tango_test` at a true difference, summed over discordant counts.

    Args:
        n: Rows.
        discordance: Share of rows on which the two differ, in [0, 1].
        margin: The test is of H0: difference <= -margin; in (-1, 1), below 0 for a minimum effect.
        alpha: Level.
        alternative: True difference, at most the discordance.
    """
    discordance = min(max(discordance, alternative), 1.0)
    share = min((discordance + alternative) / (2 * discordance), 1.0) if discordance else 0.5
    low, high = (int(stats.binom.ppf(q, n, discordance)) for q in (1e-4, 1 - 1e-4))
    power = 0.0
    for discordant in range(low, high + 1):
        least = _least_passing(discordant, n, margin, alpha)
        if least is None:
            continue
        weight = float(stats.binom.pmf(discordant, n, discordance))
        power += weight * float(stats.binom.sf(least - 1, discordant, share))
    return power


def _least_passing(discordant: int, n: int, margin: float, alpha: float) -> int | None:
    low, high = 0, discordant
    if tango_test(high, 0, n, delta=-margin) > alpha:
        return None
    while low < high:
        middle = (low + high) // 2
        if tango_test(middle, discordant - middle, n, delta=-margin) <= alpha:
            high = middle
        else:
            low = middle + 1
    return low


@dataclass(frozen=True)
class Difference:
    """A mean difference with its one-sided bounds.

    Attributes:
        estimate: Mean over rows.
        interval: One-sided bounds at alpha.
        p_above: p-value of H0: difference <= threshold.
        p_below: p-value of H0: difference >= threshold.
    """

    estimate: float
    interval: tuple[float, float]
    p_above: float
    p_below: float


def clustered_difference(
    difference: npt.NDArray[np.floating[Any]],
    cluster: npt.NDArray[Any],
    *,
    alpha: float,
    threshold: float,
) -> Difference:
    """Mean difference of dependent rows: linearised ratio over clusters, t with C - 1 degrees.

    The standard error of a ratio of cluster totals (Cochran, Sampling Techniques, section 9A).

    Args:
        difference: Candidate minus champion (N,).
        cluster: Which rows depend on each other (N,); at least two clusters.
        alpha: Level of each bound.
        threshold: Of the p-values.
    """
    _, index = np.unique(cluster, return_inverse=True)
    count = int(index.max()) + 1
    estimate = float(np.mean(difference))
    residual = np.bincount(index, weights=difference - estimate, minlength=count)
    error = math.sqrt(count / (count - 1) * float(residual @ residual)) / len(difference)
    if error == 0:
        return Difference(
            estimate=estimate,
            interval=(estimate, estimate),
            p_above=0.0 if estimate > threshold else 1.0,
            p_below=0.0 if estimate < threshold else 1.0,
        )
    half = float(special.stdtrit(count - 1, 1 - alpha)) * error
    t = (estimate - threshold) / error
    return Difference(
        estimate=estimate,
        interval=(estimate - half, estimate + half),
        p_above=float(stats.t.sf(t, count - 1)),
        p_below=float(stats.t.cdf(t, count - 1)),
    )


def cluster_means(
    values: npt.NDArray[np.floating[Any]], cluster: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """Mean value of each cluster, in the order of the clusters' sorted names."""
    _, index = np.unique(cluster, return_inverse=True)
    means: npt.NDArray[np.float64] = np.bincount(index, weights=values) / np.bincount(index)
    return means


def welch_below(x: npt.NDArray[np.floating[Any]], y: npt.NDArray[np.floating[Any]]) -> float:
    """One-sided p-value that the mean of ``x`` lies below that of ``y``; variances may differ.

    Welch's t test (Biometrika 34, 1947), each sample of at least two values.
    """
    a, b = float(np.var(x, ddof=1)) / len(x), float(np.var(y, ddof=1)) / len(y)
    difference = float(np.mean(x) - np.mean(y))
    if a + b == 0:
        return 0.0 if difference < 0 else 1.0
    freedom = (a + b) ** 2 / (a**2 / (len(x) - 1) + b**2 / (len(y) - 1))
    return float(stats.t.cdf(difference / math.sqrt(a + b), freedom))


# below so many, clusters are taken to be of one mind: an estimate would be noise
_LEAST_DISCORDANT = 20


def design_effect(sign: npt.NDArray[np.floating[Any]], cluster: npt.NDArray[Any]) -> float:
    """How many dependent rows are worth one independent row, at least 1.

    The variance of the mean of ``sign`` over clusters, as a linearised ratio, divided by that of
    independent rows (Rao & Scott, Biometrics 48, 1992: counts over it can be tested as if rows
    were independent). Where fewer than 20 clusters are discordant, the variance that complete
    agreement within clusters would give, sum m² / sum m for cluster sizes m (Kish, 1965).

    Args:
        sign: +1 where only the candidate is right, -1 where only the champion is, else 0 (N,).
        cluster: Which rows depend on each other (N,).
    """
    _, index = np.unique(cluster, return_inverse=True)
    size = np.bincount(index).astype(np.float64)
    discordant = int((np.bincount(index, weights=np.abs(sign)) > 0).sum())
    residual = np.bincount(index, weights=sign - sign.mean())
    alone = float(np.sum((sign - sign.mean()) ** 2))
    if discordant < _LEAST_DISCORDANT or alone == 0:
        return float(size @ size / size.sum())
    return max(1.0, float(residual @ residual) / alone)


def holm(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Holm's step-down adjusted p-values (Scandinavian Journal of Statistics 6, 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    scaled = (len(p) - np.arange(len(p))) * p[order]
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted
