"""Ratios of quantiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def quantile_ratio(
    champion: npt.NDArray[np.floating[Any]],
    candidate: npt.NDArray[np.floating[Any]],
    *,
    q: float,
    alpha: float,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Candidate's quantile over the champion's, with bounds by the percentile bootstrap.

    Rounds are drawn whole, since what slows a machine down slows both models in the same round.

    Args:
        champion: Positive values (R,), round by round.
        candidate: Likewise, of the same rounds (R,).
        q: In [0, 1].
        alpha: Level of each bound.
        resamples: Bootstrap samples.
        seed: Of the draws.

    Returns:
        The ratio and its bounds, each one-sided at ``alpha``.
    """
    rounds = len(champion)
    drawn = np.random.default_rng(seed).integers(rounds, size=(resamples, rounds))
    ratios = np.quantile(candidate[drawn], q, axis=1) / np.quantile(champion[drawn], q, axis=1)
    low, high = np.quantile(ratios, [alpha, 1 - alpha])
    ratio = np.quantile(candidate, q) / np.quantile(champion, q)
    return float(ratio), float(low), float(high)
