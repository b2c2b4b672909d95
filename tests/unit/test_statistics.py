"""Every formula against an independent reference."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from perennial import statistics

PAIRS = [(0, 0), (1, 0), (0, 1), (5, 0), (0, 7), (8, 1), (6, 6), (14, 9), (3, 20), (40, 22)]
TABLES = [(0, 0, 50), (3, 1, 40), (1, 6, 40), (0, 4, 200), (9, 0, 100), (12, 12, 60), (30, 18, 90)]


def reference_z(b: int, c: int, n: int, delta: float) -> float:
    """Score statistic with the restricted estimate found by maximising the likelihood."""
    low, high = max(0.0, -delta), (1 - delta) / 2

    def loss(lost: float) -> float:
        shares = (lost + delta, lost, 1 - 2 * lost - delta)
        return -sum(
            k * math.log(max(p, 1e-300))
            for k, p in zip((b, c, n - b - c), shares, strict=True)
            if k
        )

    found = optimize.minimize_scalar(
        loss, bounds=(low, high), method="bounded", options={"xatol": 1e-13, "maxiter": 2000}
    )
    lost = min((loss(low), low), (loss(high), high), (float(found.fun), float(found.x)))[1]
    return (b - c - n * delta) / math.sqrt(n * (2 * lost + delta - delta**2))


@pytest.mark.parametrize(("b", "c"), PAIRS)
def test_mcnemar_is_the_binomial_test(b: int, c: int) -> None:
    expected = stats.binomtest(b, b + c, 0.5, alternative="greater").pvalue if b + c else 1.0
    assert statistics.mcnemar(b, c) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("b", "c"), [(b, c) for b, c in PAIRS if b > c])
def test_mcnemar_is_half_of_the_two_sided_test(b: int, c: int) -> None:
    two_sided = mcnemar([[10, b], [c, 10]], exact=True).pvalue
    assert statistics.mcnemar(b, c) == pytest.approx(two_sided / 2, rel=1e-10)


@pytest.mark.parametrize(("b", "c", "n"), TABLES)
@pytest.mark.parametrize("delta", [-0.3, -0.05, -0.02, 0.01, 0.1, 0.4])
def test_tango_z_is_at_the_restricted_maximum(b: int, c: int, n: int, delta: float) -> None:
    expected = reference_z(b, c, n, delta)
    assert statistics.tango_z(b, c, n, delta=delta) == pytest.approx(expected, abs=1e-5)
    assert statistics.tango_test(b, c, n, delta=delta) == pytest.approx(
        stats.norm.sf(expected), abs=1e-5
    )


@pytest.mark.parametrize(("b", "c", "n"), TABLES)
@pytest.mark.parametrize("alpha", [0.05, 0.0125])
def test_tango_interval_inverts_the_score_test(b: int, c: int, n: int, alpha: float) -> None:
    z = stats.norm.isf(alpha)
    estimate = (b - c) / n
    step = 1e-9

    def excess(delta: float, sign: float) -> float:
        return reference_z(b, c, n, delta) - sign * z

    low = optimize.brentq(excess, -1 + step, estimate - step, args=(1.0,))
    high = optimize.brentq(excess, estimate + step, 1 - step, args=(-1.0,))
    assert statistics.tango_interval(b, c, n, alpha=alpha) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize("n", [1, 5, 132, 133, 1000, 100_000])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_tango_interval_without_discordant_rows(n: int, alpha: float) -> None:
    z2 = stats.norm.isf(alpha) ** 2
    bound = z2 / (n + z2)
    found = statistics.tango_interval(0, 0, n, alpha=alpha)
    assert found == pytest.approx((-bound, bound), abs=1e-9)


@pytest.mark.parametrize(("b", "c", "n"), [(1, 0, 1), (20, 0, 20), (0, 20, 20), (7, 3, 10)])
def test_tango_interval_stays_in_range_and_mirrors(b: int, c: int, n: int) -> None:
    low, high = statistics.tango_interval(b, c, n, alpha=0.05)
    assert -1 <= low <= (b - c) / n <= high <= 1
    mirrored = statistics.tango_interval(c, b, n, alpha=0.05)
    assert mirrored == pytest.approx((-high, -low), abs=1e-9)


def test_tango_interval_at_the_ends() -> None:
    assert statistics.tango_interval(20, 0, 20, alpha=0.05)[1] == 1
    assert statistics.tango_interval(0, 20, 20, alpha=0.05)[0] == -1


@pytest.mark.parametrize("n", [200, 600])
@pytest.mark.parametrize("discordance", [0.02, 0.08])
def test_false_promotion_at_the_margin(n: int, discordance: float) -> None:
    margin, trials = 0.02, 20_000
    gained, lost = (discordance - margin) / 2, (discordance + margin) / 2
    generator = np.random.default_rng(7)
    draws = generator.multinomial(n, [gained, lost, 1 - discordance], size=trials)
    passed = sum(
        count
        for (b, c), count in Counter(map(tuple, draws[:, :2].tolist())).items()
        if statistics.tango_test(b, c, n, delta=-margin) <= 0.05
    )
    assert passed / trials <= 0.065


@pytest.mark.parametrize("alpha", [0.05, 0.03125, 0.0125])
@pytest.mark.parametrize(("discordance", "alternative"), [(0.3, 0.2), (0.5, 0.0), (0.1, 0.4)])
@pytest.mark.parametrize("n", [1, 6, 14])
def test_mcnemar_power_by_enumeration(
    n: int, discordance: float, alternative: float, alpha: float
) -> None:
    discordance_used = max(discordance, alternative)
    gained = (discordance_used + alternative) / 2
    lost = discordance_used - gained
    expected = sum(
        stats.multinomial.pmf([b, c, n - b - c], n, [gained, lost, 1 - gained - lost])
        for b in range(n + 1)
        for c in range(n + 1 - b)
        if b + c and stats.binomtest(b, b + c, alternative="greater").pvalue <= alpha
    )
    found = statistics.mcnemar_power(
        n, discordance=discordance, alternative=alternative, alpha=alpha
    )
    assert found == pytest.approx(expected, abs=1e-9)


def test_mcnemar_power_without_discordance() -> None:
    assert statistics.mcnemar_power(100, discordance=0, alternative=0, alpha=0.05) == 0


@pytest.mark.parametrize(("n", "discordance"), [(300, 0.1), (500, 0.06)])
def test_mcnemar_power_by_simulation(n: int, discordance: float) -> None:
    trials, alternative = 20_000, 0.03
    shares = [(discordance + alternative) / 2, (discordance - alternative) / 2, 1 - discordance]
    draws = np.random.default_rng(3).multinomial(n, shares, size=trials)
    b, c = draws[:, 0], draws[:, 1]
    rate = float(np.mean(stats.binom.cdf(c, b + c, 0.5) <= 0.05))
    found = statistics.mcnemar_power(
        n, discordance=discordance, alternative=alternative, alpha=0.05
    )
    assert found == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / trials))


@pytest.mark.parametrize(("n", "discordance"), [(30, 0.2), (60, 0.05), (40, 0.0), (20, 1.0)])
@pytest.mark.parametrize("margin", [0.05, 0.15])
def test_tango_power_by_enumeration(n: int, discordance: float, margin: float) -> None:
    shares = [discordance / 2, discordance / 2, 1 - discordance]
    expected = sum(
        stats.multinomial.pmf([b, c, n - b - c], n, shares)
        for b in range(n + 1)
        for c in range(n + 1 - b)
        if statistics.tango_test(b, c, n, delta=-margin) <= 0.05
    )
    found = statistics.tango_power(n, discordance=discordance, margin=margin, alpha=0.05)
    # counts with less than 1e-4 in each tail are left out
    assert found == pytest.approx(expected, abs=2.5e-4)


def test_tango_power_beyond_a_minimum_effect_by_enumeration() -> None:
    n, discordance, alternative, effect = 60, 0.3, 0.2, 0.05
    shares = [(discordance + alternative) / 2, (discordance - alternative) / 2, 1 - discordance]
    expected = sum(
        stats.multinomial.pmf([b, c, n - b - c], n, shares)
        for b in range(n + 1)
        for c in range(n + 1 - b)
        if statistics.tango_test(b, c, n, delta=effect) <= 0.05
    )
    found = statistics.tango_power(
        n, discordance=discordance, margin=-effect, alpha=0.05, alternative=alternative
    )
    assert found == pytest.approx(expected, abs=2.5e-4)


@pytest.mark.parametrize(("n", "discordance"), [(400, 0.04), (800, 0.08)])
def test_tango_power_by_simulation(n: int, discordance: float) -> None:
    trials = 20_000
    shares = [discordance / 2, discordance / 2, 1 - discordance]
    draws = np.random.default_rng(5).multinomial(n, shares, size=trials)[:, :2]
    hits = sum(
        count
        for (b, c), count in Counter(map(tuple, draws.tolist())).items()
        if statistics.tango_interval(b, c, n, alpha=0.05)[0] > -0.02
    )
    rate = hits / trials
    found = statistics.tango_power(n, discordance=discordance, margin=0.02, alpha=0.05)
    assert found == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / trials))


@pytest.mark.parametrize("threshold", [-0.02, 0.0, 0.1])
@pytest.mark.parametrize("size", [1, 4])
def test_clustered_difference_is_the_t_test_on_cluster_means(size: int, threshold: float) -> None:
    generator = np.random.default_rng(11)
    clusters = 25
    effect = generator.normal(0.05, 0.1, clusters).repeat(size)
    difference = effect + generator.normal(0, 0.2, clusters * size)
    names = np.arange(clusters).repeat(size).astype(str)
    order = generator.permutation(clusters * size)
    found = statistics.clustered_difference(
        difference[order], names[order], alpha=0.05, threshold=threshold
    )
    means = difference.reshape(clusters, size).mean(axis=1)
    above = stats.ttest_1samp(means, threshold, alternative="greater")
    below = stats.ttest_1samp(means, threshold, alternative="less")
    assert found.estimate == pytest.approx(means.mean(), abs=1e-9)
    assert found.p_above == pytest.approx(above.pvalue, abs=1e-9)
    assert found.p_below == pytest.approx(below.pvalue, abs=1e-9)
    bounds = (above.confidence_interval(0.95).low, below.confidence_interval(0.95).high)
    assert found.interval == pytest.approx(bounds, abs=1e-9)


def test_clustered_difference_is_the_linearised_ratio_for_unequal_clusters() -> None:
    generator = np.random.default_rng(13)
    sizes = generator.integers(1, 9, 30)
    names = np.arange(30).repeat(sizes)
    difference = generator.normal(0.1, 0.5, int(sizes.sum()))
    totals = np.array([difference[names == name].sum() for name in range(30)])
    ratio = totals.sum() / sizes.sum()
    error = np.std(totals - ratio * sizes, ddof=1) / (math.sqrt(30) * sizes.mean())
    found = statistics.clustered_difference(difference, names, alpha=0.05, threshold=0.0)
    half = stats.t.isf(0.05, 29) * error
    assert found.interval == pytest.approx((ratio - half, ratio + half), abs=1e-9)
    assert found.p_above == pytest.approx(stats.t.sf(ratio / error, 29), abs=1e-9)


@pytest.mark.parametrize(("b", "c"), [(3.4, 1.2), (12.5, 7.25), (0.5, 0.5)])
def test_mcnemar_between_whole_numbers_lies_between_their_p_values(b: float, c: float) -> None:
    found = statistics.mcnemar(b, c)
    assert statistics.mcnemar(math.ceil(b), math.floor(c)) <= found
    assert found <= statistics.mcnemar(math.floor(b), math.ceil(c))


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


def test_a_design_effect_of_copies_is_their_number() -> None:
    sign = np.random.default_rng(0).choice([1.0, 0.0, -1.0], 100, p=[0.2, 0.6, 0.2])
    for copies in (1, 2, 7):
        names = np.arange(100).repeat(copies)
        found = statistics.design_effect(sign.repeat(copies), names)
        assert found == pytest.approx(copies)


def test_a_design_effect_is_the_ratio_of_variances() -> None:
    generator = np.random.default_rng(1)
    sizes = generator.integers(1, 9, 300)
    names = np.arange(300).repeat(sizes)
    whole = generator.choice([1.0, 0.0, -1.0], 300, p=[0.3, 0.5, 0.2])[names]
    single = generator.choice([1.0, 0.0, -1.0], len(names), p=[0.3, 0.5, 0.2])
    sign = np.where(generator.random(len(names)) < 0.5, whole, single)
    totals = np.array([sign[names == name].sum() for name in range(300)])
    between = np.sum((totals - sign.mean() * sizes) ** 2)
    assert statistics.design_effect(sign, names) == pytest.approx(
        between / (len(sign) * np.var(sign)), rel=1e-12
    )


def test_few_discordant_clusters_are_taken_to_be_of_one_mind() -> None:
    sizes = np.array([10, 1, 1, 4] * 10)
    names = np.arange(40).repeat(sizes)
    sign = np.zeros(len(names))
    sign[[0, 11, 13]] = 1.0, -1.0, 1.0
    expected = float(np.sum(sizes**2) / np.sum(sizes))
    assert statistics.design_effect(sign, names) == pytest.approx(expected)
    assert statistics.design_effect(np.zeros(len(names)), names) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("clusters", "size", "together"), [(200, 4, 1.0), (87, 14, 0.0), (150, 14, 0.5)]
)
def test_at_the_margin_dependent_rows_pass_about_as_often_as_they_may(
    clusters: int, size: int, together: float
) -> None:
    generator = np.random.default_rng(2)
    shares, trials, passed = [0.015, 0.035, 0.95], 2000, 0
    names = np.arange(clusters).repeat(size)
    for _ in range(trials):
        whole = generator.choice([1.0, -1.0, 0.0], clusters, p=shares)[names]
        single = generator.choice([1.0, -1.0, 0.0], len(names), p=shares)
        sign = np.where(generator.random(len(names)) < together, whole, single)
        deff = statistics.design_effect(sign, names)
        b, c, n = (sign > 0).sum() / deff, (sign < 0).sum() / deff, len(sign) / deff
        passed += statistics.tango_test(b, c, n, delta=-0.02) <= 0.05
    assert 0.02 < passed / trials < 0.075


@pytest.mark.parametrize(
    "p_values",
    [[0.2], [0.01, 0.04, 0.03], [0.5, 0.5, 0.001, 0.9], [1.0, 1.0], [0.02, 0.02, 0.02, 0.0]],
)
def test_holm_is_the_step_down_adjustment(p_values: list[float]) -> None:
    expected = multipletests(p_values, method="holm")[1]
    np.testing.assert_allclose(statistics.holm(p_values), expected, rtol=1e-12)
