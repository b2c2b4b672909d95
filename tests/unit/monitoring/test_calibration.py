"""Divisions of a reference into windows, and the probability that is asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from perennial.errors import ConfigError
from perennial.monitoring.calibration import (
    PHASES,
    Calibration,
    clusters,
    rhythm,
    stretches,
    tiles,
    vouched,
)


def test_a_rate_and_a_rhythm_are_a_probability() -> None:
    weekly = Calibration(false_alarms_per_year=2, every=timedelta(weeks=1))
    assert weekly.probability == pytest.approx(2 * 7 / 365.25)


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("false_alarms_per_year", 0, "above 0"),
        ("every", timedelta(0), "a time above 0"),
        ("minimum_effect", 1.0, "in \\[0, 1\\)"),
        ("draws", 99, "at least 100"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Calibration(**{setting: value})  # type: ignore[arg-type]


def test_more_false_alarms_than_windows_are_refused() -> None:
    with pytest.raises(ConfigError, match="more than every other of 12"):
        Calibration(false_alarms_per_year=7, every=timedelta(days=30.4))


def test_the_rhythm_is_measured() -> None:
    days = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 8, 15, 16, 22, 29)]
    assert rhythm(days) == timedelta(days=7)
    with pytest.raises(ConfigError, match="cannot be measured"):
        rhythm(days[:1] * 3)


def test_stretches_tile_the_time_from_several_beginnings() -> None:
    generator = np.random.default_rng(0)
    order = generator.permutation(220) * 3
    count = tiles(220, 40, draws=400)
    assert count == 4
    masks = stretches(order, size=40, count=count, generator=generator)
    assert (masks.sum(axis=1) == 40).all()
    by_time = masks[:, np.argsort(order)].astype(int)
    assert (np.abs(np.diff(by_time, axis=1)).sum(axis=1) <= 2).all(), "each is one stretch"
    starts = by_time.argmax(axis=1).reshape(PHASES, count)
    for phase, found in enumerate(starts):
        assert ((found - 10 * phase) % 40 == 0).all()
        assert len(set(found.tolist())) == count, "none twice"


@pytest.mark.parametrize("rows", [100, 101, 150, 399])
def test_there_is_a_stretch_of_each_beginning_however_short_the_time(rows: int) -> None:
    generator = np.random.default_rng(0)
    size = min(rows // 2, 90)
    count = tiles(rows, size, draws=400)
    masks = stretches(np.arange(rows), size=size, count=count, generator=generator)
    assert masks.shape == (PHASES * count, rows)
    assert (masks.sum(axis=1) == size).all()


def test_without_time_clusters_go_together() -> None:
    generator = np.random.default_rng(0)
    cluster = np.repeat(np.arange(50), 4).astype(str)
    masks = clusters(cluster, size=40, draws=30, generator=generator)
    assert (masks.sum(axis=1) == 40).all()
    assert (masks.reshape(30, 50, 4).all(axis=2).sum(axis=1) == 10).all()
    assert len(np.unique(masks, axis=0)) == 30


def test_a_window_counts_for_what_the_reference_can_show() -> None:
    assert vouched(1000, sampled=2000, total=2000, has_time=True) == 1000
    assert vouched(1500, sampled=2000, total=2000, has_time=True) == 1000
    assert vouched(1000, sampled=2000, total=20_000, has_time=True) == 100
    assert vouched(100, sampled=2000, total=200_000, has_time=True) == 30
    assert vouched(20, sampled=2000, total=200_000, has_time=True) == 20
