"""Shifts of categories against SciPy and sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.stats import contingency

from perennial.statistics.categories import (
    Categories,
    category_shift,
    chi_square,
    chi_square_p_value,
    cramers_v,
    population_stability,
)


def test_stability_by_hand() -> None:
    old, new = np.array([40, 60, 0]), np.array([10, 80, 10])
    total = 0.0
    for a, b in zip(old.tolist(), new.tolist(), strict=True):
        p, q = (a + 0.5) / 101.5, (b + 0.5) / 101.5
        total += (p - q) * math.log(p / q)
    assert population_stability(old, new) == pytest.approx(total)
    assert population_stability(new, old) == pytest.approx(total)  # Jeffreys' is symmetric
    assert population_stability(old, old) == 0
    p, q = (old + 0.5) / 101.5, (new + 0.5) / 101.5
    both = stats.entropy(p, q) + stats.entropy(q, p)
    assert population_stability(old, new) == pytest.approx(both)


@pytest.mark.parametrize("seed", range(5))
def test_homogeneity_is_scipys(seed: int) -> None:
    generator = np.random.default_rng(seed)
    old, new = generator.integers(1, 40, 6), generator.integers(0, 90, 6)
    statistic, freedom = chi_square(np.append(old, 0), np.append(new, 0))
    expected = stats.chi2_contingency(np.stack([old, new]), correction=False)
    assert statistic == pytest.approx(expected.statistic)
    assert freedom == expected.dof
    assert chi_square_p_value(statistic, freedom) == pytest.approx(expected.pvalue)
    fewer = chi_square(old, 10 * new, count=new.sum())
    assert fewer == (pytest.approx(expected.statistic), expected.dof)


def test_cramers_v_of_two_sets_of_one_size_is_scipys_and_sizes_do_not_enter() -> None:
    old, new = np.array([30, 50, 20]), np.array([10, 40, 50])
    expected = contingency.association(np.stack([old, new]), method="cramer")
    assert cramers_v(old, new) == pytest.approx(expected)
    assert cramers_v(old, 1000 * new) == pytest.approx(expected)
    assert cramers_v(np.array([5, 0]), np.array([0, 9])) == 1


def test_unseen_categories() -> None:
    old, new = {"a": 50, "b": 50, "gone": 0}, {"a": 30, "c": 60, "gone": 10}
    found = category_shift(old, new)
    assert found["unseen"] == pytest.approx(0.7)
    counts = np.array([50, 50, 0, 0]), np.array([30, 0, 60, 10])
    assert found["psi"] == pytest.approx(population_stability(*counts))


def test_rare_categories_are_one_for_chi_square() -> None:
    old = {"a": 60, "b": 40, **{f"r{i}": 1 for i in range(20)}}
    new = {"a": 50, "b": 30, **{f"s{i}": 1 for i in range(20)}}
    found = Categories.of(old, new)
    assert [part.tolist() for part in found.pooled()] == [[20, 60, 40], [20, 50, 30]]
    expected = stats.chi2_contingency([[20, 60, 40], [20, 50, 30]], correction=False)
    assert found.p_value() == pytest.approx(expected.pvalue)
    common = Categories.of({"a": 60, "b": 40}, {"a": 30, "b": 70})
    assert [part.tolist() for part in common.pooled()] == [[60, 40], [30, 70]]


def test_one_category_cannot_move() -> None:
    assert Categories.of({"a": 10}, {"a": 90}).p_value() == 1
