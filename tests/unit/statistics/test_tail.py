"""Thresholds hold the probability that they are given, over draws and calibrations."""

from __future__ import annotations

import numpy as np
import pytest

from perennial.statistics.tail import tail_threshold


def held(probability: float, *, scale: float, draws: int, repeats: int = 2000) -> float:
    """Mean true probability of an alarm where −ln p is exponential with a scale."""
    generator = np.random.default_rng(0)
    found = [tail_threshold(generator.random(draws) ** scale, probability) for _ in range(repeats)]
    return float(np.mean(np.power(found, 1 / scale)))


@pytest.mark.parametrize("probability", [0.05, 1 / 52, 1 / 365, 1 / 8760])
@pytest.mark.parametrize("scale", [1.0, 3.0, 10.0])
def test_chance_alarms_as_often_as_is_allowed(probability: float, scale: float) -> None:
    found = held(probability, scale=scale, draws=400)
    assert found <= 1.15 * probability
    if scale == 1:
        assert found >= 0.4 * probability, "and not much less"


def test_a_uniform_p_value_keeps_its_own_level_and_never_more() -> None:
    for generator in map(np.random.default_rng, range(20)):
        assert tail_threshold(generator.random(400), 0.001) <= 0.001
    assert tail_threshold(np.full(400, 1.0), 0.001) == 0.001


def test_few_draws_far_out_are_not_overlooked() -> None:
    draws = np.ones(400)
    draws[:5] = 1e-20
    assert tail_threshold(draws, 1 / 365) < 1e-20
