"""What policies gained and cost, and which one is taken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from perennial import statistics
from perennial.backtest.account import Prices, accounts, recommendation
from perennial.backtest.replay import Course, Retraining, Step
from perennial.backtest.states import Ran
from perennial.errors import ConfigError
from perennial.monitoring.triggers import Firing

FREE = Prices()


def ran(seconds: float, verdict: str = "promoted") -> Retraining:
    found = Ran(
        verdict=verdict,
        applied=verdict == "promoted",
        serving="m@1",
        device_seconds=seconds,
        train_rows=100,
        replayed_rows=20,
        optimizer_steps=10,
    )
    return Retraining(first=1, last=1, rows=50, ran=found)


def course(
    policy: str, scores: Sequence[float], cycles: dict[int, Retraining] | None = None
) -> Course:
    """A policy's course, whose cycles run after the windows of their places."""
    cycles = cycles or {}
    firing = Firing(kind="every", due=True, reason="it was time")
    return Course(
        policy,
        tuple(
            Step(place, score, firing, cycles.get(place), 50 if place in cycles else 0)
            for place, score in enumerate(scores)
        ),
    )


NEVER = course("never", [0.5, 0.4, 0.3, 0.2])
OFTEN = course(
    "every:1",
    [0.5, 0.5, 0.5, 0.5],
    {0: ran(3600), 1: ran(3600, "rejected"), 2: ran(3600, "inconclusive")},
)
RARELY = course("every:2", [0.5, 0.4, 0.5, 0.49], {1: ran(1800)})


def taken(
    courses: Sequence[Course], prices: Prices = FREE, *, higher: bool = True
) -> tuple[str, str]:
    found = recommendation(courses, prices=prices, higher_is_better=higher)
    return found["policy"], found["by"]


def test_scores_and_costs_are_counted() -> None:
    never, often, _ = accounts([NEVER, OFTEN, RARELY], prices=FREE, higher_is_better=True)
    assert never["gain"] == 0
    assert never["device_seconds"] == never["labels"] == never["cycles"] == 0
    assert often["mean"] == pytest.approx(0.5)
    assert often["gain"] == pytest.approx((0.1 + 0.2 + 0.3) / 4)
    assert often["share"] == 1
    assert [often[k] for k in ("cycles", "promoted", "rejected", "inconclusive")] == [3, 1, 1, 1]
    assert [often[k] for k in ("device_seconds", "train_rows", "optimizer_steps", "labels")] == [
        10800,
        300,
        30,
        150,
    ]
    assert set(often["money"].values()) == {None}
    assert often["windows"][1]["cycle"]["verdict"] == "rejected"
    assert often["windows"][3]["cycle"] is None


def test_money_is_value_less_what_was_spent() -> None:
    prices = Prices(device_hour=4.0, label=0.1, per_point=2.0)
    courses = [NEVER, OFTEN, RARELY]
    never, often, rarely = accounts(courses, prices=prices, higher_is_better=True)
    assert never["money"]["net"] == 0
    assert often["money"] == pytest.approx(
        {"device_cost": 12.0, "label_cost": 15.0, "value": 120.0, "net": 93.0}
    )
    assert rarely["money"] == pytest.approx(
        {"device_cost": 2.0, "label_cost": 5.0, "value": 98.0, "net": 91.0}
    )
    assert taken(courses, prices) == ("every:1", "money")
    assert taken(courses, Prices(device_hour=4.0, label=0.15, per_point=2.0)) == (
        "every:2",
        "money",
    )
    assert taken(courses, Prices(device_hour=1000.0, per_point=2.0)) == ("never", "money")


def test_what_has_no_price_is_not_counted() -> None:
    _, often = accounts([NEVER, OFTEN], prices=Prices(label=0.1), higher_is_better=True)
    assert often["money"] == {
        "device_cost": None,
        "label_cost": pytest.approx(15.0),
        "value": None,
        "net": None,
    }
    assert taken([NEVER, OFTEN], Prices(label=1e6)) == ("every:1", "score")


def test_without_money_the_cheapest_that_keeps_most_of_the_best_gain() -> None:
    near = course("every:3", [0.5, 0.5, 0.45, 0.5], {0: ran(10)})  # 0.55 of 0.6 kept
    far = course("every:4", [0.5, 0.5, 0.4, 0.48], {0: ran(1)})  # 0.48 of 0.6
    assert taken([NEVER, OFTEN, near, far]) == ("every:3", "score")
    assert taken([NEVER, OFTEN, far]) == ("every:1", "score")
    worse = course("every:1", [0.5, 0.3, 0.3, 0.2], {0: ran(1)})
    assert taken([NEVER, worse]) == ("never", "score")
    equal = course("every:1", [0.5, 0.4, 0.3, 0.2], {0: ran(1)})
    assert taken([NEVER, equal]) == ("never", "score")


def test_a_loss_is_better_where_it_is_lower() -> None:
    lower = course("every:1", [0.5, 0.3, 0.2, 0.1], {0: ran(1)})
    assert taken([NEVER, lower], higher=False) == ("every:1", "score")
    assert taken([NEVER, OFTEN], higher=False) == ("never", "score")
    _, told = accounts([NEVER, lower], prices=FREE, higher_is_better=False)
    assert told["gain"] == pytest.approx(0.075)


def test_differences_have_the_interval_of_blocks_of_windows() -> None:
    generator = np.random.default_rng(0)
    base = generator.uniform(0.4, 0.6, size=12)
    gained = base + generator.normal(0.1, 0.01, size=12)
    about = gained + generator.normal(0.0, 0.05, size=12)
    courses = [
        course("never", base.tolist()),
        course("every:1", gained.tolist(), {0: ran(1)}),
        course("every:2", about.tolist(), {0: ran(2)}),
    ]
    found = recommendation(courses, prices=FREE, higher_is_better=True)
    assert found["policy"] == "every:1"
    never, other = found["differences"]
    expected = statistics.block_mean(gained - base)
    assert (never["mean"], *never["interval"]) == pytest.approx((expected.mean, *expected.interval))
    assert (never["policy"], never["told_apart"]) == ("never", True)
    assert (other["policy"], other["told_apart"]) == ("every:2", False)


def test_three_windows_tell_nothing_apart() -> None:
    courses = [course("never", [0.1] * 3), course("every:1", [0.9] * 3, {0: ran(1)})]
    (difference,) = recommendation(courses, prices=FREE, higher_is_better=True)["differences"]
    assert difference["interval"] is None
    assert not difference["told_apart"]


@pytest.mark.parametrize("key", ["device_hour", "label", "per_point"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_prices_out_of_range_are_told(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=key):
        Prices(**{key: value})
