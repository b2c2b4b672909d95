"""Means of skewed, dependent and weighted rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from perennial import statistics

Array = np.ndarray[Any, Any]


def symmetric(values: Array) -> Array:
    """Values without a third moment: each with its mirror image."""
    return np.concatenate([values, 2 * values.mean() - values])


@pytest.mark.parametrize("threshold", [-0.02, 0.0, 0.1])
@pytest.mark.parametrize("size", [1, 4])
def test_without_skewness_it_is_the_t_test_on_cluster_means(size: int, threshold: float) -> None:
    generator = np.random.default_rng(11)
    means = symmetric(generator.normal(0.05, 0.1, 13))
    within = generator.normal(0, 0.2, (26, size))
    difference = (means[:, None] + within - within.mean(axis=1, keepdims=True)).ravel()
    names = np.arange(26).repeat(size).astype(str)
    order = generator.permutation(26 * size)
    found = statistics.mean_difference(
        difference[order], names[order], alpha=0.05, threshold=threshold
    )
    above = stats.ttest_1samp(means, threshold, alternative="greater")
    below = stats.ttest_1samp(means, threshold, alternative="less")
    assert found.estimate == pytest.approx(means.mean(), abs=1e-9)
    assert found.error == pytest.approx(stats.sem(means), abs=1e-9)
    assert found.p_above == pytest.approx(above.pvalue, abs=1e-9)
    assert found.p_below == pytest.approx(below.pvalue, abs=1e-9)
    bounds = (above.confidence_interval(0.95).low, below.confidence_interval(0.95).high)
    assert found.interval == pytest.approx(bounds, abs=1e-9)


def reference(
    difference: Array, names: Array, weight: Array, alpha: float, threshold: float
) -> tuple[float, float, tuple[float, float], float]:
    """The jackknife by leaving out, Hall's cubic by its terms, and its bounds by a root finder."""
    groups = [names == name for name in np.unique(names)]
    count = len(groups)
    mean = np.average(difference, weights=weight)
    without = [np.average(difference[~group], weights=weight[~group]) for group in groups]
    error = math.sqrt((count - 1) / count * sum((one - mean) ** 2 for one in without))
    z = np.array([np.sum(weight[g] * (difference[g] - mean)) for g in groups])
    m = np.array([weight[g].sum() for g in groups])
    gamma = np.mean(z**3) / np.mean(z**2) ** 1.5
    kappa = np.mean(z * m) / (np.mean(m) * math.sqrt(np.mean(z**2)))
    freedom = np.sum(m**2) ** 2 / np.sum(m**4) - 1

    def hall(t: float) -> float:
        a = gamma / 3 - kappa
        return t + (a * t**2 + gamma / 6) / math.sqrt(count) + a**2 * t**3 / (3 * count)

    critical = stats.t.isf(alpha, freedom)
    low = optimize.brentq(lambda t: hall(t) - critical, -50, 50, xtol=1e-13)
    high = optimize.brentq(lambda t: hall(t) + critical, -50, 50, xtol=1e-13)
    p_above = stats.t.sf(hall((mean - threshold) / error), freedom)
    return mean, error, (mean - error * low, mean - error * high), p_above


@pytest.mark.parametrize("alpha", [0.05, 0.0125])
@pytest.mark.parametrize("shape", ["rows", "clusters", "weights", "both"])
def test_it_is_the_jackknife_under_halls_cubic(shape: str, alpha: float) -> None:
    generator = np.random.default_rng(13)
    sizes = generator.integers(1, 9, 60) if shape in ("clusters", "both") else np.ones(200, int)
    names = np.arange(len(sizes)).repeat(sizes)
    weight = np.ones(len(names))
    if shape in ("weights", "both"):
        weight = generator.uniform(0.2, 3.0, len(names))
    difference = generator.lognormal(size=len(names)) - 1.5
    found = statistics.mean_difference(difference, names, weight=weight, alpha=alpha, threshold=0.1)
    mean, error, interval, p_above = reference(difference, names, weight, alpha, 0.1)
    assert found.estimate == pytest.approx(mean, rel=1e-12)
    assert found.error == pytest.approx(error, rel=1e-10)
    assert found.interval == pytest.approx(interval, rel=1e-8)
    assert found.p_above == pytest.approx(p_above, rel=1e-8)
    assert found.p_below == pytest.approx(1 - p_above, rel=1e-8)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_bounds_and_p_values_say_the_same(side: float) -> None:
    difference = side * np.random.default_rng(5).lognormal(size=80)
    names = np.arange(80)
    low, high = statistics.mean_difference(difference, names, alpha=0.05, threshold=0).interval
    for bound, name in ((low, "p_above"), (high, "p_below")):
        found = statistics.mean_difference(difference, names, alpha=0.05, threshold=bound)
        assert getattr(found, name) == pytest.approx(0.05, abs=1e-9)
    mirrored = statistics.mean_difference(-difference, names, alpha=0.05, threshold=0)
    assert mirrored.interval == pytest.approx((-high, -low), rel=1e-9)


