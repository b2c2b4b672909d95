"""River's detectors after held-out rows, their thresholds, and when the change was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from river import drift

from perennial.monitoring.performance import detectors, stream, thresholds
from perennial.monitoring.performance.stream import HeldOut, Rhythm


def binary(generator: np.random.Generator, rows: int, share: float = 0.9) -> Any:
    return (generator.random(rows) < share).astype(float)


def skewed(generator: np.random.Generator, rows: int) -> Any:
    return -generator.exponential(1.0, rows)


@pytest.mark.parametrize("shift", [0.0, 0.6, -0.6])
def test_alarms_are_rivers_and_of_rises_alone(shift: float) -> None:
    generator = np.random.default_rng(1)
    before = generator.normal(size=400)
    errors = np.concatenate([generator.normal(size=800), generator.normal(shift, 1, 800)])
    adwin, found = drift.ADWIN(delta=0.002, clock=1), []
    for at, value in enumerate([*before, *errors]):
        adwin.update(value)
        if adwin.drift_detected:
            found.append(at - 400)
    mine = detectors.alarms(detectors.ADWIN, before, errors, threshold=0.002)
    assert mine == ([at for at in found if at >= 0] if shift > 0 else [])
    assert bool(found) == (shift != 0)
    hinkley, found = drift.PageHinkley(delta=0.1, threshold=25, alpha=1.0, mode="up"), []
    for at, value in enumerate([*before, *errors]):
        hinkley.update(value)
        if hinkley.drift_detected and at >= 400:
            found.append(at - 400)
    mine = detectors.alarms(detectors.PAGE_HINKLEY, before, errors, threshold=25, slack=0.1)
    assert mine == found
    assert bool(mine) == (shift > 0)


def test_a_version_that_is_worse_from_its_first_row_on_is_seen() -> None:
    generator = np.random.default_rng(2)
    before, errors = generator.normal(size=500), generator.normal(0.8, 1, 300)
    for kind, threshold in ((detectors.ADWIN, 0.05), (detectors.PAGE_HINKLEY, 20.0)):
        settings = {"threshold": threshold, "slack": 0.1}
        assert detectors.alarms(kind, before, errors, **settings)[0] < 150
        assert not detectors.alarms(kind, before[:0], errors, **settings)


def test_the_change_is_where_the_likelihood_says() -> None:
    generator = np.random.default_rng(3)
    for _ in range(5):
        before, errors = generator.normal(size=20), generator.normal(size=60)
        errors[35:] += 1.5
        points = np.concatenate([before, errors])

        def fit(at: int, points: Any = points) -> float:
            left, right = points[:at], points[at:]
            if right.mean() <= left.mean():
                return np.inf
            return float(((left - left.mean()) ** 2).sum() + ((right - right.mean()) ** 2).sum())

        best = min(range(20, 80), key=fit) - 20
        assert detectors.changed_at(before, errors) == best
        assert abs(best - 35) <= 6
    assert detectors.changed_at(np.array([]), np.array([1.0])) == 0


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer lives: here it matters that thresholds are found, not how exactly."""
    monkeypatch.setattr(thresholds, "_SIMULATED", 40_000)
    monkeypatch.setattr(thresholds, "_thresholds", thresholds._thresholds.__wrapped__)


def watched(held_out: HeldOut, rows: float, rate: float, **changes: Any) -> Any:
    measured = stream.scale(held_out)
    assert measured is not None
    settings: dict[str, Any] = {"rate": rate, "smallest_drop": 0.01}
    return thresholds.watch(held_out, measured, Rhythm(52, rows), **(settings | changes))


def test_thresholds_are_the_same_twice_and_rise_as_alarms_may_be_rarer(short: None) -> None:
    held_out = HeldOut(binary(np.random.default_rng(4), 400))
    often, again, near, rare = (
        watched(held_out, rows, rate) for rows, rate in ((3000, 6), (3000, 6), (3050, 6), (3000, 1))
    )
    assert often == again == near, "a few rows more a year change nothing"
    assert rare.thresholds[detectors.ADWIN] < often.thresholds[detectors.ADWIN]
    hinkley = detectors.PAGE_HINKLEY
    assert rare.thresholds[hinkley] > often.thresholds[hinkley] > 0
    assert watched(held_out, 3000, 6, seed=1).thresholds != often.thresholds


def test_many_rows_are_taken_in_blocks_as_far_as_the_held_out_rows_allow(short: None) -> None:
    generator = np.random.default_rng(5)
    few, many = (HeldOut(binary(generator, rows)) for rows in (300, 4000))
    assert watched(few, 500, 2).block == 1
    assert watched(few, 200_000, 2).block == 3
    assert watched(many, 200_000, 2).block == 37
    wide = watched(many, 20_000, 2, smallest_drop=0.2)
    assert wide.block == 4
    assert wide.slack == pytest.approx(2 * 0.1 / 0.3, rel=0.05), "half the drop, of a point's error"


def false_alarms(
    draw: Callable[..., Any], *, held_out: int, rows: int, rate: float, lives: int
) -> dict[str, float]:
    """Of each detector a year, over five years after each of some holdouts."""
    counts = dict.fromkeys(detectors.KINDS, 0)
    for life in range(lives):
        generator = np.random.default_rng(1000 + life)
        known = HeldOut(draw(generator, held_out))
        measured, watch = stream.scale(known), watched(known, rows, rate)
        assert measured is not None
        before = thresholds.points_before(known, measured, watch.block)
        for _ in range(5):
            errors = measured.errors(draw(generator, rows), watch.block)
            for kind, threshold in watch.thresholds.items():
                counts[kind] += len(
                    detectors.alarms(kind, before, errors, threshold=threshold, slack=watch.slack)
                )
    return {kind: count / (5 * lives) for kind, count in counts.items()}


@pytest.mark.slow
@pytest.mark.parametrize("draw", [binary, skewed])
def test_false_alarms_are_as_frequent_as_they_may_be(draw: Callable[..., Any]) -> None:
    """About 150 alarms are allowed, of which 1.2 times as many are two standard errors and more."""
    found = false_alarms(draw, held_out=500, rows=2000, rate=3.0, lives=10)
    for kind, count in found.items():
        assert 0.4 * 3 < count <= 1.2 * 3, kind
