from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from perennial.reporting import plots
from perennial.types import EvaluationReport, Predictions


@pytest.mark.parametrize(
    "values", [[96.1, 97.0], [0.0, 0.0], [100.0], [50.0, 51.0], [3.0, 97.0], [78.0, 99.9], [2.0]]
)
def test_an_axis_is_twenty_points_wide_at_least_and_shows_every_value(values: list[float]) -> None:
    low, high = plots._window(values)
    assert low < min(values) <= max(values) < high
    assert high - low >= 20
    assert low >= -4
    assert high <= 104
    # no wider than it must be
    assert high - low <= max(20, max(values) - min(values) + 10) * 1.061


def colours(svg: str) -> set[str]:
    return set(re.findall(r"#[0-9a-f]{6}", svg))


def test_one_language_of_colours() -> None:
    truth = np.zeros(40, dtype=np.int64)
    wrong = np.arange(40) % 4 == 0

    def predictions(prediction: Any) -> Predictions:
        said = np.eye(2)[prediction] * 0.8 + 0.1
        return Predictions(prediction, (prediction == truth).astype(float), np.zeros(40), said)

    report = EvaluationReport(
        row_id=np.array([f"r{i}" for i in range(40)]),
        cluster=np.array([f"r{i}" for i in range(40)]),
        holdout=np.where(np.arange(40) < 20, "new", "history/cycle-1"),
        label=truth,
        seen_by_champion=np.zeros(40, dtype=bool),
        champion=predictions(wrong.astype(np.int64)),
        candidate=predictions(truth),
        label_names=("a", "b"),
    )
    models, origins = {plots.CHAMPION, plots.CANDIDATE}, {plots.NEW, plots.HISTORY}
    curve = plots.learning_curve(
        [{"step": i, "new": 0.1 * i, "history": 0.9} for i in range(3)], plots.Score()
    )
    shown = {
        "new": plots.per_class(report, new=True),
        "history": plots.per_class(report, new=False),
        "reliability": plots.reliability(report, new=True),
    }
    for name, svg in shown.items():
        assert models <= colours(svg), name
        assert not origins & colours(svg), name
        assert plots.LOSS not in colours(svg), name
    versions = [{"number": i, "served": i > 1, "new": 0.9, "history": 0.8} for i in range(3)]
    for svg in (curve, plots.course(versions, plots.Score())):
        assert origins <= colours(svg)
        assert not models & colours(svg)
    worse = dataclasses.replace(report, champion=report.candidate, candidate=report.champion)
    assert {plots.LOSS, *models} <= colours(plots.per_class(worse, new=True))


@pytest.mark.parametrize("rows", [1, 40, 500])
def test_confidence_bins_are_those_of_a_loop(rows: int) -> None:
    generator = np.random.default_rng(rows)
    confidence = generator.uniform(0.3, 1.0, rows)
    confidence[0] = 1.0
    right = generator.random(rows) < confidence
    expected = []
    for low in range(10):
        members = [
            (c, r)
            for c, r in zip(confidence, right, strict=True)
            if low <= 10 * c < low + 1 or (low == 9 and c == 1.0)
        ]
        if members:
            means = np.mean(np.array(members, dtype=float), axis=0)
            expected.append((*means, len(members)))
    found = np.stack(plots.confidence_bins(confidence, right), axis=1)
    np.testing.assert_allclose(found, np.array(expected))


def test_what_cannot_be_seen_is_said() -> None:
    curve = plots.learning_curve([{"step": i, "new": 0.1 * i} for i in range(3)], plots.Score())
    assert 'role="img" aria-label="Accuracy of new and history validation rows' in curve
    versions = [
        {"number": 1, "served": True, "new": None, "history": 0.8},
        {"number": 2, "served": False, "new": 0.5, "history": 0.7},
    ]
    told = "version 1, history 80.0%; version 2, new 50.0%, history 70.0%, never served"
    assert told in plots.course(versions, plots.Score())