def test_without_any_skewness_the_bounds_are_those_of_t() -> None:
    values = np.array([-2.0, -1.0, 1.0, 2.0])
    found = statistics.mean_difference(values, np.arange(4), alpha=0.05, threshold=0.0)
    half = stats.t.isf(0.05, 3) * stats.sem(values)
    assert found.interval == pytest.approx((-half, half), rel=1e-12)


def test_almost_no_skewness_is_almost_the_t_test() -> None:
    drawn = symmetric(np.random.default_rng(8).normal(0.1, 1.0, 20))
    for shift in (0.0, 1e-9, 1e-7, 1e-5, 1e-3):
        values = drawn + shift * (drawn - 0.1) ** 2
        found = statistics.mean_difference(values, np.arange(40), alpha=0.05, threshold=0.0)
        _, _, interval, _ = reference(values, np.arange(40), np.ones(40), 0.05, 0.0)
        assert found.interval == pytest.approx(interval, rel=1e-9)


def test_a_weight_of_two_is_the_row_twice_and_one_of_none_is_no_row() -> None:
    generator = np.random.default_rng(3)
    names, difference = np.arange(40) // 2, generator.exponential(size=40)
    weight = generator.integers(0, 4, 40).astype(float)
    weight[:2] = 0
    found = statistics.mean_difference(difference, names, weight=weight, alpha=0.05, threshold=1)
    times = weight.astype(int)
    repeated = statistics.mean_difference(
        difference.repeat(times), names.repeat(times), alpha=0.05, threshold=1
    )
    assert found.interval == pytest.approx(repeated.interval, rel=1e-10)
    assert found.p_above == pytest.approx(repeated.p_above, rel=1e-10)


@pytest.mark.parametrize("value", [0.0, 0.1, -0.3])
def test_a_constant_knows_no_uncertainty(value: float) -> None:
    found = statistics.mean_difference(np.full(7, value), np.arange(7), alpha=0.05, threshold=0.05)
    assert (found.error, found.interval) == (0.0, (found.estimate, found.estimate))
    assert (found.p_above, found.p_below) == ((0.0, 1.0) if value > 0.05 else (1.0, 0.0))


@pytest.mark.parametrize("shape", ["normal", "lognormal", "minus lognormal"])
def test_false_promotion_at_the_margin(shape: str) -> None:
    generator = np.random.default_rng(7)
    trials, rows = 4000, 500
    names = np.arange(rows)
    drawn = generator.normal(size=(trials, rows))
    if shape != "normal":
        drawn = (np.exp(drawn) - math.exp(0.5)) * (-1 if shape.startswith("minus") else 1)
    passed = sum(
        statistics.mean_difference(one - 0.02, names, alpha=0.05, threshold=-0.02).p_above <= 0.05
        for one in drawn
    )
    # plain t passes 7.6% of the series under minus lognormal
    assert 0.035 < passed / trials < 0.065


@pytest.mark.parametrize(("clusters", "largest"), [(50, 20), (60, 80)])
def test_false_promotion_of_few_and_unequal_clusters(clusters: int, largest: int) -> None:
    generator = np.random.default_rng(2)
    sizes = np.minimum(np.ceil(generator.pareto(1.3, clusters) + 1), largest).astype(int)
    names, trials, passed = np.arange(clusters).repeat(sizes), 3000, 0
    for _ in range(trials):
        drawn = generator.normal(size=clusters)[names] + generator.normal(size=len(names))
        found = statistics.mean_difference(drawn, names, alpha=0.05, threshold=0.0)
        passed += found.p_above <= 0.05
    assert passed / trials < 0.06


def test_welch_is_scipys_and_knows_constants() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(0.1, 1, 30), generator.normal(0.3, 2, 50)
    expected = stats.ttest_ind(x, y, equal_var=False, alternative="less").pvalue
    assert statistics.welch_below(x, y) == pytest.approx(expected, rel=1e-10)
    same = np.ones(5)
    assert statistics.welch_below(same, same) == 1.0
    assert statistics.welch_below(same - 0.1, same) == 0.0


def test_cluster_means_are_those_of_their_rows() -> None:
    found = statistics.cluster_means(np.array([1.0, 5.0, 3.0, 7.0]), np.array(["b", "a", "b", "c"]))
    np.testing.assert_array_equal(found, [5.0, 2.0, 7.0])
