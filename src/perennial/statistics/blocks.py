"""Means of a series whose neighbours are alike.

Shapes: N values in the order of time, blocks of L, b = N / L of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

LEAST_VALUES = 4

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class BlockMean:
    """A mean with its two-sided interval.

    Attributes:
        mean: Of all values.
        error: Its standard error.
        interval: At 1 - alpha; infinite where fewer than `LEAST_VALUES` values say nothing.
        length: L, how many neighbours were drawn together.
    """

    mean: float
    error: float
    interval: tuple[float, float]
    length: int

    @property
    def told_from_zero(self) -> bool:
        """Whether the interval leaves zero out."""
        low, high = self.interval
        return low > 0 or high < 0


def block_mean(values: Floats, *, length: int | None = None, alpha: float = 0.05) -> BlockMean:
    """The mean of a dependent series by the circular block bootstrap.

    A resample is b blocks of L neighbours, drawn with replacement from the N that a circle of the
    values has (Politis & Romano, A circular block-resampling procedure for stationary data, 1992).
    The variance of its mean over all resamples is that of the blocks' means over b, so that none
    is drawn. Few blocks make percentiles of resamples far too narrow: the interval is Student's
    with b - 1 degrees, its error times √(b / (b - 1)).

    Args:
        values: In the order of time (N,).
        length: L, from 1; None for the next whole number from the cube root of N on.
        alpha: Share of series whose mean the interval misses, both sides together.

    Returns:
        See `BlockMean`.

    Example:
        >>> found = block_mean(np.array([1.0, 2.0, 1.0, 2.0, 1.0, 2.0]), length=1)
        >>> found.mean, [round(end, 3) for end in found.interval]
        (1.5, [0.925, 2.075])
    """
    n = len(values)
    if length is None:
        length = math.ceil(round(n ** (1 / 3), 9))
    assert 1 <= length <= n
    mean, blocks = float(np.mean(values)), n / length
    if n < LEAST_VALUES or blocks <= 1:
        return BlockMean(mean, math.inf, (-math.inf, math.inf), length)
    error = math.sqrt(float(np.var(_block_means(values, length))) / (blocks - 1))
    reach = float(stats.t.ppf(1 - alpha / 2, blocks - 1)) * error
    return BlockMean(mean, error, (mean - reach, mean + reach), length)


def _block_means(values: Floats, length: int) -> Floats:
    """Mean of each of the N blocks of a circle, (N,)."""
    circle = np.concatenate([values, values[: length - 1]])
    means: Floats = np.convolve(circle, np.full(length, 1 / length), mode="valid")
    return means
