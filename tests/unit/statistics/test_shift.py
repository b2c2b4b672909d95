"""Shifts against loops over bins, SciPy's exact test and cases known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from perennial.statistics.shift import categorical_shift, numerical_shift, population_stability


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


def test_numbers_by_tenths_of_the_reference() -> None:
    generator = np.random.default_rng(0)
    old, new = generator.normal(size=5000), generator.normal(0.3, 1.2, size=3000)
    edges = np.quantile(old, np.arange(0.1, 1, 0.1))
    counts = [np.histogram(x, [-np.inf, *edges, np.inf])[0] for x in (old, new)]
    found = numerical_shift(old, new)
    assert found["psi"] == pytest.approx(population_stability(*counts))
    grid = np.sort(np.concatenate([old, new]))
    distance = max(abs((old <= x).mean() - (new <= x).mean()) for x in grid[::7])
    assert distance <= found["ks"] <= distance + 0.005
    assert found["ks"] == pytest.approx(stats.ks_2samp(old, new, method="exact").statistic)
    gaps = np.append(old, [np.nan] * 50)
    assert numerical_shift(gaps, new) == found
    assert numerical_shift(old, old) == {"psi": 0.0, "ks": 0.0}
    constant = np.zeros(100)
    assert numerical_shift(constant, constant) == {"psi": 0.0, "ks": 0.0}
    assert numerical_shift(constant, constant + 1)["ks"] == 1


def test_categories() -> None:
    old, new = {"a": 50, "b": 50, "gone": 0}, {"a": 30, "c": 60, "gone": 10}
    found = categorical_shift(old, new)
    assert found["unseen"] == pytest.approx(0.7)
    counts = np.array([50, 50, 0, 0]), np.array([30, 0, 60, 10])
    assert found["psi"] == pytest.approx(population_stability(*counts))
