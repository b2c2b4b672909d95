"""How far a column of categories has moved: population stability, χ², Cramér's V, unseen ones.

Shapes: K categories or bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

# below it, by custom (Cochran, 1954), an expected count is too small for χ²
EXPECTED = 5.0

Counts = npt.NDArray[Any]


def population_stability(reference: Counts, values: Counts) -> float:
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


def chi_square(reference: Counts, values: Counts, count: float | None = None) -> tuple[float, int]:
    """Pearson's χ² of homogeneity and its degrees of freedom.

    Args:
        reference: Counts (K,), with at least one row.
        values: Counts (K,), with at least one row.
        count: Rows that ``values`` are taken for, with the shares that they have; None for as many
            as there are.

    Examples:
        >>> chi_square(np.array([10, 30, 0]), np.array([30, 10, 0]))
        (20.0, 1)
    """
    n, m = float(reference.sum()), float(values.sum())
    p, q = reference / n, values / m
    m = m if count is None else count
    pooled = (n * p + m * q) / (n + m)
    used = pooled > 0
    statistic = n * m / (n + m) * float((np.square(p - q)[used] / pooled[used]).sum())
    return statistic, int(used.sum()) - 1


def chi_square_p_value(statistic: npt.ArrayLike, freedom: int) -> Any:
    """Upper tail of χ²; 1 without a degree of freedom."""
    return stats.chi2.sf(statistic, freedom) if freedom else np.ones_like(statistic, np.float64)


def cramers_v(reference: Counts, values: Counts) -> float:
    """Cramér's V of two sets of rows, as if there were as many of each; in [0, 1].

    Their sizes do not enter: of the raw table V goes to 0 where one set is much larger than the
    other, however different they are. Of two sets of one size it is Cramér's own.

    Examples:
        >>> round(cramers_v(np.array([1, 1]), np.array([60, 40])), 6)
        0.100504
    """
    p, q = reference / reference.sum(), values / values.sum()
    both = p + q
    used = both > 0
    return float(np.sqrt((np.square(p - q)[used] / both[used]).sum() / 2))


@dataclass(frozen=True)
class Categories:
    """Two sets of categories over the same names.

    Attributes:
        names: K names, sorted.
        reference: Rows of each (K,).
        values: New rows of each (K,).
    """

    names: tuple[str, ...]
    reference: Counts
    values: Counts

    @classmethod
    def of(cls, reference: Mapping[str, int], values: Mapping[str, int]) -> Categories:
        """Of two mappings from name to count, of which each has a row."""
        names = tuple(sorted({*reference, *values}))
        old, new = (np.array([part.get(name, 0) for name in names]) for part in (reference, values))
        assert old.sum() > 0 < new.sum()
        return cls(names, old, new)

    @property
    def psi(self) -> float:
        """Population stability."""
        return population_stability(self.reference, self.values)

    @property
    def effect(self) -> float:
        """Cramér's V."""
        return cramers_v(self.reference, self.values)

    def p_value(self, count: float | None = None) -> float:
        """Of χ², were the new rows so many; None for as many as there are."""
        old, new = self.pooled()
        return float(chi_square_p_value(*chi_square(old, new, count)))

    def pooled(self) -> tuple[Counts, Counts]:
        """The counts with rare categories as one, of which χ² would expect too few."""
        groups = pooling(self.reference, self.values)
        size = int(groups.max()) + 1
        return (
            np.bincount(groups, self.reference, size),
            np.bincount(groups, self.values, size),
        )


def pooling(reference: Counts, values: Counts) -> npt.NDArray[np.int64]:
    """Group of each category (K,) in which every expected count is large enough, where it can be.

    Only the sum of both sets decides, so that χ² stays a test.
    """
    n, m = float(reference.sum()), float(values.sum())
    both = reference + values
    rare = both * min(n, m) / (n + m) < EXPECTED
    groups = np.where(rare, 0, np.cumsum(~rare) - (not rare.any()))
    return groups.astype(np.int64)


def category_shift(reference: Mapping[str, int], values: Mapping[str, int]) -> dict[str, float]:
    """``psi`` over the categories of both, and ``unseen``, the share of values the reference lacks.

    Args:
        reference: Category to count.
        values: Category to count, at least one.

    Examples:
        >>> round(category_shift({"a": 50, "b": 50}, {"a": 60, "c": 40})["unseen"], 2)
        0.4
    """
    unseen = sum(count for name, count in values.items() if not reference.get(name))
    psi = Categories.of(reference, values).psi
    return {"psi": psi, "unseen": unseen / sum(values.values())}
