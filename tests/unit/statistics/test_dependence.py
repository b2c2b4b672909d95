"""What dependent and weighted rows are worth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from perennial import statistics

Array = np.ndarray[Any, Any]


def drawn_signs(generator: np.random.Generator, names: Array, together: float) -> Array:
    """Signs of which a share is their cluster's own."""
    shares = [0.3, 0.5, 0.2]
    whole = generator.choice([1.0, 0.0, -1.0], int(names.max()) + 1, p=shares)[names]
    single = generator.choice([1.0, 0.0, -1.0], len(names), p=shares)
    return np.where(generator.random(len(names)) < together, whole, single)


def test_a_design_effect_of_copies_is_their_number() -> None:
    sign = np.random.default_rng(0).choice([1.0, 0.0, -1.0], 100, p=[0.2, 0.6, 0.2])
    for copies in (1, 2, 7):
        names = np.arange(100).repeat(copies)
        found = statistics.design_effect(sign.repeat(copies), names)
        assert found == pytest.approx(copies)


def reference(sign: Array, names: Array, weight: Array) -> float:
    """Row by row and pair by pair."""
    mean = np.average(sign, weights=weight)
    groups = [np.flatnonzero(names == name) for name in np.unique(names)]
    alone = np.average((sign - mean) ** 2, weights=weight)
    between = sum(float(np.sum(weight[g] * (sign[g] - mean))) ** 2 for g in groups)
    linearised = len(sign) * between / weight.sum() ** 2 / alone
    agree, rows, seen = 0.0, 0.0, 0
    for group in (g for g in groups if len(g) > 1):
        seen += bool(np.any(sign[group] != 0))
        for i in group:
            others = [sign[j] - mean for j in group if j != i]
            agree += (sign[i] - mean) * float(np.mean(others))
            rows += (sign[i] - mean) ** 2
    correlation = (seen * min(max(agree / rows, 0), 1) + 2) / (seen + 2)
    pairs = sum(
        weight[i] * weight[j] * (1.0 if i == j else correlation)
        for group in groups
        for i in group
        for j in group
    )
    return max(1.0, linearised, len(sign) * pairs / weight.sum() ** 2)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("together", [0.0, 0.4, 1.0])
def test_a_design_effect_by_pairs(together: float, weighted: bool) -> None:
    generator = np.random.default_rng(1)
    names = np.arange(60).repeat(generator.integers(1, 9, 60))
    sign = drawn_signs(generator, names, together)
    weight = generator.uniform(0.2, 3.0, len(names)) if weighted else np.ones(len(names))
    found = statistics.design_effect(sign, names, weight=weight)
    assert found == pytest.approx(reference(sign, names, weight), rel=1e-10)
    if not weighted:
        assert statistics.design_effect(sign, names) == found


def test_rows_that_disagree_within_their_clusters_are_not_worth_more_than_rows() -> None:
    sign = np.tile([1.0, -1.0], 30)
    names = np.arange(30).repeat(2)
    # no correlation below none: only the two clusters of one mind that are always added
    assert statistics.design_effect(sign, names) == pytest.approx(1 + 2 / 32)


def test_without_discordant_clusters_rows_of_one_are_of_one_mind() -> None:
    sizes = np.array([10, 1, 1, 4] * 10)
    names = np.arange(40).repeat(sizes)
    expected = float(np.sum(sizes**2) / np.sum(sizes))
    for sign in (0.0, 1.0):
        found = statistics.design_effect(np.full(len(names), sign), names)
        assert found == pytest.approx(expected)


def test_plain_rows_keep_their_counts() -> None:
    sign = np.array([1.0] * 7 + [-1.0] * 3 + [0.0] * 13)
    assert statistics.effective_counts(sign, np.arange(23)) == (7, 3, 23)
    # a row of weight none is no row
    weight = np.array([0.0] * 2 + [1.0] * 21)
    found = statistics.effective_counts(sign, np.arange(23), weight=weight)
    assert found == pytest.approx((5, 3, 21))


def test_effective_counts_keep_the_weighted_shares() -> None:
    generator = np.random.default_rng(4)
    names = np.arange(50).repeat(3)
    sign, weight = drawn_signs(generator, names, 0.5), generator.uniform(0.5, 2, 150)
    b, c, n = statistics.effective_counts(sign, names, weight=weight)
    assert n == pytest.approx(150 / statistics.design_effect(sign, names, weight=weight))
    assert b / n == pytest.approx(np.average(sign > 0, weights=weight))
    assert c / n == pytest.approx(np.average(sign < 0, weights=weight))


def sizes_of(shape: str) -> Array:
    generator = np.random.default_rng(9)
    few_big = np.where(np.arange(400) < 20, 60, 3)
    return {
        "few": np.full(50, 14),
        "uneven": generator.geometric(0.15, 150),
        "few big": few_big,
        "rows": np.full(87, 14),
    }[shape]


@pytest.mark.parametrize("shape", ["few", "uneven", "few big", "rows"])
@pytest.mark.parametrize("discordance", [0.025, 0.1])
@pytest.mark.parametrize("together", [0.0, 0.5])
def test_at_the_margin_dependent_rows_pass_no_more_often_than_they_may(
    shape: str, discordance: float, together: float
) -> None:
    generator = np.random.default_rng(2)
    names = np.arange(len(sizes_of(shape))).repeat(sizes_of(shape))
    shares = [(discordance - 0.02) / 2, (discordance + 0.02) / 2, 1 - discordance]
    trials, passed = 1000, 0
    for _ in range(trials):
        whole = generator.choice([1.0, -1.0, 0.0], int(names.max()) + 1, p=shares)[names]
        single = generator.choice([1.0, -1.0, 0.0], len(names), p=shares)
        sign = np.where(generator.random(len(names)) < together, whole, single)
        counts = statistics.effective_counts(sign, names)
        passed += statistics.tango_test(*counts, delta=-0.02) <= 0.05
    # three standard errors above the bar of 6.5%
    assert passed / trials < 0.065 + 3 * math.sqrt(0.065 * 0.935 / trials)


def test_at_the_margin_cycles_that_count_alike_pass_as_often_as_they_may() -> None:
    generator = np.random.default_rng(6)
    sizes = np.array([150, 300, 600, 1200, 2400])
    weight, names = np.repeat(1 / sizes, sizes), np.arange(sizes.sum())
    trials, passed = 2000, 0
    for _ in range(trials):
        sign = generator.choice([1.0, -1.0, 0.0], len(names), p=[0.02, 0.04, 0.94])
        counts = statistics.effective_counts(sign, names, weight=weight)
        passed += statistics.tango_test(*counts, delta=-0.02) <= 0.05
    assert 0.03 < passed / trials < 0.065
