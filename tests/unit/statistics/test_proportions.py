"""Tango's test, McNemar's, and exact bounds of a share."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

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


@pytest.mark.parametrize(("b", "c"), [(3.4, 1.2), (12.5, 7.25), (0.5, 0.5)])
def test_mcnemar_between_whole_numbers_lies_between_their_p_values(b: float, c: float) -> None:
    found = statistics.mcnemar(b, c)
    assert statistics.mcnemar(math.ceil(b), math.floor(c)) <= found
    assert found <= statistics.mcnemar(math.floor(b), math.ceil(c))


@pytest.mark.parametrize("discordance", [0.05, 0.3])
@pytest.mark.parametrize("n", [12, 40])
def test_size_of_tangos_and_mcnemars_tests_over_all_tables(n: int, discordance: float) -> None:
    """Every table that n rows can give, weighted by its probability at the margin."""
    margin = 0.05
    tables = [(b, c) for b, c in itertools.product(range(n + 1), repeat=2) if b + c <= n]

    def size(shares: list[float], passes: list[bool]) -> float:
        chances = stats.multinomial.pmf([(b, c, n - b - c) for b, c in tables], n, shares)
        return float(chances[passes].sum())

    gained = (discordance - margin) / 2
    at_margin = [gained, gained + margin, 1 - discordance]
    tango = [statistics.tango_test(b, c, n, delta=-margin) <= 0.05 for b, c in tables]
    assert size(at_margin, tango) <= 0.065
    alike = [discordance / 2, discordance / 2, 1 - discordance]
    exact = [statistics.mcnemar(b, c) <= 0.05 for b, c in tables]
    assert size(alike, exact) <= 0.05


def test_many_tables_are_scored_as_each_alone() -> None:
    b, c, n = (np.array(column) for column in zip(*TABLES, strict=True))
    for delta in (-0.2, 0.0, 0.05):
        alone = [statistics.tango_z(*table, delta=delta) for table in TABLES]
        np.testing.assert_array_equal(statistics.tango_scores(b, c, n, delta=delta), alone)


@pytest.mark.parametrize("alpha", [0.05, 0.0125])
@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 40), (17, 600), (1, 1)])
def test_bounds_of_a_share_are_clopper_and_pearsons(k: int, n: int, alpha: float) -> None:
    expected = proportion_confint(k, n, alpha=2 * alpha, method="beta")
    assert statistics.share_bounds(k, n, alpha=alpha) == pytest.approx(expected, abs=1e-12)


def test_bounds_of_a_share_between_whole_numbers() -> None:
    low, high = statistics.share_bounds(2.5, 60.5, alpha=0.05)
    assert 0 < low < 2.5 / 60.5 < high < 1
    assert low == pytest.approx(stats.beta.ppf(0.05, 2.5, 59))
    assert high == pytest.approx(stats.beta.ppf(0.95, 3.5, 58))


@pytest.mark.parametrize("alpha", [0.05, 0.0125])
def test_many_tango_intervals_are_those_of_each_table(alpha: float) -> None:
    ends = [(20, 0, 20), (0, 20, 20), (0, 0, 20), (1, 0, 1), (0, 1, 1), (2.5, 1.25, 17.5)]
    tables = [*TABLES, *ends, (3000, 2990, 100_000)]
    low, high = statistics.tango_intervals(*np.array(tables, dtype=float).T, alpha=alpha)
    each = np.array([statistics.tango_interval(*table, alpha=alpha) for table in tables])
    np.testing.assert_allclose(np.stack([low, high], axis=1), each, rtol=0, atol=1e-10)
