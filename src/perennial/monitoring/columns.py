"""The tests of single columns: of a window that goes by, and of the reference against itself.

Shapes: N rows of the sample, B draws of rows from it, K categories.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from perennial.monitoring.reference import counted
from perennial.statistics.categories import (
    Categories,
    chi_square,
    chi_square_p_value,
    cramers_v,
    pooling,
    population_stability,
)
from perennial.statistics.numbers import NumberReference, Numbers
from perennial.types import Booleans, Floats

# unseen categories that are named
SHOWN = 20
_GRID = 400


@dataclass(frozen=True)
class Measured:
    """One test of one column.

    Attributes:
        name: The column.
        test: ``ks``, ``chi_square``, or ``missing`` for the share that is missing.
        statistic: The test's.
        p: Its p-value, of all rows.
        alarm_p: The p-value that counts, of as many rows as the reference can vouch for.
        effect: How far it moved, whatever the number of rows: Wasserstein in standard deviations of
            the reference, or Cramér's V.
        detail: Further plain values.
    """

    name: str
    test: str
    statistic: float
    p: float
    alarm_p: float
    effect: float
    detail: Mapping[str, Any] = field(default_factory=dict)


class NumberColumn:
    """A column of numbers of the reference.

    Args:
        name: Its name.
        values: (N,), NaN where missing.
    """

    def __init__(self, name: str, values: npt.NDArray[np.float64]) -> None:
        self.name = name
        self.gaps = np.isnan(values)
        self._values = values
        self.reference = None if self.gaps.all() else NumberReference(values)

    def start(self) -> NumberStream:
        """A window of which nothing was met yet."""
        return NumberStream(self)

    def measured(self, met: Numbers, *, count: float) -> Measured:
        """The test of what a window has, at least one value.

        Args:
            met: What was met of it.
            count: Rows that the window counts for, missing ones too.
        """
        there = met.count / (met.count + met.missing)
        p, rows = met.p_value(), count * there
        return Measured(
            name=self.name,
            test="ks",
            statistic=met.ks,
            p=p,
            alarm_p=met.p_value(rows) if rows < met.count else p,
            effect=met.effect,
            detail={
                "psi": met.psi,
                "wasserstein": met.wasserstein,
                "wasserstein_error": met.wasserstein_error,
            },
        )

    def drawn(self, masks: Booleans) -> list[Floats]:
        """P-values (B,) of each test of some of the sample's rows (B, N)."""
        found = [] if self.reference is None else [self._drawn(self.reference, masks)]
        return [*found, *drawn_gaps(self.gaps, masks)]

    def _drawn(self, reference: NumberReference, masks: Booleans) -> Floats:
        order = np.flatnonzero(~self.gaps)
        order = order[np.argsort(self._values[order], kind="stable")]
        taken = np.cumsum(masks[:, order], axis=1, dtype=np.int32)
        m = taken[:, -1:].astype(np.float64)
        n = len(order) - m
        ends = reference.upto - 1
        taken = taken[:, ends]
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = np.abs(taken / m - (reference.upto - taken) / n)
        usable = (m[:, 0] > 0) & (n[:, 0] > 0)
        apart[~usable] = 0.0
        size = np.round(np.where(usable, n[:, 0] * m[:, 0] / len(order), 1.0))
        distance = apart.max(axis=1)
        p_values = np.ones(len(masks))
        for one in np.unique(size).tolist():
            here = size == one
            grid, logs = _ks_table(int(max(one, 1)))
            p_values[here] = np.exp(np.interp(distance[here], grid, logs))
        return p_values


class CategoryColumn:
    """A column of categories of the reference, empty text where missing.

    Args:
        name: Its name.
        values: Text (N,).
        known: All names that the reference's rows have, sampled or not, and their counts.
    """

    def __init__(
        self, name: str, values: npt.NDArray[Any], known: Mapping[str, int] | None = None
    ) -> None:
        self.name = name
        self.gaps = np.asarray(values == "")
        names, codes = np.unique(values[~self.gaps], return_inverse=True)
        self._codes = np.full(len(values), -1)
        self._codes[~self.gaps] = codes
        self.counts = counted(values[~self.gaps])
        self.known = {*(known or {}), *names.tolist()}

    def start(self) -> CategoryStream:
        """A window of which nothing was met yet."""
        return CategoryStream(self)

    def measured(self, met: Mapping[str, int], *, count: float) -> Measured:
        """The test of what a window has, at least one value.

        Args:
            met: Category to rows, empty text for those where it is missing.
            count: Rows that the window counts for, missing ones too.
        """
        rows = sum(met.values())
        there = {name: number for name, number in met.items() if name}
        total = sum(there.values())
        both = Categories.of(self.counts, there)
        old, new = both.pooled()
        statistic, p = _chi_square(old, new, None)
        unseen = {name: number for name, number in there.items() if name not in self.known}
        most = sorted(unseen, key=lambda name: (-unseen[name], name))[:SHOWN]
        return Measured(
            name=self.name,
            test="chi_square",
            statistic=statistic,
            p=p,
            alarm_p=_chi_square(old, new, min(count * total / rows, total))[1],
            effect=both.effect,
            detail={
                "psi": both.psi,
                "unseen": sum(unseen.values()) / total,
                "unseen_names": {name: unseen[name] for name in most},
                "unseen_categories": len(unseen),
            },
        )

    def drawn(self, masks: Booleans) -> list[Floats]:
        """P-values (B,) of each test of some of the sample's rows (B, N)."""
        found = [drawn_counts(self._codes, len(self.counts), masks)] if self.counts else []
        return [*found, *drawn_gaps(self.gaps, masks)]


