"""Window and weights of holdouts."""

from __future__ import annotations

import numpy as np
import pytest

from perennial.promotion.holdouts import by_age, effective, in_window, weight_column
from perennial.promotion.settings import Retention

NAMES = ["new", "history/cycle-10", "history/cycle-1", "history/given-2", "history/cycle-3"]
AGED = ["history/cycle-1", "history/given-2", "history/cycle-3", "history/cycle-10"]


def test_age_is_the_running_number() -> None:
    assert by_age(NAMES) == AGED


@pytest.mark.parametrize("window", [None, 1, 3, 9])
def test_a_window_keeps_the_newest(window: int | None) -> None:
    kept = AGED if window is None else AGED[-window:]
    assert in_window(NAMES, Retention(window=window)) == kept


def column(*counts: int) -> np.ndarray:
    return np.repeat([f"history/cycle-{i}" for i in range(1, len(counts) + 1)], counts)


def test_a_half_life_halves_a_row_with_its_age() -> None:
    weight = weight_column(column(2, 3, 1), Retention(half_life=1))
    assert weight is not None
    assert (weight / weight[-1]).tolist() == [0.25, 0.25, 0.5, 0.5, 0.5, 1]
    slow = weight_column(column(1, 1), Retention(half_life=2))
    assert slow is not None
    assert slow[0] / slow[1] == pytest.approx(2**-0.5)


def test_cycles_count_alike() -> None:
    holdout = column(5, 20, 75)
    weight = weight_column(holdout, Retention(weights="cycles"))
    assert weight is not None
    sums = [weight[holdout == name].sum() for name in np.unique(holdout)]
    assert sums == pytest.approx([sums[0]] * 3)
    generator = np.random.default_rng(0)
    difference = generator.normal(size=100)
    means = [difference[holdout == name].mean() for name in np.unique(holdout)]
    assert np.average(difference, weights=weight) == pytest.approx(np.mean(means))


@pytest.mark.parametrize(
    ("counts", "settings"),
    [
        ((3, 4), {}),
        ((7,), {"weights": "cycles"}),
        ((7,), {"half_life": 2}),
        ((4, 4), {"weights": "cycles"}),
    ],
)
def test_rows_that_count_alike_have_no_weights(counts: tuple[int, ...], settings: dict) -> None:
    assert weight_column(column(*counts), Retention(**settings)) is None


@pytest.mark.parametrize("settings", [{}, {"weights": "cycles"}, {"half_life": 1.5}, {"window": 2}])
def test_weighted_rows_are_worth_what_kish_says(settings: dict) -> None:
    rows = {"history/cycle-1": 40, "history/cycle-2": 300, "history/cycle-4": 90}
    retention = Retention(**settings)
    kept = in_window(rows, retention)
    holdout = np.repeat(kept, [rows[name] for name in kept])
    weight = weight_column(holdout, retention)
    weight = np.ones(len(holdout)) if weight is None else weight
    expected = weight.sum() ** 2 / (weight**2).sum()
    assert effective(rows | {"new": 99}, retention) == pytest.approx(expected)
    assert effective({"new": 99}, retention) == 0
