"""Paired 0/1 scores as counts, and single shares.

``b`` counts rows that only the candidate gets right, ``c`` those that only the champion does, ``n``
all rows; the difference is candidate minus champion, (b - c) / n.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

_HALVINGS = 41  # of an interval of at most 2, to 1e-12


def tango_scores(
    b: npt.ArrayLike, c: npt.ArrayLike, n: npt.ArrayLike, *, delta: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Tango's score statistic of H0: difference = delta, of many tables at once.

    The variance is taken at the maximum-likelihood estimate under H0 (Tango, Statistics in
    Medicine 17, 1998, equation 10); standard normal under H0, positive where the observed
    difference lies above ``delta``.

    Args:
        b: Rows only the candidate gets right (...).
        c: Rows only the champion gets right (...).
        n: All rows (...), above 0; fractions of rows are those left by a design effect.
        delta: Difference under H0 (...), in (-1, 1).
    """
    b, c, n, delta = (np.asarray(one, dtype=np.float64) for one in (b, c, n, delta))
    numerator = b - c - n * delta
    linear = -b - c + (2 * n - b + c) * delta
    root = np.sqrt(np.maximum(linear**2 + 8 * n * c * delta * (1 - delta), 0.0))
    q = np.maximum((root - linear) / (4 * n), 0.0)
    variance = n * (2 * q + delta * (1 - delta))
    without = np.where(numerator == 0, 0.0, np.copysign(np.inf, numerator))
    scale = np.sqrt(np.where(variance > 0, variance, 1.0))
    return np.where(variance > 0, numerator / scale, without)


def tango_z(b: float, c: float, n: float, *, delta: float) -> float:
    """`tango_scores` of one table."""
    return float(tango_scores(b, c, n, delta=delta))


def tango_test(b: float, c: float, n: float, *, delta: float) -> float:
    """One-sided p-value of H0: difference <= delta."""
    return float(special.ndtr(-tango_z(b, c, n, delta=delta)))


def tango_interval(b: float, c: float, n: float, *, alpha: float) -> tuple[float, float]:
    """Score interval for the paired difference; each bound is one-sided at ``alpha``.

    The set of differences that `tango_z` does not reject at ``alpha`` on either side.
    """
    z = -float(special.ndtri(alpha))
    estimate = (b - c) / n
    edge = 1 - 1e-12

    def bound(sign: float, end: float) -> float:
        def excess(delta: float) -> float:
            return tango_z(b, c, n, delta=delta) - sign * z

        if abs(end - estimate) < 1e-12 or excess(end) * sign < 0:
            return math.copysign(1.0, end)
        return float(optimize.brentq(excess, estimate, end, xtol=1e-12))

    return bound(1.0, -edge), bound(-1.0, edge)


def tango_intervals(
    b: npt.ArrayLike, c: npt.ArrayLike, n: npt.ArrayLike, *, alpha: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """`tango_interval` of many tables at once, by bisection, which halves all of them together.

    Args:
        b: Rows only the candidate gets right (N,).
        c: Rows only the champion gets right (N,).
        n: All rows (N,), above 0.
        alpha: Level of each bound.

    Returns:
        Lower and upper bounds (N,).
    """
    b, c, n = (np.asarray(count, dtype=np.float64) for count in (b, c, n))
    estimate, z, edge = (b - c) / n, -float(special.ndtri(alpha)), 1 - 1e-12

    def bounds(sign: float) -> npt.NDArray[np.float64]:
        end = np.full(estimate.shape, -sign * edge)
        # the statistic falls as the difference under H0 rises: a bound past the end lies on it
        reached = np.abs(end - estimate) < 1e-12
        reached |= (tango_scores(b, c, n, delta=end) - sign * z) * sign < 0
        inside, outside = estimate.copy(), end
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            kept = (tango_scores(b, c, n, delta=middle) - sign * z) * sign < 0
            inside, outside = np.where(kept, middle, inside), np.where(kept, outside, middle)
        return np.where(reached, -sign, (inside + outside) / 2)

    return bounds(1.0), bounds(-1.0)


def mcnemar(b: float, c: float) -> float:
    """One-sided p-value that the candidate is better: P(X >= b), X ~ Bin(b + c, 1/2).

    Exact for whole numbers; between them the regularised incomplete beta function, whose values
    these are, goes on.
    """
    return float(special.betainc(b, c + 1, 0.5)) if b else 1.0


def share_bounds(k: float, n: float, *, alpha: float) -> tuple[float, float]:
    """Exact bounds of a share, each one-sided at ``alpha``.

    Clopper & Pearson, Biometrika 26, 1934.

    Args:
        k: Rows that have it, in [0, n]; fractions of rows are those left by a design effect.
        n: All rows, above 0.
        alpha: Level of each bound.
    """
    low = float(special.betaincinv(k, n - k + 1, alpha)) if k > 0 else 0.0
    high = float(special.betaincinv(k + 1, n - k, 1 - alpha)) if k < n else 1.0
    return low, high
