"""Shares of time against a clock that the test turns."""

from __future__ import annotations

import time

import pytest

from perennial.stopwatch import Stopwatch, shares_line


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.at)

    def step(self, watch: Stopwatch, *, data: float, forward: float, rest: float = 0.0) -> None:
        watch.step()
        for phase, seconds in (("data", data), ("forward", forward)):
            began = watch.now()
            self.at += seconds
            watch.add(phase, began)
        self.at += rest


def test_shares_are_of_the_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, watch = Clock(monkeypatch), Stopwatch()
    assert watch.shares() == {}
    clock.at += 100  # before the first step
    clock.step(watch, data=1, forward=4, rest=2)
    paused = watch.pause()
    clock.at += 50  # a validation
    watch.resume(paused)
    clock.step(watch, data=1, forward=2)
    watch.end()
    clock.at += 100  # after the last one
    watch.end()
    found = watch.shares()
    assert watch.total == 10
    assert (found["data"], found["forward"], found["method"]) == (0.2, 0.6, 0)
    assert found["other"] == pytest.approx(0.2)
    assert sum(found.values()) == pytest.approx(1)


def test_a_device_is_waited_for_in_one_step_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    clock = Clock(monkeypatch)
    watch = Stopwatch(wait=lambda: waits.append(clock.at), every=3)
    for number in range(1, 8):
        clock.step(watch, data=number, forward=1)
    watch.end()
    # steps 3 and 6 were read
    assert watch.seconds["data"] == 9
    assert watch.total == 11
    # at the beginning and the ends of both
    assert set(waits) == {5, 8, 9, 20, 26, 27}


def test_the_line_names_every_phase() -> None:
    assert shares_line({}) == ""
    assert shares_line({"data": 0.1, "other": 0.9}) == (
        "Time of training steps: data 10%, other 90%"
    )