class NumberStream:
    """Of a column of numbers, what a window has shown so far."""

    def __init__(self, column: NumberColumn) -> None:
        self._column = column
        self._numbers = None if column.reference is None else Numbers(column.reference)
        self._gaps = 0
        self._rows = 0

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Meet more of it (B,), NaN where missing."""
        self._rows += len(values)
        self._gaps += int(np.isnan(values).sum())
        if self._numbers is not None:
            self._numbers.add(values)

    def tests(self, *, count: float) -> list[Measured]:
        """All that can be said of it, as if the window had so many rows."""
        met = self._numbers
        found = [] if met is None or not met.count else [self._column.measured(met, count=count)]
        gaps = self._column.gaps
        then = (int(gaps.sum()), len(gaps))
        return [
            *found,
            *missing_test(self._column.name, then, (self._gaps, self._rows), count=count),
        ]

    def note(self) -> str | None:
        """What cannot be said of it."""
        reference = self._column.reference
        if reference is None:
            return "missing in every row of the reference, so that its values compare with nothing"
        if len(reference.distinct) == 1:
            return f"constant in the reference, at {reference.distinct[0]:g}"
        if self._numbers is not None and not self._numbers.count:
            return "missing in every row of the window"
        return None


class CategoryStream:
    """Of a column of categories, what a window has shown so far."""

    def __init__(self, column: CategoryColumn) -> None:
        self._column = column
        self._counts: Counter[str] = Counter()

    def add(self, counts: Mapping[str, int]) -> None:
        """Meet more of it: category to rows, empty text for those where it is missing."""
        for name, number in counts.items():
            self._counts[name] += number

    def tests(self, *, count: float) -> list[Measured]:
        """All that can be said of it, as if the window had so many rows."""
        rows, gaps = self._counts.total(), self._counts[""]
        there = self._column.counts and rows > gaps
        found = [self._column.measured(self._counts, count=count)] if there else []
        then = (int(self._column.gaps.sum()), len(self._column.gaps))
        return [*found, *missing_test(self._column.name, then, (gaps, rows), count=count)]

    def note(self) -> str | None:
        """What cannot be said of it."""
        if not self._column.counts:
            return "missing in every row of the reference, so that its values compare with nothing"
        if len(self._column.counts) == 1:
            return f"constant in the reference, at {next(iter(self._column.counts))!r}"
        if self._counts.total() == self._counts[""]:
            return "missing in every row of the window"
        return None


def missing_test(
    name: str, then: tuple[int, int], now: tuple[int, int], *, count: float
) -> list[Measured]:
    """The test of a column's share of missing values; none where none is missing.

    Args:
        name: The column.
        then: Missing and all rows of the sample.
        now: Missing and all rows of the window.
        count: Rows that the window counts for.
    """
    if not then[0] and not now[0]:
        return []
    old, new = (np.array([missing, rows - missing]) for missing, rows in (then, now))
    statistic, p = _chi_square(old, new, None)
    measured = Measured(
        name=name,
        test="missing",
        statistic=statistic,
        p=p,
        alarm_p=_chi_square(old, new, min(count, now[1]))[1],
        effect=cramers_v(old, new),
        detail={
            "psi": population_stability(old, new),
            "then": then[0] / then[1],
            "now": now[0] / now[1],
        },
    )
    return [measured]


def drawn_gaps(gaps: Booleans, masks: Booleans) -> list[Floats]:
    """The test of `missing_test` of some rows (B, N) by the others; none where none is missing."""
    return [drawn_counts(gaps.astype(np.int64), 2, masks)] if gaps.any() else []


def drawn_counts(codes: npt.NDArray[Any], size: int, masks: Booleans) -> Floats:
    """P-values of χ² (B,) of some rows (B, N) against the others.

    Args:
        codes: Category of each row (N,) below ``size``, -1 where missing.
        size: Categories K.
        masks: (B, N).
    """
    there = codes >= 0
    total = np.bincount(codes[there], minlength=size)
    share = float(masks.mean())
    # as one where χ² would expect too few, by the expected division of all draws
    groups = pooling(np.round(total * (1 - share)), np.round(total * share))
    found = np.zeros((len(codes), int(groups.max()) + 1), dtype=np.float32)
    found[np.flatnonzero(there), groups[codes[there]]] = 1.0
    new = (masks.astype(np.float32) @ found).astype(np.float64)
    old = found.sum(axis=0, dtype=np.float64) - new
    m, n = new.sum(axis=1, keepdims=True), old.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        p, q = old / n, new / m
        pooled = (old + new) / (n + m)
        apart = np.square(p - q)
        terms = np.where(pooled > 0, apart / pooled, 0.0).sum(axis=1)
        statistic = (n * m / (n + m))[:, 0] * terms
    freedom = int((found.sum(axis=0) > 0).sum()) - 1
    usable = (n[:, 0] > 0) & (m[:, 0] > 0)
    found_p = chi_square_p_value(np.nan_to_num(statistic), freedom)
    return np.asarray(np.where(usable, found_p, 1.0))


def _chi_square(old: Any, new: Any, count: float | None) -> tuple[float, float]:
    statistic, freedom = chi_square(old, new, count)
    return statistic, float(chi_square_p_value(statistic, freedom))


@lru_cache(maxsize=1024)
def _ks_table(size: int) -> tuple[Floats, Floats]:
    """Distances and the logarithms of their p-values, between which draws are interpolated."""
    most = min(1.0, 6 / np.sqrt(size))
    grid = np.linspace(0.0, most, _GRID)
    with np.errstate(divide="ignore"):
        logs = np.log(np.maximum(stats.kstwo.sf(grid, max(size, 1)), 1e-300))
    return grid, logs
