"""When a cycle is due: schedules, limits and combinations, at times that the tests set."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from perennial.errors import ConfigError
from perennial.monitoring.triggers import (
    AllOf,
    AnyOf,
    Continuous,
    Drift,
    Firing,
    Limited,
    Manual,
    Past,
    Performance,
    Schedule,
    Situation,
    Trigger,
)

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)  # a Thursday


class Told:
    """Answers as it is told, and notes that it was asked."""

    kind = "told"

    def __init__(self, due: bool, *needs: str) -> None:
        self.due, self.needs, self.asked = due, frozenset(needs), 0

    def early(self, situation: Situation) -> Firing | None:
        return None if self.needs else self.ask(situation)

    def ask(self, situation: Situation) -> Firing:
        self.asked += 1
        return Firing(kind=self.kind, due=self.due, reason=f"told {self.due}")


def ago(seconds: float | None = None, /, **span: float) -> Past:
    return Past(NOW - timedelta(**span), "rejected", False, seconds)


def at(*past: Past, now: datetime = NOW, rows: int | None = None) -> Situation:
    return Situation(now=now, cycles=past, rows=rows)


def due(trigger: Trigger, *past: Past, now: datetime = NOW, rows: int | None = None) -> bool:
    return trigger.ask(at(*past, now=now, rows=rows)).due


def refused(**settings: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        Schedule(**settings)
    return caught.value


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("61 3 * * 1", "trigger.cron", "minute"),
        ("0 25 * * 1", "trigger.cron", "hour"),
        ("0 3 32 * *", "trigger.cron", "day of month"),
        ("0 3 31 4 *", "trigger.cron", "day of month"),
        ("0 3 * 13 *", "trigger.cron", "month"),
        ("0 3 * * 9", "trigger.cron", "day of week"),
        ("0 3 * *", "trigger.cron", "4 fields"),
        ("0 0 3 * * 1", "trigger.cron", "6 fields"),
        ("@weekly", "trigger.cron", "1 fields"),
        ("", "trigger.cron", "0 fields"),
    ],
)
def test_what_is_wrong_with_a_cron_expression(text: str, where: str, words: str) -> None:
    error = refused(cron=text)
    assert error.where == where
    assert words in error.what
    assert "day of week" in str(error.mend)


@pytest.mark.parametrize("text", ["0d", "-7d", "7", "soon", "", "7 years", "99999999w"])
def test_an_interval_is_a_span_above_0(text: str) -> None:
    error = refused(every=text)
    assert (error.where, text in error.what) == ("trigger.every", True)


@pytest.mark.parametrize("name", ["Europe/Nowhere", "", "..", "Europe", "/etc/passwd"])
def test_an_unknown_timezone(name: str) -> None:
    assert refused(cron="0 3 * * *", timezone=name).where == "trigger.timezone"


def test_a_schedule_is_either_of_both() -> None:
    assert "neither" in refused().what
    assert "both" in refused(cron="0 3 * * *", every="7d").what


SLACK = timedelta(days=7) / 20


def test_an_interval_runs_from_the_last_decision() -> None:
    weekly = Schedule(every="7d")
    assert due(weekly)
    assert due(weekly, ago(days=7))
    assert due(weekly, ago(days=6, hours=16))  # called after 7 days, of which training took 8 hours
    assert due(weekly, ago(hours=7 * 24 * 0.95))
    assert not due(weekly, ago(hours=7 * 24 * 0.95, seconds=-1))
    assert not due(weekly, ago(days=30), ago(days=1))
    firing = weekly.ask(at(ago(days=1)))
    assert firing.earliest == NOW + timedelta(days=6) - SLACK
    assert "2026-12-02 03:36 UTC" in firing.reason
    assert "2026-11-25 12:00 UTC" in firing.reason
    assert firing.to_dict()["evidence"]["earliest"] == "2026-12-02T03:36:00+00:00"


def test_missed_times_are_caught_up_once() -> None:
    daily = Schedule(cron="0 3 * * *")
    assert due(daily, ago(days=9))
    assert not due(daily, ago(days=9), ago(seconds=1))


def test_a_reason_does_not_tell_when_it_was_asked() -> None:
    """A cycle that goes on after it was killed has the same record."""
    weekly = Schedule(cron="0 3 * * 1")
    early, late = (weekly.ask(at(ago(days=9), now=NOW + timedelta(hours=h))) for h in (0, 5))
    assert early == late
    assert early.due


def brute(minute: int, hour: int, weekday: int, zone: str, after: datetime) -> datetime:
    """The next time of a weekly schedule, minute by minute."""
    moment = after.replace(second=0, microsecond=0)
    while True:
        moment += timedelta(minutes=1)
        local = moment.astimezone(ZoneInfo(zone))
        if (local.minute, local.hour, local.isoweekday() % 7) == (minute, hour, weekday):
            return moment


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/New_York"])
def test_cron_in_a_timezone_against_a_walk_through_all_minutes(zone: str) -> None:
    generator = random.Random(0)
    for _ in range(4):
        minute, hour = generator.randrange(60), generator.randrange(4, 24)
        weekday = generator.randrange(7)
        after = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(
            minutes=generator.randrange(60 * 24 * 300)
        )
        schedule = Schedule(cron=f"{minute} {hour} * * {weekday}", timezone=zone)
        assert schedule.after(after) == brute(minute, hour, weekday, zone, after)


def test_a_time_that_summer_time_leaves_out_comes_right_after_it() -> None:
    nightly = Schedule(cron="30 2 * * *", timezone="Europe/Berlin")
    spring = datetime(2026, 3, 29, 0, tzinfo=UTC)  # at 01:00 UTC two o'clock becomes three
    assert nightly.after(spring) == datetime(2026, 3, 29, 1, tzinfo=UTC)


def test_a_time_that_comes_twice_is_taken_once() -> None:
    nightly = Schedule(cron="30 2 * * *", timezone="Europe/Berlin")
    first = nightly.after(datetime(2026, 10, 25, 0, tzinfo=UTC))
    assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert nightly.after(first) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)
    # a cycle that was due the first time, and decided within the hour that comes twice
    for minute in range(61):
        decided = datetime(2026, 10, 25, 1, tzinfo=UTC) + timedelta(minutes=minute)
        assert nightly.after(decided) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "trigger",
    [
        Schedule(every="7d"),
        Limited(Manual(), cooldown="1d"),
        Limited(Manual(), budget={"period": "7d", "cycles": 3}),
    ],
)
def test_a_clock_that_was_turned_back_is_refused(trigger: Trigger) -> None:
    later = ago(seconds=-1)
    with pytest.raises(ConfigError, match=r"2026-11-26 12:00 UTC.*2026-11-26 12:00:01 UTC"):
        trigger.ask(at(later))
    with pytest.raises(ConfigError):
        trigger.ask(at(later, ago(days=2)))  # also where the newest is not the last in order
    assert due(Manual(), later)
    trigger.ask(at(ago(seconds=0)))


def test_a_cooldown_holds_back_until_it_is_over() -> None:
    trigger = Limited(Manual(), cooldown="2d")
    assert due(trigger)
    assert due(trigger, ago(days=2))
    held = trigger.early(at(ago(days=1)))
    assert held is not None
    assert not held.due
    assert (held.kind, held.evidence["held_back_by"]) == ("manual", "cooldown")
    assert held.earliest == NOW + timedelta(days=1)


def test_a_cooldown_tells_when_the_schedule_is_later() -> None:
    trigger = Limited(Schedule(every="7d"), cooldown="2d")
    held = trigger.ask(at(ago(days=1)))
    assert held.earliest == NOW + timedelta(days=6) - SLACK
    assert "2026-12-02 03:36 UTC at the earliest" in held.reason


def test_too_few_rows_wait_for_more() -> None:
    told = Told(True, "reference")
    trigger = Limited(told, minimum_rows=500)
    assert trigger.needs == {"rows", "reference"}
    held = trigger.ask(at(rows=499))
    assert (held.due, told.asked) == (False, 0)
    assert "499" in held.reason
    assert "500" in held.reason
    assert due(trigger, rows=500)


def test_a_manual_trigger_with_a_minimum_is_not_settled_before_rows_are_read() -> None:
    assert Limited(Manual(), minimum_rows=1).early(at()) is None
    assert Limited(Manual()).early(at()) == Manual().ask(at())


def test_a_budget_of_cycles_slides() -> None:
    trigger = Limited(Manual(), budget={"period": "30d", "cycles": 2})
    assert due(trigger, ago(days=29))
    assert due(trigger, ago(days=30), ago(days=1))
    held = trigger.ask(at(ago(days=29), ago(days=10)))
    assert not held.due
    assert held.earliest == NOW + timedelta(days=1)
    assert "2 of 2 cycles" in held.reason
    many = trigger.ask(at(ago(days=29), ago(days=20), ago(days=10)))
    assert many.earliest == NOW + timedelta(days=10)


def test_a_budget_of_hours_counts_what_is_known() -> None:
    trigger = Limited(Manual(), budget={"period": "7d", "device_hours": 2.0})
    assert due(trigger, ago(7199.0, days=1))
    assert due(trigger, ago(3600.0, days=8), ago(3600.0, days=2), ago(None, days=1))
    held = trigger.ask(at(ago(3600.0, days=6), ago(3600.0, days=2), ago(None, days=1)))
    assert held.earliest == NOW + timedelta(days=1)
    assert held.evidence["device_hours"] == 2
    assert held.evidence["cycles_of_unknown_cost"] == 1
    one = trigger.ask(at(ago(9000.0, days=6), ago(10.0, days=1)))
    assert one.earliest == NOW + timedelta(days=1)


def test_a_budget_has_room_exactly_when_it_says() -> None:
    generator = random.Random(1)
    for _ in range(200):
        budget = {"period": "5d", "cycles": generator.randrange(1, 4)}
        if generator.random() < 0.5:
            budget["device_hours"] = generator.choice([0.5, 1, 2])
        hours = [generator.uniform(0, 150) for _ in range(generator.randrange(6))]
        past = [ago(generator.choice([600, 3600]), hours=h) for h in sorted(hours, reverse=True)]
        trigger = Limited(Manual(), budget=budget)
        firing = trigger.ask(at(*past))
        if firing.due:
            continue
        assert firing.earliest is not None
        assert due(trigger, *past, now=firing.earliest)
        assert not due(trigger, *past, now=firing.earliest - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("limits", "where"),
    [
        ({"cooldown": "0d"}, "trigger.cooldown"),
        ({"cooldown": "-1d"}, "trigger.cooldown"),
        ({"minimum_rows": 0}, "trigger.minimum_rows"),
        ({"minimum_rows": -5}, "trigger.minimum_rows"),
        ({"budget": {"period": "30d"}}, "trigger.budget"),
        ({"budget": {"cycles": 2}}, "trigger.budget.period"),
        ({"budget": {"cycles": 0, "period": "30d"}}, "trigger.budget.cycles"),
        ({"budget": {"device_hours": -1.0, "period": "30d"}}, "trigger.budget.device_hours"),
        ({"budget": {"device_hours": float("nan"), "period": "1d"}}, "trigger.budget.device_hours"),
        ({"budget": {"cycles": 2, "period": "0d"}}, "trigger.budget.period"),
    ],
)
def test_limits_that_make_no_sense(limits: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Limited(Manual(), **limits)
    assert caught.value.where == where


def test_continuous_is_due_with_the_rows() -> None:
    trigger = Limited(Continuous(), minimum_rows=10)
    assert trigger.early(at()) is None
    assert [due(trigger, rows=rows) for rows in (0, 9, 10, 11)] == [False, False, True, True]
    assert not due(Limited(Continuous()), rows=0)


@pytest.mark.parametrize("combined", [AnyOf, AllOf])
def test_a_combination_of_nothing_is_refused(combined: type) -> None:
    with pytest.raises(ConfigError, match="none is named") as caught:
        combined(of={})
    assert "trigger@trigger.of" in str(caught.value.mend)


@pytest.mark.parametrize("answers", list(itertools.product([True, False], repeat=3)))
@pytest.mark.parametrize("needs", [(), ("rows",), ("reference",)])
def test_combinations_agree_with_any_and_all(answers: tuple[bool, ...], needs: tuple[str]) -> None:
    def parts() -> dict[str, Trigger]:
        return {f"t{i}": Told(one, *(needs if i else ())) for i, one in enumerate(answers)}

    for combined, of in ((AnyOf, any), (AllOf, all)):
        trigger = combined(of=parts())
        firing = trigger.ask(at(rows=1))
        assert firing.due is of(answers)
        assert firing.kind == combined.kind
        early = trigger.early(at())
        assert early is None or early.due is of(answers)


def test_the_clock_is_asked_before_the_data() -> None:
    costly, cheap = Told(False, "reference"), Told(True, "rows")
    of = {"drift": costly, "rows": cheap, "weekly": Schedule(every="7d")}
    early = AnyOf(of=of).early(at(ago(days=8)))
    assert early is not None
    assert early.due
    assert early.reason.startswith("weekly: the last cycle")
    late = AllOf(of=of).early(at(ago(days=1)))
    assert late is not None
    assert not late.due
    assert late.earliest == NOW + timedelta(days=6) - SLACK
    assert (costly.asked, cheap.asked) == (0, 0)
    assert AnyOf(of=of).early(at(ago(days=1))) is None
    assert AnyOf(of=of).ask(at(ago(days=1), rows=3)).reason == "rows: told True"
    assert (costly.asked, cheap.asked) == (0, 1)


def test_any_that_is_not_due_names_all_and_its_earliest() -> None:
    of = {"weekly": Schedule(every="7d"), "monthly": Schedule(every="30d")}
    firing = AnyOf(of=of).ask(at(ago(days=1)))
    assert not firing.due
    assert firing.reason.count("; ") == 1
    assert firing.earliest == NOW + timedelta(days=6) - SLACK
    assert AllOf(of=of).ask(at(ago(days=1))).earliest == NOW + timedelta(days=27.5)
    assert firing.evidence["of"]["weekly"]["due"] is False
    by_data = AnyOf(of={**of, "told": Told(False, "rows")}).ask(at(ago(days=1), rows=0))
    assert by_data.earliest is None


def test_combinations_nest_and_keep_their_limits() -> None:
    weekly = Limited(Schedule(every="7d"), minimum_rows=100)
    inner = AllOf(of={"weekly": weekly, "told": Told(True, "reference")})
    trigger = Limited(AnyOf(of={"both": inner, "monthly": Schedule(every="30d")}), cooldown="1d")
    assert trigger.needs == {"rows", "reference"}
    assert trigger.early(at(ago(days=8))) is None
    assert not due(trigger, ago(days=8), rows=99)
    assert due(trigger, ago(days=8), rows=100)
    assert due(trigger, ago(days=31), rows=0)
    assert not due(trigger, ago(hours=23), rows=100)


def test_what_is_costly_is_looked_at_once_and_only_when_asked() -> None:
    calls: list[str] = []
    situation = Situation(now=NOW, reference=lambda: calls.append("reference") or "r")
    assert calls == []
    assert [situation.reference(), situation.reference()] == ["r", "r"]
    assert calls == ["reference"]


@pytest.mark.parametrize(
    ("trigger", "settings", "where"),
    [
        (Drift, {"every": "0d"}, "trigger.every"),
        (Drift, {"false_alarms_per_year": 0.0}, "trigger.false_alarms_per_year"),
        (Drift, {"false_alarms_per_year": 40.0, "every": "7d"}, "trigger.false_alarms_per_year"),
        (Drift, {"minimum_effect": -0.1}, "trigger.minimum_effect"),
        (Performance, {"every": "never"}, "trigger.every"),
        (Performance, {"false_alarms_per_year": -1.0}, "trigger.false_alarms_per_year"),
        (Performance, {"smallest_drop": -0.1}, "trigger.smallest_drop"),
    ],
)
def test_settings_of_drift_and_performance(
    trigger: type, settings: dict[str, Any], where: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        trigger(**settings)
    assert caught.value.where == where


def test_performance_is_watched_since_the_last_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class Found:
        alarm, reason = True, "accuracy fell"

        def to_dict(self) -> dict[str, Any]:
            return {"alarm": True}

    def examine(*given: Any, **named: Any) -> Found:
        asked.update(named, given=given)
        return Found()

    monkeypatch.setattr("perennial.monitoring.performance.examine_performance", examine)
    trigger = Performance(every="7d", false_alarms_per_year=2.0, smallest_drop=0.05, seed=3)
    assert trigger.early(at(ago(days=2))) is None
    past = (ago(days=9), ago(days=2))
    firing = trigger.ask(Situation(now=NOW, cycles=past, errors=lambda: ("held", ["record"])))
    assert (firing.due, firing.reason, firing.evidence) == (True, "accuracy fell", {"alarm": True})
    assert asked["given"] == ("held", ["record"])
    assert asked["since"] == NOW - timedelta(days=2)
    assert asked["windows_per_year"] == pytest.approx(365.25 / 7)
    assert (asked["false_alarms_per_year"], asked["smallest_drop"], asked["seed"]) == (2, 0.05, 3)
