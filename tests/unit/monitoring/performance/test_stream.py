"""Errors in order of time, their scale and their rhythm."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from perennial.errors import ConfigError, EvaluationError
from perennial.monitoring.performance import HeldOut, Record, join, recorded
from perennial.monitoring.performance.stream import ordered, rhythm, scale

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def window(prefix: str, *, time: Any, day: int = 0, score: Any = None) -> Record:
    """A window of 4 rows, scored the day after."""
    ids = np.array([f"{prefix}{row}" for row in range(4)])
    record = recorded(ids, np.zeros(4, int), time=time, now=NOW + day * DAY, where="data.new")
    if score is None:
        return record
    joined = join({"w": record}, ids, np.array(score), now=NOW + (day + 1) * DAY, where="labels")
    return joined.changed["w"]


def test_rows_come_in_order_of_time_else_of_arrival() -> None:
    times = (np.array([5, 1, 9, 1]), np.array([4, 6, 8, 10]))
    a = window("a", time=times[0], score=[0.1, 0.2, 0.3, 0.4])
    b = window("b", time=times[1], day=1, score=[0.5, 0.6, 0.7, 0.8])
    found = ordered([a, b])
    assert found.id.tolist() == ["a1", "a3", "b0", "a0", "b1", "b2", "a2", "b3"]
    assert found.score.tolist() == [0.2, 0.4, 0.5, 0.1, 0.6, 0.7, 0.3, 0.8]
    assert found.when(2) == "4"
    c, d = window("a", time=None, score=[1] * 4), window("b", time=None, day=1, score=[1] * 4)
    untimed = ordered([c, d])
    assert untimed.id.tolist() == [*c.id, *d.id]
    assert untimed.when(0) is None
    for unit in ("D", "ns"):
        dates = np.full(4, "2026-03-01", dtype=f"datetime64[{unit}]")
        assert ordered([window("a", time=dates, score=[1] * 4)]).when(0) == "2026-03-01T00:00:00"


def test_rows_without_label_are_left_out_and_others_count_once() -> None:
    a = window("a", time=None, score=[0, 1, 1, 1])
    again = window("a", time=None, day=1, score=[0, 1, 1, 1])
    waiting = window("b", time=None, day=2)
    assert ordered([a, again, waiting]).id.tolist() == a.id.tolist()
    assert len(ordered([waiting])) == len(ordered([])) == 0


def test_rows_that_a_cycle_answered_for_are_left_out() -> None:
    a, b = (window(one, time=None, day=day, score=[1] * 4) for one, day in (("a", 0), ("b", 5)))
    assert ordered([a, b], since=NOW + 3 * DAY).id.tolist() == b.id.tolist()
    assert len(ordered([a, b], since=NOW + 6 * DAY)) == 0


def test_the_rhythm_is_that_of_times_else_of_recording_else_asked_for() -> None:
    days = np.arange("2026-03-01", "2026-03-09", dtype="datetime64[D]")
    a = window("a", time=days[:4], score=[1] * 4)
    b = window("b", time=days[4:], day=30)
    found = rhythm([a, b], windows_per_year=None)
    assert found.windows == pytest.approx(2 * 365.25 / 7), "two windows in seven days"
    assert found.rows == pytest.approx(4 * 365.25 / 3), "four scored rows in three days"
    assert rhythm([a, b], windows_per_year=12) == type(found)(12, found.rows)
    c, d = window("a", time=None), window("b", time=np.arange(4), day=7)
    found = rhythm([c, d], windows_per_year=None)
    assert found.windows == pytest.approx(365.25 / 7)
    assert found.rows == 0
    scored = window("c", time=None, day=14, score=[1] * 4)
    assert rhythm([c, d, scored], windows_per_year=12).rows == 48
    assert rhythm([c], windows_per_year=12).windows == 12
    with pytest.raises(ConfigError, match=r"trigger\.every"):
        rhythm([c], windows_per_year=None)


def test_errors_have_mean_0_and_variance_1_while_all_is_as_it_was() -> None:
    generator = np.random.default_rng(0)
    for draw in (lambda n: generator.random(n) < 0.9, lambda n: -generator.exponential(3, n)):
        held_out, later = (np.asarray(draw(n), dtype=float) for n in (20_000, 200_000))
        measured = scale(HeldOut(held_out))
        assert measured is not None
        for block in (1, 7):
            errors = measured.errors(later, block)
            assert len(errors) == 200_000 // block
            assert errors.mean() == pytest.approx(0, abs=0.03 * np.sqrt(block))
            assert errors.std() == pytest.approx(1, abs=0.03)
    worst = measured.errors(np.array([-1e9]), 1)
    assert worst[0] < 10, "one row counts no more than a wrong one"


def test_a_version_that_was_always_right_has_a_spread_and_a_constant_score_has_none() -> None:
    found = scale(HeldOut(np.ones(99)))
    assert found is not None
    assert found.mean == pytest.approx(99.5 / 100)
    assert scale(HeldOut(np.full(99, 0.3))) is None
    assert scale(HeldOut(np.array([0.3]))) is None


def test_a_task_without_a_score_per_row_is_said() -> None:
    with pytest.raises(EvaluationError, match="no score for each row"):
        HeldOut(np.array([0.5, np.nan]))
