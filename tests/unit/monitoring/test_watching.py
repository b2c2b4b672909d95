from __future__ import annotations

import pytest

from perennial.errors import ConfigError
from perennial.monitoring.watching import Pace, Watched, look, outcome

PACE = Pace(every=60, longest=600)


def test_files_are_asked_about_once_two_looks_find_them_alike() -> None:
    state, due = look(Watched(), "a", now=0)
    assert not due
    state, due = look(state, "ab", now=60)  # another file is still being written
    assert not due
    state, due = look(state, "ab", now=120)
    assert due
    state = outcome(state, 10, asked="ab", now=125, again=None, pace=PACE)
    state, due = look(state, "ab", now=180)
    assert not due


def test_files_that_arrive_during_a_cycle_are_asked_about_after_it() -> None:
    state, _ = look(Watched(), "a", now=0)
    state = outcome(state, 0, asked="a", now=60, again=None, pace=PACE)
    state, due = look(state, "ab", now=120)
    assert not due
    assert look(state, "ab", now=180)[1]


def test_a_source_without_files_is_asked_about_at_each_look() -> None:
    state, due = look(Watched(), None, now=0)
    assert due
    state = outcome(state, 10, asked=None, now=1, again=None, pace=PACE)
    assert look(state, None, now=60)[1]


def test_it_asks_again_when_the_trigger_said_that_it_would_be_due() -> None:
    state, _ = look(Watched(), "a", now=0)
    state = outcome(state, 10, asked="a", now=1, again=500.0, pace=PACE)
    assert not look(state, "a", now=499)[1]
    assert look(state, "a", now=500)[1]


def test_each_failure_in_a_row_doubles_the_wait_up_to_the_longest() -> None:
    state, waits = Watched(seen="a"), []
    for _ in range(6):
        state = outcome(state, 30, asked="a", now=1000, again=None, pace=PACE)
        waits.append(state.rest - 1000)
        assert not look(state, "a", now=state.rest - 1)[1]
        assert look(state, "a", now=state.rest)[1]
    assert waits == [60, 120, 240, 480, 600, 600]
    state = outcome(state, 21, asked="a", now=2000, again=None, pace=PACE)
    assert (state.failures, state.rest) == (0, 0)


def test_a_clock_that_is_turned_back_does_not_make_a_rest_longer() -> None:
    state = outcome(Watched(seen="a"), 30, asked="a", now=1000, again=None, pace=PACE)
    assert not look(state, "a", now=1000)[1]
    assert look(state, "a", now=999)[1]


def test_a_cycle_that_was_killed_is_a_failure() -> None:
    state = outcome(Watched(seen="a"), -9, asked="a", now=0, again=None, pace=PACE)
    assert state.failures == 1


@pytest.mark.parametrize(("every", "longest"), [(0, 10), (-1, 10), (60, 10)])
def test_a_pace_that_makes_no_sense_is_refused(every: float, longest: float) -> None:
    with pytest.raises(ConfigError, match="look every"):
        Pace(every=every, longest=longest)
