"""Ratios of quantiles."""

from __future__ import annotations

import numpy as np
import pytest

from perennial import statistics


@pytest.mark.parametrize("q", [0.5, 0.95])
def test_a_ratio_of_quantiles_by_a_loop(q: float) -> None:
    generator = np.random.default_rng(0)
    before = generator.gamma(9, size=60)
    after = 1.3 * generator.gamma(9, size=60)
    found = statistics.quantile_ratio(before, after, q=q, alpha=0.05, resamples=300, seed=4)
    rounds = np.random.default_rng(4).integers(60, size=(300, 60))
    ratios = [np.quantile(after[r], q) / np.quantile(before[r], q) for r in rounds]
    expected = np.quantile(after, q) / np.quantile(before, q)
    assert found == pytest.approx((expected, *np.quantile(ratios, [0.05, 0.95])))
    assert found[1] < found[0] < found[2]


def test_rounds_that_slow_both_down_do_not_blur_the_ratio() -> None:
    before = np.random.default_rng(0).lognormal(sigma=1.0, size=60)
    ratio, low, high = statistics.quantile_ratio(before, 1.2 * before, q=0.5, alpha=0.05)
    assert (ratio, low, high) == pytest.approx((1.2, 1.2, 1.2))


def test_bounds_hold_the_true_ratio_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(1)
    trials, above, below = 300, 0, 0
    for _ in range(trials):
        before, after = generator.gamma(9, size=(2, 60))
        _, low, high = statistics.quantile_ratio(before, after, q=0.5, alpha=0.05, resamples=300)
        above, below = above + (low > 1), below + (high < 1)
    assert above / trials < 0.09
    assert below / trials < 0.09
