"""Can a classifier tell two sets of rows apart?

Lopez-Paz & Oquab, *Revisiting Classifier Two-Sample Tests* (ICLR 2017).

Shapes: N vectors of the first set, M of the second, T = N + M, D dimensions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.linear_model import LogisticRegression

from perennial.types import Booleans, Floats

# up to so many dimensions the classifier sees squares and products of two
PAIRS = 24
LEAST = 4


def classifier_test(vectors: Floats, first: Booleans, *, seed: int = 0) -> tuple[float, float]:
    """Area under the curve out of fold, and its p-value.

    A logistic regression on the dimensions, their squares and products learns on one half of both
    sets to tell them apart, and is tried on the other half, and the other way round. On rows that
    it never saw its scores are exchangeable where the sets are of one distribution, so that Mann
    and Whitney's test of them holds, given what was learned. The two halves depend on each other:
    twice the smaller p-value holds however they do.

    Args:
        vectors: (T, D), finite.
        first: Which are of the first set (T,), at least `LEAST` of either.
        seed: Divides them in halves.

    Returns:
        The mean area over both halves, of a vector of the second set scoring higher; and p.
    """
    half = _halves(first, seed)
    second = ~first
    expanded = _expanded(vectors)
    areas, p_values = [], []
    for learned, tried in ((half, ~half), (~half, half)):
        scores = _scores(expanded[learned], second[learned], expanded[tried])
        area, p_value = _above(scores[second[tried]], scores[first[tried]])
        areas.append(area)
        p_values.append(p_value)
    return float(np.mean(areas)), min(1.0, 2 * min(p_values))


def _above(upper: Floats, lower: Floats) -> tuple[float, float]:
    found = stats.mannwhitneyu(upper, lower, alternative="greater", method="asymptotic")
    p_value = float(found.pvalue)
    # where all scores are equal there is no variance to divide by, and nothing to tell apart
    return float(found.statistic) / (len(upper) * len(lower)), 1.0 if np.isnan(p_value) else p_value


def _halves(first: Booleans, seed: int) -> npt.NDArray[np.bool_]:
    generator = np.random.default_rng(seed)
    half = np.zeros(len(first), dtype=bool)
    for part in (first, ~first):
        rows = generator.permutation(np.flatnonzero(part))
        half[rows[: len(rows) // 2]] = True
    return half


def _expanded(vectors: Floats) -> Floats:
    """With squares and products of two (T, D (D + 3) / 2), where that is not too many."""
    found = np.asarray(vectors, np.float32)
    if found.shape[1] > PAIRS:
        return found
    left, right = np.triu_indices(found.shape[1])
    return np.concatenate([found, found[:, left] * found[:, right]], axis=1)


def _scores(learned: Floats, second: Booleans, tried: Floats) -> Floats:
    """How much vectors that were tried (T, D) look like those of the second set (T,)."""
    mean, deviation = learned.mean(axis=0), learned.std(axis=0)
    tells = deviation > 0
    if not tells.any():
        return np.zeros(len(tried))
    old, new = ((part - mean)[:, tells] / deviation[tells] for part in (learned, tried))
    model = LogisticRegression(C=0.1, solver="newton-cholesky", tol=1e-3).fit(old, second)
    scores: Floats = model.decision_function(new)
    return scores
