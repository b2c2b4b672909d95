"""What a test would find, and how many rows it needs for it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from perennial.statistics.means import Skewed
from perennial.statistics.proportions import tango_scores

# of discordant counts that are summed over, left out at either end
_TAIL = 1e-12


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
    discordant, weight = _discordant(n, discordance)
    # least b that is significant among m discordant rows
    least = stats.binom.isf(alpha, discordant, 0.5) + 1
    power = stats.binom.sf(least - 1, discordant, _share(discordance, alternative))
    return float(weight @ power)


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
    discordant, weight = _discordant(n, discordance)
    least = _least_passing(discordant, n, margin, alpha)
    power = stats.binom.sf(least - 1, discordant, _share(discordance, alternative))
    return float(weight @ power)


def mean_power(
    error: float,
    *,
    margin: float,
    alpha: float,
    alternative: float = 0.0,
    skewness: float = 0.0,
) -> float:
    """Power of `mean_difference` at a true difference, to the first order of the skewness.

    The studentised mean has to pass what Hall's transformation turns into the normal quantile. Its
    standard error goes along with the mean where rows are skewed, which widens or narrows it, and
    its distribution is Edgeworth's (Hall, The Bootstrap and Edgeworth Expansion, 1992).

    Args:
        error: Standard error of the estimate, at least 0.
        margin: The test is of H0: difference <= -margin; below 0 for a minimum effect.
        alpha: Level.
        alternative: True difference.
        skewness: Of the estimate's distribution; 0 gives the normal approximation.
    """
    distance = alternative + margin
    if error == 0:
        return 1.0 if distance > 0 else 0.0
    least = Skewed(a=skewness / 3, b=skewness / 6).inverse(-float(special.ndtri(alpha)))
    width = math.sqrt(max(1 - least * skewness, 0.1))
    x = (least - distance / error) / width
    edgeworth = skewness * (x**2 - 1) * math.exp(-(x**2) / 2) / (6 * math.sqrt(2 * math.pi))
    return min(max(float(special.ndtr(-x)) + edgeworth, 0.0), 1.0)


def rows_needed(
    variance: float, *, distance: float, alpha: float, power: float = 0.8
) -> int | None:
    """How many rows show a difference of this size, by the normal approximation.

    Args:
        variance: Of one row's difference; the discordance for 0/1 scores, n times the squared
            standard error for any others, which covers clusters and weights.
        distance: Of the true difference from the threshold, on the side to be shown.
        alpha: Level.
        power: With which they show it, in (0, 1).

    Returns:
        At least 1; None where no number of rows would do.
    """
    if distance <= 0:
        return None
    z = float(special.ndtri(1 - alpha) + special.ndtri(power))
    return max(math.ceil(variance * (z / distance) ** 2), 1)


def _share(discordance: float, alternative: float) -> float:
    """Of the discordant rows, those that the candidate gains."""
    return min((discordance + alternative) / (2 * discordance), 1.0) if discordance else 0.5


def _discordant(
    n: int, discordance: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Numbers of discordant rows (M,) that may well occur, and their probabilities (M,)."""
    low, high = (int(stats.binom.ppf(q, n, discordance)) for q in (_TAIL, 1 - _TAIL))
    count = np.arange(low, high + 1)
    return count, stats.binom.pmf(count, n, discordance)


def _least_passing(
    discordant: npt.NDArray[np.int64], n: int, margin: float, alpha: float
) -> npt.NDArray[np.int64]:
    """Least b (M,) that passes among so many discordant rows (M,), by bisection; m + 1 if none."""
    z = -float(special.ndtri(alpha))
    low, high = np.zeros_like(discordant), discordant + 1
    while (low < high).any():
        middle = (low + high) // 2
        passes = tango_scores(middle, discordant - middle, n, delta=-margin) >= z
        high = np.where(passes, middle, high)
        low = np.where(passes | (low >= high), low, middle + 1)
    return low
