"""Scores of rows without labels, estimated from how sure the model is of them.

What a model's confidence was worth is learned from M held-out rows with labels, and applied to N
rows without. That holds while rows of one confidence are right as often as they were: where the
relation of inputs to labels changes, confidence does not, and no function here can see it.

Intervals are for the score that these N rows turn out to have once their labels come: they hold the
draw of the held-out rows and that of the labels.

Shapes: M held-out rows, N rows without labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special, stats

Floats = npt.NDArray[np.floating[Any]]

# of calibration: about as many rows a bin, and how few and how many bins
_ROWS_PER_BIN = 20
_BINS = (5, 50)


@dataclass(frozen=True)
class Estimate:
    """A score that is not known yet.

    Attributes:
        value: In [0, 1].
        error: Standard deviation of what turns out less ``value``.
        calibration_error: The part of it that the held-out rows' draw makes.
        interval: Central, at the level that was asked for; within [0, 1].
    """

    value: float
    error: float
    calibration_error: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Threshold:
    """The confidence below which as many held-out rows lie as were wrong.

    Attributes:
        value: Rows below it are taken to be wrong.
        weight: Of rows at it, the share that is taken to be wrong, in [0, 1].
    """

    value: float
    weight: float

    def wrong(self, confidence: Floats) -> npt.NDArray[np.float64]:
        """How far each row (N,) is taken to be wrong, in [0, 1]."""
        below = (confidence < self.value).astype(np.float64)
        found: npt.NDArray[np.float64] = below + self.weight * (confidence == self.value)
        return found


@dataclass(frozen=True)
class Calibrator:
    """How often what a probability is said of was so.

    Attributes:
        said: Mean probability of each bin, rising (K,).
        was: Share of the bin's rows that it was so of (K,).
    """

    said: npt.NDArray[np.float64]
    was: npt.NDArray[np.float64]

    def __call__(self, probability: Floats) -> npt.NDArray[np.float64]:
        """Calibrated probabilities (N,), linear between the bins and level beyond the outer two."""
        found: npt.NDArray[np.float64] = np.interp(probability, self.said, self.was)
        return found


def confidence_threshold(confidence: Floats, right: npt.NDArray[np.bool_]) -> Threshold:
    """Average threshold confidence, with ties shared out so that it is exact on these rows.

    Garg et al., Leveraging Unlabeled Data to Predict Out-of-Distribution Performance, 2022.

    Args:
        confidence: Of each held-out row (M,), at least one.
        right: Whether its prediction was right (M,).
    """
    ordered = np.sort(confidence)
    wrong = int(len(right) - np.count_nonzero(right))
    if wrong == len(ordered):
        return Threshold(math.inf, 0.0)
    value = float(ordered[wrong])
    below, at = int(np.sum(ordered < value)), int(np.sum(ordered == value))
    return Threshold(value, (wrong - below) / at)


def calibrator(probability: Floats, outcome: npt.NDArray[Any]) -> Calibrator:
    """Calibration by bins of equally many rows, with lines between them.

    Zadrozny & Elkan, Obtaining calibrated probability estimates from decision trees and naive
    Bayesian classifiers, 2001. Not isotonic regression: that fits the order of its own rows too
    well, which makes an area under the ROC curve 0.017 too large at M = 300, and bins 0.003
    (normal scores, 300 draws).

    Args:
        probability: Said of each held-out row (M,), at least one; equal ones share a bin.
        outcome: Whether it was so (M,), 0 or 1.
    """
    said = np.asarray(probability, dtype=np.float64)
    bins = min(max(len(said) // _ROWS_PER_BIN, _BINS[0]), _BINS[1])
    starts = np.arange(bins) * len(said) // bins
    edges = np.unique(np.sort(said)[starts])
    index = np.searchsorted(edges, said, side="right") - 1
    count = np.bincount(index)
    was = np.bincount(index, weights=np.asarray(outcome, dtype=np.float64)) / count
    return Calibrator(np.bincount(index, weights=said) / count, was)


def expected_auc(ranked_by: Floats, probability: Floats) -> float:
    """Area under the ROC curve that labels drawn from probabilities are expected to give.

    It is the expected number of rightly ordered pairs of a positive and a negative row, over that
    of such pairs; ties count half. NaN where no such pair can be.

    Args:
        ranked_by: What rows are ordered by (N,).
        probability: That a row is positive (N,), each apart from the others.
    """
    _, index = np.unique(ranked_by, return_inverse=True)
    positive = np.bincount(index, weights=probability)
    negative = np.bincount(index, weights=1 - probability)
    below = np.cumsum(negative) - negative
    with_itself = float(np.sum(probability * (1 - probability)))
    pairs = float(positive.sum() * negative.sum()) - with_itself
    ordered = float(np.sum(positive * (below + negative / 2))) - with_itself / 2
    return ordered / pairs if pairs > 1e-12 else math.nan


def estimate_by_threshold(
    held_out: Floats,
    right: npt.NDArray[np.bool_],
    confidence: Floats,
    *,
    level: float = 0.95,
    resamples: int = 200,
    seed: int = 0,
) -> Estimate:
    """Accuracy by average thresholded confidence; see `confidence_threshold`.

    The estimate differs from what turns out by the draw of the held-out rows, taken from bootstrap
    samples of them, and by rows that lie on the other side of the threshold than they should,
    whose variance is that among the held-out rows.

    Args:
        held_out: Confidence of each held-out row (M,).
        right: Whether its prediction was right (M,).
        confidence: Of each row without label (N,).
        level: Of the interval, in (0, 1).
        resamples: Bootstrap samples.
        seed: Of their draw.
    """
    threshold = confidence_threshold(held_out, right)
    value = 1 - float(threshold.wrong(confidence).mean())
    generator = np.random.default_rng(seed)
    ordered = np.sort(confidence)
    values = []
    for _ in range(resamples):
        drawn = generator.integers(0, len(right), len(right))
        values.append(
            1 - _share_wrong(confidence_threshold(held_out[drawn], right[drawn]), ordered)
        )
    missed = float(np.var(1 - threshold.wrong(held_out) - right))
    return _estimate(value, float(np.var(values)), missed / len(confidence), level)


def estimate_accuracy(
    held_out: Floats,
    right: npt.NDArray[np.bool_],
    confidence: Floats,
    *,
    level: float = 0.95,
    resamples: int = 200,
    seed: int = 0,
) -> Estimate:
    """Accuracy as the mean of calibrated confidence; arguments as for `estimate_by_threshold`.

    Confidence-based performance estimation, as NannyML calls it: of rows that are right with
    probability p, a share p will turn out right.
    """
    return _resampled(
        lambda p, generator: (float(p.mean()), float(np.sum(p * (1 - p))) / len(p) ** 2),
        held_out,
        right,
        confidence,
        level=level,
        resamples=resamples,
        seed=seed,
    )


def estimate_auc(
    held_out: Floats,
    positive: npt.NDArray[np.bool_],
    probability: Floats,
    *,
    level: float = 0.95,
    resamples: int = 200,
    seed: int = 0,
) -> Estimate | None:
    """Area under the ROC curve of a binary task, from calibrated probabilities.

    Its draws are labels from those, ordered by what the model said; see `expected_auc`.

    Args:
        held_out: Probability of the positive class that was said of each held-out row (M,).
        positive: Whether it was positive (M,).
        probability: The same of each row without label (N,).
        level: Of the interval, in (0, 1).
        resamples: Bootstrap samples.
        seed: Of their draw.

    Returns:
        None where labels of both classes are so rare together that hardly a draw has them.
    """
    rank = stats.rankdata(probability)

    def drawn(p: Floats, generator: np.random.Generator) -> tuple[float, float]:
        expected = expected_auc(probability, p)
        areas = np.array([_area(rank, generator.random(len(p)) < p) for _ in range(4)])
        areas = areas[~np.isnan(areas)]
        return expected, float(np.mean((areas - expected) ** 2)) if len(areas) else math.nan

    found = _resampled(
        drawn, held_out, positive, probability, level=level, resamples=resamples, seed=seed
    )
    return None if math.isnan(found.value + found.error) else found


def _resampled(
    of: Callable[[Floats, np.random.Generator], tuple[float, float]],
    held_out: Floats,
    outcome: npt.NDArray[np.bool_],
    probability: Floats,
    *,
    level: float,
    resamples: int,
    seed: int,
) -> Estimate:
    """``of`` takes calibrated probabilities (N,) to a score and the variance by labels' draw."""
    generator = np.random.default_rng(seed)
    value, _ = of(calibrator(held_out, outcome)(probability), generator)
    values, variances = [], []
    for _ in range(resamples):
        index = generator.integers(0, len(outcome), len(outcome))
        found = of(calibrator(held_out[index], outcome[index])(probability), generator)
        values.append(found[0])
        variances.append(found[1])
    known = ~np.isnan(values) & ~np.isnan(variances)
    if 2 * np.count_nonzero(known) < resamples:
        return Estimate(math.nan, math.nan, math.nan, (math.nan, math.nan))
    spread = float(np.var(np.array(values)[known]))
    return _estimate(value, spread, float(np.mean(np.array(variances)[known])), level)


def _estimate(value: float, calibration: float, labels: float, level: float) -> Estimate:
    error = math.sqrt(calibration + labels)
    half = float(special.ndtri((1 + level) / 2)) * error
    interval = (max(value - half, 0.0), min(value + half, 1.0))
    return Estimate(value, error, math.sqrt(calibration), interval)


def _share_wrong(threshold: Threshold, ordered: Floats) -> float:
    """`Threshold.wrong`'s mean over rows in rising order (N,)."""
    below, upto = (np.searchsorted(ordered, threshold.value, side) for side in ("left", "right"))
    return float(below + threshold.weight * (upto - below)) / len(ordered)


def _area(rank: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """Mann–Whitney's form of the area, by ranks (N,) of which ties have the mean."""
    count = int(np.count_nonzero(positive))
    other = len(positive) - count
    if not count or not other:
        return math.nan
    return float(rank[positive].sum() - count * (count + 1) / 2) / (count * other)
