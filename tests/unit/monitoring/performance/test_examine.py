"""One alarm, yes or no, with its reason: by labels that came, and before they come."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from perennial.errors import ConfigError, DataError
from perennial.monitoring.performance import (
    HeldOut,
    Performance,
    Record,
    estimated,
    examine_performance,
    join,
    recorded,
    thresholds,
)
from perennial.statistics.estimation import calibrator

NOW = datetime(2026, 1, 8, tzinfo=UTC)
WEEK = timedelta(weeks=1)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer lives: here it matters what follows from thresholds."""
    monkeypatch.setattr(thresholds, "_SIMULATED", 40_000)
    monkeypatch.setattr(thresholds, "_thresholds", thresholds._thresholds.__wrapped__)


class World:
    """A binary model that is as often right as it says, until inputs or their meaning change."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = np.random.default_rng(seed)

    def rows(self, count: int, *, hard: float = 0.0, concept: float = 0.0) -> tuple[Any, Any, Any]:
        """Predicted class, confidence and whether it was right (N,)."""
        x = self.generator.normal(1.5 - hard, 1, count)
        sure = 1 / (1 + np.exp(-2 * np.abs(x)))
        right = self.generator.random(count) < sure - concept
        return (x > 0).astype(int), sure, right.astype(float)

    def held_out(self, count: int = 1000) -> HeldOut:
        predicted, sure, right = self.rows(count)
        return HeldOut(right, sure, predicted, 2)

    def weeks(self, *changes: dict[str, float], rows: int = 300, late: int = 1) -> list[Record]:
        """Windows of a week each; labels come so many weeks late."""
        records: dict[str, Record] = {}
        scores = []
        for week, change in enumerate(changes):
            predicted, sure, right = self.rows(rows, **change)
            ids = np.array([f"w{week}-{row}" for row in range(rows)])
            step = np.timedelta64(7 * 86_400 // rows, "s")
            start = np.datetime64("2026-01-01T00:00:00") + np.timedelta64(7 * week, "D")
            now = NOW + week * WEEK
            records[f"w{week}"] = recorded(
                ids, predicted, confidence=sure, time=start + np.arange(rows) * step,
                now=now, where="data.new",
            )  # fmt: skip
            scores.append((ids, right))
            if week >= late:
                ids, right = scores[week - late]
                records |= join(records, ids, right, now=now, where="labels").changed
        return list(records.values())


def examined(held_out: HeldOut, records: list[Record], **changes: Any) -> Performance:
    found = examine_performance(held_out, records, **({"false_alarms_per_year": 2.0} | changes))
    json.dumps(found.to_dict(), allow_nan=False)
    return found


def test_detectors_and_the_estimate_share_the_false_alarms() -> None:
    world = World()
    sure = world.held_out()
    unsure, weeks = HeldOut(sure.score), world.weeks({}, {}, {})
    alone, beside = (
        examined(held, weeks, false_alarms_per_year=rate).watched["thresholds"]
        for held, rate in ((unsure, 2.0), (sure, 3.0))
    )
    assert alone == beside, "a half of 2 and a third of 3 are one alarm a year of each detector"


def test_while_nothing_changes_there_is_no_alarm() -> None:
    world = World()
    known = world.held_out()
    found = examined(known, world.weeks(*[{}] * 6))
    assert not found.alarm
    assert found.reason.endswith("on held-out rows; no alarm")
    assert (found.scored, found.waiting) == (1500, 300)
    assert found.now is not None
    assert found.now.n == 1000
    assert found.rhythm.windows == pytest.approx(52.2, abs=0.1)
    assert [one.how for one in found.estimated] == [
        estimated.CALIBRATED, estimated.THRESHOLD, estimated.AREA,
    ]  # fmt: skip
    assert known.predicted is not None
    assert known.confidence is not None
    label = np.where(known.score == 1, known.predicted, 1 - known.predicted)
    said = np.where(known.predicted == 1, known.confidence, 1 - known.confidence)
    area = found.estimated[2]
    assert area.then == pytest.approx(roc_auc_score(label, said), abs=1e-12)
    assert area.now.interval[0] < area.then < area.now.interval[1]
    kept = found.to_dict()
    assert "cannot see concept drift" in kept["estimated"]["caution"]
    assert kept["watched"]["thresholds"].keys() == {"ADWIN", "Page–Hinkley"}
    mean, interval = kept["realised"]["then"]["mean"], kept["realised"]["then"]["interval"]
    assert interval[0] < mean < interval[1]


def test_labels_show_concept_drift_where_and_since_when_and_confidence_does_not() -> None:
    world = World()
    held_out, worse = world.held_out(), {"concept": 0.15}
    found = examined(held_out, world.weeks({}, {}, {}, worse, worse, worse))
    assert found.alarm
    first = found.alarms[0]
    assert first.before - first.after > 0.08
    assert first.row_id.startswith(("w3", "w4"))
    assert first.time is not None
    assert first.time >= "2026-01-22"
    assert first.since is not None
    assert "2026-01-18" < first.since < "2026-01-26", "it began on the 22nd"
    assert f"mean since {first.since} until" in found.reason
    assert first.since_row_id not in found.reason
    assert not any(one.is_low for one in found.estimated)
    now, then = found.now, found.then
    assert now is not None
    assert now.interval is not None
    assert now.interval[1] < then.mean


def test_harder_inputs_are_seen_before_their_labels_and_said_with_the_interval() -> None:
    world = World()
    held_out, records = world.held_out(), world.weeks({}, {}, {}, {"hard": 1.0})
    found = examined(held_out, records)
    assert found.alarm
    assert not found.alarms
    assert "of the newest window is estimated at" in found.reason
    low = found.estimated[0]
    assert low.is_low
    assert low.level is not None
    assert low.now.interval[0] < low.now.value < low.level < low.then
    # once most of its labels have come, these decide
    scored = join(
        {"w": records[-1]}, records[-1].id, np.ones(300), now=NOW + 9 * WEEK, where="labels"
    ).changed["w"]
    assert not examined(held_out, [*records[:-1], scored]).alarm
    # and a cycle that came after the window has answered it
    assert not examined(held_out, records, since=NOW + 9 * WEEK).alarm


def test_what_a_cycle_answered_alarms_again_only_by_labels_that_came_later() -> None:
    world = World()
    held_out, worse = world.held_out(), {"concept": 0.15}
    records = world.weeks({}, {}, worse, worse, worse, worse)
    assert examined(held_out, records).alarm
    assert not examined(held_out, records, since=NOW + 9 * WEEK).alarm
    assert examined(held_out, records, since=NOW + 3 * WEEK).alarm, "it is still worse"


def test_a_drop_smaller_than_what_matters_is_no_alarm() -> None:
    world = World()
    held_out, worse = world.held_out(), {"concept": 0.15, "hard": 0.5}
    records = world.weeks({}, {}, worse, worse, worse)
    assert examined(held_out, records).alarm
    assert not examined(held_out, records, smallest_drop=0.5).alarm


def test_a_score_that_is_no_share_is_watched_as_well() -> None:
    generator = np.random.default_rng(1)
    held_out = HeldOut(-generator.exponential(2, 500), score_name="minus error")
    ids = np.array([f"r{row}" for row in range(600)])
    score = -generator.exponential(np.repeat([2.0, 5.0], 300))
    record = recorded(ids, score, now=NOW, where="data.new")
    record = join({"w": record}, ids, score, now=NOW, where="labels").changed["w"]
    found = examined(held_out, [record], windows_per_year=12)
    assert found.alarm
    assert found.reason.startswith("minus error fell from -2")
    assert 300 <= found.alarms[0].row < 400
    assert found.estimated == ()
    assert "no probability of one class" in found.to_dict()["estimated"]["missing"]


def test_what_cannot_be_told_is_said_and_never_no_alarm() -> None:
    world = World()
    held_out = world.held_out()
    with pytest.raises(DataError, match="Nothing that the champion predicted was recorded"):
        examined(held_out, [])
    three = world.weeks({}, {}, rows=3)
    with pytest.raises(DataError, match=r"labels have come of 3 rows.*a window of 3 rows"):
        examined(held_out, three)
    plain = HeldOut(held_out.score)
    with pytest.raises(DataError, match=r"labels have come of 0 rows.*no probability"):
        examined(plain, world.weeks({}))
    with pytest.raises(DataError, match=r"one and the same score"):
        examined(HeldOut(np.full(90, 0.5)), world.weeks({}, {}))
    assert not examined(held_out, world.weeks({})).alarm, "an estimate is enough"
    few = HeldOut(held_out.score[:40], held_out.confidence[:40], held_out.predicted[:40], 2)  # type: ignore[index]
    assert "40 held-out rows are too few" in examined(few, world.weeks({}, {})).unestimated
    right = HeldOut(np.ones(90), np.full(90, 0.9), np.zeros(90, int), 2)
    assert "right on every held-out row" in examined(right, world.weeks({}, {})).unestimated


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"false_alarms_per_year": 0}, "false_alarms_per_year is 0"),
        ({"smallest_drop": -1}, "smallest_drop is -1"),
        ({"windows_per_year": 0}, "every is 0"),
    ],
)
def test_settings_out_of_range_are_said(change: dict[str, float], name: str) -> None:
    world = World()
    with pytest.raises(ConfigError, match=name):
        examined(world.held_out(), world.weeks({}, {}), **change)


@pytest.mark.slow
@pytest.mark.parametrize(("held_out", "rows"), [(300, 300), (1000, 300), (300, 3000)])
def test_an_estimate_alarms_as_rarely_as_it_may(held_out: int, rows: int) -> None:
    """At 5% of windows 50 of 1,000 are allowed, and 60 are 1.2 times as many."""
    low = 0
    for seed in range(1000):
        world = World(seed)
        known = world.held_out(held_out)
        predicted, sure, _ = world.rows(rows)
        record = recorded(
            np.arange(rows).astype(str), predicted, confidence=sure, now=NOW, where="data.new"
        )
        limit = known.score.mean() - 1.6449 * estimated._error_of_distance(known, record)
        assert known.confidence is not None
        low += calibrator(known.confidence, known.score)(record.confidence).mean() < limit
    assert 20 <= low <= 60
