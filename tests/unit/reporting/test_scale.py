from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial.reporting.scale import Scale, window

NUMBERS = st.floats(-100, 100).map(lambda value: round(value, 6))


def test_places_are_linear_and_what_lies_beyond_is_on_the_end() -> None:
    scale = Scale(-2.0, 8.0)
    assert [scale.place(value) for value in (-2, 0, 3, 8)] == [0, 20, 50, 100]
    assert [scale.place(value) for value in (-9, 99)] == [0, 100]
    assert [scale.beyond(value) for value in (-9, -2, 3, 8, 99)] == [-1, 0, 0, 0, 1]


@given(st.lists(NUMBERS, min_size=1), NUMBERS)
def test_a_window_holds_the_middle_and_all_values(values: list[float], middle: float) -> None:
    scale = window(values, middle=middle)
    assert scale.low < middle < scale.high
    assert not any(scale.beyond(value) for value in values)


def test_a_window_has_room_on_both_sides() -> None:
    scale = window([0.0, 10.0])
    assert (scale.low, scale.high) == (-0.5, 10.5)
    assert window([], middle=3.0) == Scale(2.0, 4.0)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (-0.5, 10.5, [0, 2, 4, 6, 8, 10]),
        (-0.021, 0.0, [-0.02, -0.015, -0.01, -0.005, 0]),
        (0.95, 1.3, [0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3]),
        (-3.2, 3.2, [-3, -2, -1, 0, 1, 2, 3]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert Scale(low, high).ticks() == pytest.approx(ticks)


@given(NUMBERS, st.floats(1e-4, 1e4))
def test_there_are_a_few_ticks_on_any_axis(low: float, span: float) -> None:
    scale = Scale(low, low + span)
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 8
    steps = [after - before for before, after in itertools.pairwise(ticks)]
    assert all(math.isclose(step, steps[0], rel_tol=1e-6) for step in steps)
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in ticks)
