"""Can a classifier tell two sets of rows apart?

Lopez-Paz & Oquab, *Revisiting Classifier Two-Sample Tests* (ICLR 2017).

Shapes: N vectors of the first set, M of the second, T = N + M, D dimensions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from perennial.types import Booleans, Floats

# up to so many dimensions the classifier sees squares and products of two
PAIRS = 24
LEAST = 20


def classifier_test(vectors: Floats, first: Booleans, *, seed: int = 0) -> tuple[float, float]:
    """Area under the curve out of fold, and its p-value.

    A logistic regression learns on one half of both sets to tell them apart, and is tried on the
    other half, and the other way round. On rows that it never saw its scores are exchangeable where
    the sets are of one distribution, so that Mann and Whitney's test of them holds, given what was
    learned. The two halves depend on each other: twice the smaller p-value holds however they do.

    Args:
        vectors: (T, D), finite.
        first: Which are of the first set (T,), at least `LEAST` of either.
        seed: Divides them in halves.

    Returns:
        The mean area over both halves, of a vector of the second set scoring higher; and p.
    """
    half = _halves(first, seed)
    second = ~first
    areas, p_values = [], []
    for learned, tried in ((half, ~half), (~half, half)):
        model = _model(vectors.shape[1]).fit(vectors[learned], second[learned])
        scores = model.decision_function(vectors[tried])
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


def _model(dimensions: int) -> Pipeline:
    steps = [PolynomialFeatures(2, include_bias=False)] if dimensions <= PAIRS else []
    return make_pipeline(
        *steps, StandardScaler(), LogisticRegression(C=0.1, max_iter=200, tol=1e-3)
    )
