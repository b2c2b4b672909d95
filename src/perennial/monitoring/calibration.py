"""How often chance may raise an alarm, and the threshold at which it does.

What is set is a number of false alarms a year. With the time between windows it becomes the
probability of one window. A p-value says that only of rows that are independent of each other; rows
of one day or of one user are not. So the reference is divided again and again into what could have
been a window, of as many rows, and the rest: a contiguous stretch of time where its rows have time,
so that a season inside the reference raises no alarm; whole clusters at random where they have
none. The threshold is the quantile of what these give; see `perennial.statistics.tail`. A season
longer than the reference, and one that it shows only once, cannot be told from drift.

Shapes: N rows, B draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median_low

import numpy as np
import numpy.typing as npt

from perennial.errors import ConfigError, require_setting
from perennial.types import Booleans, Integers

YEAR = timedelta(days=365.25)
# fewer rows show nothing but the grossest change
LEAST_ROWS = 30
MOST_LIKELY = 0.5
# beginnings from which stretches tile the time of a reference
PHASES = 4


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What an alarm takes.

    Args:
        false_alarms_per_year: How many of them without any change are all right, above 0.
        every: Time from one window to the next; see `rhythm`.
        minimum_effect: How far a column has to move to count, however many rows there are: in
            standard deviations of the reference (Wasserstein), or as Cramér's V.
        draws: Divisions of the reference, at least 100; fewer where its time holds fewer windows.
        seed: Of them.

    Raises:
        ConfigError: A value is out of range, or more false alarms are allowed than every other
            window.
    """

    false_alarms_per_year: float = 1.0
    every: timedelta = timedelta(days=1)
    minimum_effect: float = 0.1
    draws: int = 400
    seed: int = 0

    def __post_init__(self) -> None:
        where = "trigger.false_alarms_per_year"
        require_setting(
            self.false_alarms_per_year > 0, where, self.false_alarms_per_year, "above 0"
        )
        require_setting(self.every > timedelta(0), "trigger.every", self.every, "a time above 0")
        require_setting(
            0 <= self.minimum_effect < 1, "trigger.minimum_effect", self.minimum_effect, "in [0, 1)"
        )
        require_setting(self.draws >= 100, "trigger.draws", self.draws, "at least 100")
        if self.probability > MOST_LIKELY:
            raise ConfigError(
                f"{self.false_alarms_per_year:g} false alarms a year are more than every other of "
                f"{YEAR / self.every:.3g} windows.",
                where=where,
                mend="allow fewer, or look more often",
            )

    @property
    def probability(self) -> float:
        """That of an alarm in one window without any change."""
        return self.false_alarms_per_year * (self.every / YEAR)


def rhythm(times: Sequence[datetime]) -> timedelta:
    """The time between windows as it was: the median of the gaps, of two the smaller.

    Args:
        times: When windows were looked at, any order; at least two different ones.

    Raises:
        ConfigError: There are fewer.

    Examples:
        >>> rhythm([datetime(2026, 1, day) for day in (1, 2, 4, 3, 9)])
        datetime.timedelta(days=1)
    """
    gaps = [b - a for a, b in pairwise(sorted(set(times)))]
    if not gaps:
        raise ConfigError(
            "The time between windows cannot be measured: fewer than two were looked at.",
            where="trigger.every",
            mend="give it, trigger.every=1d say",
        )
    return median_low(gaps)


def vouched(rows: int, *, sampled: int, total: int, has_time: bool) -> int:
    """Rows that a window counts for: as many as the reference can show the scatter of.

    Without time its rows say how any number of rows scatters. With time a window is like a stretch
    of the reference of as many rows, of which the sample has its share; at most half of it.

    Args:
        rows: Of the window.
        sampled: Rows of the sample.
        total: Rows that it stands for.
        has_time: Whether they are ordered in time.

    Examples:
        >>> vouched(5000, sampled=10_000, total=100_000, has_time=True)
        500
        >>> vouched(5000, sampled=10_000, total=100_000, has_time=False)
        5000
    """
    if not has_time:
        return rows
    stretch = min(round(rows * sampled / total), sampled // 2)
    return min(rows, max(stretch, LEAST_ROWS))


def tiles(rows: int, size: int, *, draws: int) -> int:
    """How many stretches of a size one after another a division in time has of each phase.

    Examples:
        >>> tiles(800, 100, draws=400), tiles(80_000, 100, draws=400)
        (7, 100)
    """
    late = (PHASES - 1) * size // PHASES
    return max(1, min((rows - late) // size, draws // PHASES))


def stretches(
    order: Integers, *, size: int, count: int, generator: np.random.Generator
) -> Booleans:
    """Stretches of time that could have been a window (B, N), `PHASES` times ``count`` of them.

    Windows follow each other: days, say, from midnight to midnight. A stretch that begins at noon
    is half a Sunday, which no window is, so stretches tile the time, from several beginnings.

    Args:
        order: Place of each row in time (N,).
        size: Rows of a stretch.
        count: Stretches of each beginning; see `tiles`.
        generator: Chooses them where there are more.

    Returns:
        Those of the first beginning first.
    """
    by_time = np.argsort(order, kind="stable")
    starts = []
    for phase in range(PHASES):
        late = phase * size // PHASES
        there = max((len(order) - late) // size, 1)
        starts.append(late + size * generator.permutation(there)[:count])
    at = np.minimum(np.concatenate(starts), len(order) - size)
    masks = np.zeros((len(at), len(order)), dtype=bool)
    masks[np.arange(len(at))[:, None], by_time[at[:, None] + np.arange(size)]] = True
    return masks


def clusters(
    cluster: npt.NDArray[np.str_], *, size: int, draws: int, generator: np.random.Generator
) -> Booleans:
    """Whole clusters at random (B, N), ``size`` rows in each draw, the last cluster cut.

    Args:
        cluster: Of each row (N,).
        size: Rows, at most half of N.
        draws: B.
        generator: Of chance.
    """
    _, code = np.unique(cluster, return_inverse=True)
    keys = generator.random((draws, int(code.max()) + 1), dtype=np.float32)[:, code]
    masks = np.zeros((draws, len(code)), dtype=bool)
    np.put_along_axis(masks, np.argpartition(keys, size - 1, axis=1)[:, :size], True, axis=1)
    return masks
