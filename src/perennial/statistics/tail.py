"""A threshold that is crossed by chance as often as is allowed, from draws of the null."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# as many draws must lie beyond a quantile that they are to give by themselves
RESOLVED = 10
# where the tail begins that the model is fitted to
TAIL = 0.1


def tail_threshold(p_values: npt.ArrayLike, probability: float) -> float:
    """At or below which p-value to call a shift, so that chance does with a probability at most.

    A p-value is uniform only where its test's assumptions hold, which rows of one day, or of one
    user, do not. So the threshold is a quantile of p-values under no shift, and never above
    ``probability`` itself: the draws can make it stricter, not more lenient.

    Where fewer than ten draws would lie beyond the quantile, −ln p in its upper tenth (or its ten
    largest, where these are more and at most half) is taken to be exponential, a Pareto tail of p
    (Hill, *Annals of Statistics* 3, 1975), at the upper end of the mean excess's standard error
    and never below the 1 of a uniform p.

    Args:
        p_values: Of B draws without a shift (B,), in [0, 1].
        probability: In (0, 1).

    Examples:
        >>> tail_threshold(np.linspace(0.002, 1, 500), 0.05)
        0.05
        >>> tail_threshold(np.linspace(0.002, 1, 500) ** 2, 0.05) < 0.003
        True
    """
    draws = np.sort(np.asarray(p_values, dtype=np.float64))
    beyond = int(probability * (len(draws) + 1))
    if beyond >= RESOLVED:
        return float(min(draws[beyond - 1], probability))
    height = -np.log(np.maximum(draws, np.finfo(np.float64).tiny))
    tail = min(max(TAIL, RESOLVED / len(draws)), 0.5)
    start = float(np.quantile(height, 1 - tail))
    excess = height[height > start] - start
    scale = max(1.0, float(excess.mean()) * (1 + len(excess) ** -0.5)) if len(excess) else 1.0
    share = len(excess) / len(draws)
    threshold = start + scale * np.log(max(share / probability, 1.0))
    return float(min(np.exp(-threshold), probability))
