"""How far a column of numbers has moved from a reference sample, in one pass over the new values.

Kept are counts and sums of the new values between the distinct values of the reference, so memory
does not grow with what is streamed. Kolmogorov–Smirnov and PSI are exact. So is Wasserstein over up
to `EXACT` values; above that the order of new values between two neighbours of the reference is not
known, which matters only where the two distribution functions cross there, and is bounded.

Shapes: N reference values, U distinct ones, M new values.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from perennial.statistics.categories import population_stability

EXACT = 1 << 18
BINS = 10

Values = npt.NDArray[np.float64]


def ks_p_value(distance: npt.ArrayLike, n: float, m: float) -> Any:
    """Two-sided p-value of Kolmogorov–Smirnov distances between N and M values.

    That of ``scipy.stats.ks_2samp(method="asymp")``: Kolmogorov's exact distribution at the
    effective size nm/(n + m). With ties it is conservative.

    Examples:
        >>> round(float(ks_p_value(0.2, 100, 100)), 4)
        0.0314
    """
    return stats.kstwo.sf(distance, max(np.round(n * m / (n + m)), 1.0))


class NumberReference:
    """A sample that new values are held against.

    Args:
        values: (N,), any order; NaN are missing, at least one is not.
    """

    def __init__(self, values: npt.ArrayLike) -> None:
        given = np.asarray(values, dtype=np.float64)
        present = given[~np.isnan(given)]
        assert len(present), "a column of which nothing is known cannot be compared with"
        self.missing = len(given) - len(present)
        self.count = len(present)
        self.distinct, counts = np.unique(present, return_counts=True)
        self.upto = np.cumsum(counts)
        self.mean = float(present.mean())
        self.deviation = float(present.std()) if len(self.distinct) > 1 else 0.0

    @cached_property
    def values(self) -> Values:
        """The values that are there (N,), sorted."""
        return np.repeat(self.distinct, np.diff(self.upto, prepend=0))

    @cached_property
    def tenths(self) -> npt.NDArray[np.int64]:
        """Places among the distinct values of the reference's deciles, each once."""
        wanted = -(-np.arange(1, BINS) * self.count // BINS)
        found = np.unique(np.searchsorted(self.upto, wanted, side="left"))
        return found[found < len(self.distinct) - 1]


class Numbers:
    """New values, met in chunks.

    Args:
        reference: What they are compared with.
    """

    def __init__(self, reference: NumberReference) -> None:
        self.reference = reference
        size = len(reference.distinct)
        self._below = np.zeros(size, dtype=np.int64)
        self._upto = np.zeros(size, dtype=np.int64)
        # of values strictly between neighbours, counted from the middle of the reference
        self._sums = np.zeros(size + 1)
        self._middle = reference.distinct[size // 2]
        self._kept: list[Values] | None = []
        self.missing = 0
        self.count = 0

    def add(self, values: npt.ArrayLike) -> None:
        """Meet more values (M,); NaN are missing."""
        given = np.sort(np.asarray(values, dtype=np.float64))  # NaN last
        there = int(np.searchsorted(given, np.nan))
        self.missing += len(given) - there
        given = given[:there]
        self.count += there
        at = self.reference.distinct
        below, upto = given.searchsorted(at, "left"), given.searchsorted(at, "right")
        self._below += below
        self._upto += upto
        running = np.concatenate([[0.0], np.cumsum(given - self._middle)])
        self._sums += running[np.append(below, there)] - running[np.concatenate([[0], upto])]
        if self._kept is not None:
            self._kept.append(given)
            if self.count > EXACT:
                self._kept = None

    @property
    def ks(self) -> float:
        """Largest distance of the two distribution functions, in [0, 1]."""
        own = self.reference.upto / self.reference.count
        before = np.concatenate([[0.0], own[:-1]])
        above = np.abs(self._upto / self.count - own).max()
        return float(max(above, np.abs(self._below / self.count - before).max()))

    @property
    def psi(self) -> float:
        """Population stability over the reference's tenths; below, at and above a constant one."""
        if len(self.reference.distinct) == 1:
            below, upto = int(self._below[0]), int(self._upto[0])
            new = np.array([below, upto - below, self.count - upto])
            return population_stability(np.array([0, self.reference.count, 0]), new)
        at = self.reference.tenths
        counts = [
            np.diff(upto[at], prepend=0, append=total)
            for upto, total in (
                (self.reference.upto, self.reference.count),
                (self._upto, self.count),
            )
        ]
        return population_stability(*counts)

    @cached_property
    def _wasserstein(self) -> tuple[float, float]:
        if self._kept is not None:
            exact = stats.wasserstein_distance(self.reference.values, np.concatenate(self._kept))
            return float(exact), 0.0
        return self._bounded()

    @property
    def wasserstein(self) -> float:
        """1-Wasserstein distance, in the column's unit; the middle of its bounds."""
        return self._wasserstein[0]

    @property
    def wasserstein_error(self) -> float:
        """How far that can be off, in the column's unit; 0 where it is exact."""
        return self._wasserstein[1]

    @property
    def effect(self) -> float:
        """Wasserstein in standard deviations of the reference.

        Where the reference is constant, the share of other values.
        """
        if not self.reference.deviation:
            return 1.0 - float(self._upto[0] - self._below[0]) / self.count
        return self.wasserstein / self.reference.deviation

    def p_value(self, count: float | None = None) -> float:
        """Of Kolmogorov–Smirnov, were the new values so many; None for as many as there are."""
        own = self.count if count is None else count
        return float(ks_p_value(self.ks, self.reference.count, own))

    def _bounded(self) -> tuple[float, float]:
        at = self.reference.distinct - self._middle
        width = np.diff(at)
        level = self.reference.upto[:-1] / self.reference.count
        low, high = self._upto[:-1] / self.count, self._below[1:] / self.count
        inside = self._below[1:] - self._upto[:-1]
        # of the new distribution function over each interval
        area = low * width + (inside * at[1:] - self._sums[1:-1]) / self.count
        signed = np.abs(area - level * width)
        crosses = (low < level) & (level < high)
        # among rising functions of one area, a single step is farthest from a level
        jump = np.divide(
            high * width - area, high - low, out=np.zeros_like(width), where=high > low
        )
        jump = np.clip(jump, 0.0, width)
        most = (level - low) * jump + (high - level) * (width - jump)
        most = np.where(crosses, np.maximum(most, signed), signed)
        tails = self._below[0] * at[0] - self._sums[0]
        tails += self._sums[-1] - (self.count - self._upto[-1]) * at[-1]
        known = max(tails, 0.0) / self.count
        least, largest = known + signed.sum(), known + most.sum()
        return float(least + largest) / 2, float(largest - least) / 2


def number_shift(reference: npt.ArrayLike, values: npt.ArrayLike) -> dict[str, float]:
    """``psi`` and ``ks`` of two columns (N,) and (M,), of each at least one value not missing."""
    found = Numbers(NumberReference(reference))
    found.add(values)
    return {"psi": found.psi, "ks": found.ks}
