"""Means of dependent series."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from perennial import statistics


@pytest.mark.parametrize(("n", "length"), [(4, 1), (6, 2), (6, 3), (8, 2)])
def test_the_error_is_that_of_every_resample(n: int, length: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    blocks = [[values[(start + step) % n] for step in range(length)] for start in range(n)]
    drawn = itertools.product(blocks, repeat=n // length)
    means = [np.mean(list(itertools.chain(*sample))) for sample in drawn]
    found = statistics.block_mean(values, length=length)
    count = n / length
    assert found.mean == pytest.approx(np.mean(means)) == pytest.approx(values.mean())
    assert found.error == pytest.approx(np.std(means) * math.sqrt(count / (count - 1)))


def test_blocks_of_one_are_the_t_interval() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, size=12)
    found = statistics.block_mean(values, length=1, alpha=0.1)
    expected = stats.t.interval(0.9, 11, loc=values.mean(), scale=stats.sem(values))
    assert found.interval == pytest.approx(expected)


@pytest.mark.parametrize(("n", "length"), [(4, 2), (8, 2), (9, 3), (27, 3), (28, 4)])
def test_blocks_grow_with_the_cube_root(n: int, length: int) -> None:
    assert statistics.block_mean(np.arange(float(n))).length == length


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_few_values_say_nothing(n: int) -> None:
    found = statistics.block_mean(np.full(n, 5.0))
    assert found.mean == 5.0
    assert found.interval == (-math.inf, math.inf)
    assert not found.told_from_zero


@pytest.mark.parametrize(("value", "told"), [(0.0, False), (0.5, True), (-0.5, True)])
def test_what_never_changes_has_no_error(value: float, told: bool) -> None:
    found = statistics.block_mean(np.full(6, value))
    assert found.interval == pytest.approx((value, value), abs=1e-15)
    assert found.told_from_zero is told


@pytest.mark.parametrize(("rho", "least"), [(0.0, 0.95), (0.3, 0.94)])
def test_it_holds_the_true_mean_about_as_often_as_it_says(rho: float, least: float) -> None:
    generator = np.random.default_rng(3)
    noise = generator.normal(size=(1500, 60))
    series = np.zeros_like(noise)
    for step in range(1, 60):
        series[:, step] = rho * series[:, step - 1] + noise[:, step]
    held = [not statistics.block_mean(one).told_from_zero for one in series[:, -9:]]
    assert least < np.mean(held) < 0.995
