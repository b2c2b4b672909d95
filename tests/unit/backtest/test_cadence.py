"""Policies by their names."""

from __future__ import annotations

import pytest

from perennial.backtest.cadence import Cadence, cadences
from perennial.backtest.timeline import Timeline
from perennial.errors import ConfigError
from perennial.monitoring.triggers import Continuous, Situation, Trigger

TIMELINE = Timeline(key="week", first=3, last=12, days=2)


def named(policy: str | list[str]) -> list[Cadence]:
    return cadences(policy, timeline=TIMELINE, triggers={"continuous": Continuous})


def due(trigger: Trigger) -> list[int]:
    """Windows after which it is due."""
    asked = {w: trigger.ask(Situation(now=TIMELINE.end(w))) for w in TIMELINE.windows}
    return [window for window, firing in asked.items() if firing.due]


@pytest.mark.parametrize("policy", ["every:4, scratch,never", ["every:4", "scratch", "never"]])
def test_never_is_always_the_first(policy: str | list[str]) -> None:
    assert [one.name for one in named(policy)] == ["never", "every:4", "scratch"]
    assert [one.name for one in named("continuous")] == ["never", "continuous"]


def test_when_each_is_due() -> None:
    never, every, often, scratch = named("every:4,every:1,scratch")
    assert due(never.trigger) == []
    assert due(every.trigger) == [6, 10]
    assert due(often.trigger) == due(scratch.trigger) == list(TIMELINE.windows)
    assert [one.scratch for one in (never, every, often, scratch)] == [False, False, False, True]


@pytest.mark.parametrize(
    ("policy", "what", "mend"),
    [
        ("weekly", "'weekly' is no policy", "policies: never, every:N, continuous, scratch"),
        ("continous", "'continous' is no policy", "did you mean continuous"),
        ("every", "does not say after how many windows", "every:1 or every:4"),
        ("every:0", "does not say after how many windows", "every:1 or every:4"),
        ("every:-1", "does not say after how many windows", "every:1 or every:4"),
        ("every:two", "does not say after how many windows", "every:1 or every:4"),
        ("every:2,never,every:2", "every:2 is named twice", "once"),
    ],
)
def test_what_is_no_policy_is_told(policy: str, what: str, mend: str) -> None:
    with pytest.raises(ConfigError) as told:
        named(policy)
    assert what in told.value.what
    assert mend in str(told.value.mend)
    assert told.value.where == "policy"
