"""Holm's adjustment, and Benjamini and Hochberg's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from perennial import statistics


@pytest.mark.parametrize(
    "p_values",
    [[0.2], [0.01, 0.04, 0.03], [0.5, 0.5, 0.001, 0.9], [1.0, 1.0], [0.02, 0.02, 0.02, 0.0]],
)
def test_holm_is_the_step_down_adjustment(p_values: list[float]) -> None:
    expected = multipletests(p_values, method="holm")[1]
    np.testing.assert_allclose(statistics.holm(p_values), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(40))
def test_a_hypothesis_is_rejected_exactly_at_its_own_level(seed: int) -> None:
    draw = np.random.default_rng(seed)
    p_values = draw.uniform(size=int(draw.integers(1, 9))) ** draw.uniform(1, 8)
    levels = statistics.holm_levels(p_values, alpha=0.05)
    rejected = multipletests(p_values, alpha=0.05, method="holm")[0]
    np.testing.assert_array_equal(p_values <= levels, rejected)
    # one level for all that the step-down did not come to
    assert len(set(levels[~rejected])) <= 1
    assert levels.max() <= 0.05


def test_levels_of_a_family_by_hand() -> None:
    levels = statistics.holm_levels([0.001, 0.2, 0.02, 0.04], alpha=0.05)
    np.testing.assert_allclose(levels, [0.05 / 4, 0.05 / 3, 0.05 / 3, 0.05 / 3])
    np.testing.assert_allclose(statistics.holm_levels([0.02, 0.001], alpha=0.05), [0.05, 0.025])
    assert len(statistics.holm_levels([], alpha=0.05)) == 0


@pytest.mark.parametrize("seed", range(20))
def test_the_false_discovery_rate_is_scipys(seed: int) -> None:
    draw = np.random.default_rng(seed)
    p_values = np.round(draw.uniform(size=(3, int(draw.integers(1, 9)))) ** 3, 2)
    found = statistics.benjamini_hochberg(p_values)
    for row, expected in zip(found, p_values, strict=True):
        np.testing.assert_allclose(row, stats.false_discovery_control(expected), rtol=1e-12)
