"""Calibration against torchmetrics and loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torchmetrics.functional.classification import multiclass_calibration_error

from perennial import statistics

Array = np.ndarray[Any, Any]


def made(rows: int, *, sharpness: float = 1.0, seed: int = 0) -> tuple[Array, Array]:
    """Probabilities (N, 4) that are well calibrated at a sharpness of 1, and labels (N,)."""
    generator = np.random.default_rng(seed)
    logits = 1.5 * generator.normal(size=(rows, 4))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    label = (generator.random((rows, 1)) > true.cumsum(axis=1)).sum(axis=1)
    said = np.exp(sharpness * logits)
    return said / said.sum(axis=1, keepdims=True), label


@pytest.mark.parametrize("bins", [10, 15])
@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_expected_calibration_error_is_torchmetrics(sharpness: float, bins: int) -> None:
    probabilities, label = made(500, sharpness=sharpness)
    expected = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(label), num_classes=4, n_bins=bins
    )
    found = statistics.expected_calibration_error(probabilities, label, bins=bins)
    assert found == pytest.approx(float(expected), abs=1e-6)


def test_certainty_and_weights() -> None:
    certain = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    label = np.array([0, 1, 1])
    assert statistics.expected_calibration_error(certain, label) == pytest.approx(1 / 3)
    probabilities, label = made(50)
    times = np.random.default_rng(1).integers(0, 4, 50)
    weighted = statistics.expected_calibration_error(
        probabilities, label, weight=times.astype(float)
    )
    repeated = statistics.expected_calibration_error(
        probabilities.repeat(times, axis=0), label.repeat(times)
    )
    assert weighted == pytest.approx(repeated)


def test_a_change_has_the_error_of_a_bootstrap_of_clusters() -> None:
    before, label = made(300)
    after, _ = made(300, sharpness=2.0)
    cluster = np.arange(300) // 3
    found = statistics.calibration_change(
        before, after, label, cluster, alpha=0.05, threshold=0.02, resamples=400, seed=5
    )
    weights = np.random.default_rng(5).multinomial(100, np.full(100, 0.01), size=400)
    changes = [
        statistics.expected_calibration_error(after, label, weight=w.repeat(3))
        - statistics.expected_calibration_error(before, label, weight=w.repeat(3))
        for w in weights.astype(float)
    ]
    assert found.error == pytest.approx(np.std(changes, ddof=1), rel=1e-9)
    change = statistics.expected_calibration_error(
        after, label
    ) - statistics.expected_calibration_error(before, label)
    assert found.estimate == pytest.approx(change)
    assert found.interval == pytest.approx(stats.norm.interval(0.9, change, found.error), abs=1e-12)
    assert found.p_above == pytest.approx(stats.norm.cdf(0.02, change, found.error))
    assert found.p_below == pytest.approx(stats.norm.sf(0.02, change, found.error))


def test_chunks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    before, label = made(200)
    after, _ = made(200, sharpness=1.5)

    def change() -> float:
        return statistics.calibration_change(
            before, after, label, np.arange(200), alpha=0.05, threshold=0.0, resamples=60
        ).error

    whole = change()
    monkeypatch.setattr("perennial.statistics.calibration._CHUNK", 8 * 200 * 7)
    assert change() == pytest.approx(whole, rel=1e-9)


def test_the_same_probabilities_change_nothing() -> None:
    before, label = made(60)
    found = statistics.calibration_change(
        before, before, label, np.arange(60), alpha=0.05, threshold=0.0
    )
    assert (found.estimate, found.error, found.p_above, found.p_below) == (0.0, 0.0, 1.0, 1.0)


def test_models_calibrated_alike_are_seldom_told_apart() -> None:
    """Each knows one of two equal halves of what the label depends on."""
    generator = np.random.default_rng(0)
    trials, rows, worse, better = 400, 500, 0, 0
    for _ in range(trials):
        halves = generator.normal(size=(2, rows, 4))
        true = np.exp(halves.sum(axis=0))
        true /= true.sum(axis=1, keepdims=True)
        label = (generator.random((rows, 1)) > true.cumsum(axis=1)).sum(axis=1)
        before, after = (np.exp(half) / np.exp(half).sum(axis=1, keepdims=True) for half in halves)
        found = statistics.calibration_change(
            before, after, label, np.arange(rows), alpha=0.05, threshold=0.0, resamples=200
        )
        worse, better = worse + (found.p_above <= 0.05), better + (found.p_below <= 0.05)
    assert 0.01 < worse / trials < 0.08
    assert 0.01 < better / trials < 0.08
