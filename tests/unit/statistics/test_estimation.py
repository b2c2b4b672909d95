"""Scores estimated without labels: against brute force, scikit-learn, and what turned out."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from perennial.statistics import estimation


def expected_by_enumeration(ranked_by: Any, probability: Any) -> float:
    """Expected rightly ordered pairs over expected pairs, over all 2ᴺ ways to label the rows."""
    ordered = pairs = 0.0
    for labels in itertools.product((0, 1), repeat=len(probability)):
        weight = math.prod(p if y else 1 - p for p, y in zip(probability, labels, strict=True))
        for i, j in itertools.permutations(range(len(labels)), 2):
            if labels[i] == 1 and labels[j] == 0:
                pairs += weight
                a, b = ranked_by[i], ranked_by[j]
                ordered += weight * (1.0 if a > b else 0.5 if a == b else 0.0)
    return ordered / pairs


@pytest.mark.parametrize("seed", range(3))
def test_the_expected_area_is_that_of_all_ways_to_label_the_rows(seed: int) -> None:
    generator = np.random.default_rng(seed)
    ranked_by = generator.integers(0, 4, 7) / 4  # with ties
    probability = generator.random(7)
    found = estimation.expected_auc(ranked_by, probability)
    assert found == pytest.approx(expected_by_enumeration(ranked_by, probability), abs=1e-12)


def test_of_labels_that_are_certain_it_is_the_area_itself() -> None:
    generator = np.random.default_rng(0)
    score, label = generator.integers(0, 20, 300), generator.integers(0, 2, 300)
    found = estimation.expected_auc(score, label.astype(float))
    assert found == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    assert math.isnan(estimation.expected_auc(score, np.ones(300)))


@pytest.mark.parametrize("values", [1000, 5, 1])
@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_a_threshold_is_exact_on_its_own_rows(values: int, share: float) -> None:
    generator = np.random.default_rng(1)
    confidence = generator.integers(0, values, 200) / values
    right = generator.random(200) < share
    threshold = estimation.confidence_threshold(confidence, right)
    assert 1 - threshold.wrong(confidence).mean() == pytest.approx(right.mean(), abs=1e-12)
    assert 0 <= threshold.weight <= 1
    found = estimation.estimate_by_threshold(confidence, right, confidence, resamples=2)
    assert found.value == pytest.approx(right.mean(), abs=1e-12)


def test_a_threshold_is_the_definitions() -> None:
    """Garg's: the share of held-out rows below it is their share of errors."""
    confidence = np.array([0.5, 0.6, 0.7, 0.8, 0.9])
    right = np.array([True, False, True, False, True])
    threshold = estimation.confidence_threshold(confidence, right)
    assert (confidence < threshold.value).sum() == 2
    assert threshold == estimation.Threshold(0.7, 0.0)


def test_bins_are_means_of_equally_many_rows() -> None:
    generator = np.random.default_rng(2)
    said = generator.random(200)
    outcome = generator.random(200) < said
    found = estimation.calibrator(said, outcome)
    parts = np.array_split(np.argsort(said), 10)
    np.testing.assert_allclose(found.said, [said[part].mean() for part in parts])
    np.testing.assert_allclose(found.was, [outcome[part].mean() for part in parts])
    middle = (found.said[3] + found.said[4]) / 2
    assert found(np.array([middle]))[0] == pytest.approx((found.was[3] + found.was[4]) / 2)
    assert found(np.array([0.0, 1.0])).tolist() == [found.was[0], found.was[-1]]


def test_equal_probabilities_share_a_bin() -> None:
    found = estimation.calibrator(np.repeat([0.9, 1.0], [10, 90]), np.arange(100) % 2)
    np.testing.assert_allclose(found.said, [0.9, 1.0])
    assert found.was.tolist() == [0.5, 0.5]


def drawn(generator: np.random.Generator, rows: int, mean: float) -> tuple[Any, Any]:
    """What an overconfident model says of rows, and their labels."""
    x = generator.normal(mean, 1.5, rows)
    return 1 / (1 + np.exp(-2 * x)), generator.random(rows) < 1 / (1 + np.exp(-x))


def sure(said: Any) -> Any:
    return np.maximum(said, 1 - said)


def estimates(seed: int, held_out: int, rows: int, shift: float) -> list[tuple[float, Any]]:
    """What turned out and what was estimated: accuracy in two ways, and the area."""
    generator = np.random.default_rng(seed)
    (before, label), (said, later) = (
        drawn(generator, held_out, 0.3),
        drawn(generator, rows, 0.3 - shift),
    )
    right = (before > 0.5) == label
    accuracy, few = float(((said > 0.5) == later).mean()), {"resamples": 60}
    return [
        (accuracy, estimation.estimate_by_threshold(sure(before), right, sure(said), **few)),
        (accuracy, estimation.estimate_accuracy(sure(before), right, sure(said), **few)),
        (roc_auc_score(later, said), estimation.estimate_auc(before, label, said, **few)),
    ]


def test_the_area_of_rows_of_one_class_is_not_estimated() -> None:
    generator = np.random.default_rng(0)
    said = generator.uniform(0, 1, 400)
    label = said + generator.normal(0, 0.1, 400) > 0.5  # of the surest rows all are positive
    sure = np.full(300, said.max())
    assert estimation.estimate_auc(said, label, sure, resamples=40) is None
    mixed = np.concatenate([sure, said])
    assert estimation.estimate_auc(said, label, mixed, resamples=40) is not None


def test_an_estimate_follows_the_inputs_and_is_the_same_twice() -> None:
    easy, hard = np.full(500, 0.97), np.full(500, 0.6)
    generator = np.random.default_rng(3)
    held_out = generator.uniform(0.5, 1, 2000)
    right = generator.random(2000) < held_out
    for estimate in (estimation.estimate_accuracy, estimation.estimate_by_threshold):
        low, high = (estimate(held_out, right, rows, resamples=50) for rows in (hard, easy))
        assert low.interval[1] < high.interval[0]
        assert low == estimate(held_out, right, hard, resamples=50)
    spread = generator.uniform(0.5, 1, 500)
    one, two = (
        estimation.estimate_accuracy(held_out, right, spread, resamples=50, seed=seed)
        for seed in (0, 1)
    )
    assert one.value == two.value
    assert one.error != two.error
    assert 0 < one.calibration_error < one.error
    assert one.value == pytest.approx(spread.mean(), abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("held_out", "rows", "shift"), [(300, 1000, 0.0), (1000, 1000, 0.7), (1000, 5000, 0.0)]
)
def test_intervals_hold_what_turns_out(held_out: int, rows: int, shift: float) -> None:
    """Measured over 120 draws each: 0.93 to 0.98 of the intervals at 0.95."""
    found = [estimates(seed, held_out, rows, shift) for seed in range(120)]
    for which in range(3):
        pairs = [one[which] for one in found]
        inside = [e.interval[0] <= truth <= e.interval[1] for truth, e in pairs]
        assert np.mean(inside) >= 0.90
        bias = np.mean([e.value - truth for truth, e in pairs])
        assert abs(bias) <= 0.008
        assert np.mean([e.error for _, e in pairs]) <= 0.05, "and are not merely wide"
