"""Power against enumeration, simulation and statsmodels."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import NormalIndPower

from perennial import statistics


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
    assert found == pytest.approx(expected, abs=1e-9)


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
    assert found == pytest.approx(expected, abs=1e-9)


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


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize(("effect", "n"), [(0.1, 400), (0.02, 900), (0.5, 20)])
def test_mean_power_and_rows_needed_are_statsmodels(effect: float, n: int, alpha: float) -> None:
    deviation, margin = 2.0, 0.3
    error, alternative = deviation / math.sqrt(n), effect * deviation - margin
    expected = NormalIndPower().power(effect, n, alpha, ratio=0, alternative="larger")
    found = statistics.mean_power(error, margin=margin, alpha=alpha, alternative=alternative)
    assert found == pytest.approx(expected, abs=1e-9)
    rows = NormalIndPower().solve_power(
        effect, alpha=alpha, power=0.8, ratio=0, alternative="larger"
    )
    needed = statistics.rows_needed(deviation**2, distance=effect * deviation, alpha=alpha)
    assert needed == math.ceil(rows)


def test_without_an_error_power_is_certain() -> None:
    assert statistics.mean_power(0.0, margin=0.02, alpha=0.05) == 1.0
    assert statistics.mean_power(0.0, margin=-0.02, alpha=0.05, alternative=0.02) == 0.0


def test_no_number_of_rows_shows_what_is_not_so() -> None:
    assert statistics.rows_needed(0.1, distance=0.0, alpha=0.05) is None
    assert statistics.rows_needed(0.0, distance=0.1, alpha=0.05) == 1


def test_rows_needed_have_the_power_that_they_are_needed_for() -> None:
    discordance, margin = 0.06, 0.02
    needed = statistics.rows_needed(discordance, distance=margin, alpha=0.05)
    assert needed is not None
    found = statistics.tango_power(needed, discordance=discordance, margin=margin, alpha=0.05)
    assert found == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize("margin", [0.15, 0.25])
def test_mean_power_of_skewed_rows_by_simulation(side: float, margin: float) -> None:
    generator = np.random.default_rng(4)
    trials, rows = 3000, 500
    drawn = side * (np.exp(generator.normal(size=(trials, rows))) - math.exp(0.5))
    passed, stated, symmetric = 0, 0.0, 0.0
    for one in drawn:
        found = statistics.mean_difference(one, np.arange(rows), alpha=0.05, threshold=-margin)
        passed += found.p_above <= 0.05
        given = {"margin": margin, "alpha": 0.05}
        stated += statistics.mean_power(found.error, skewness=found.skewness, **given)
        symmetric += statistics.mean_power(found.error, **given)
    realised = passed / trials
    assert stated / trials == pytest.approx(realised, abs=0.05)
    assert abs(stated / trials - realised) < abs(symmetric / trials - realised)
