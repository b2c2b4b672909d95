"""MMD and its permutations against sums over all pairs, one permutation at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from perennial.monitoring.mmd import (
    bandwidth,
    discrepancies,
    gaussian_kernel,
    mmd_test,
    permutations,
    tail_p_value,
)


def by_pairs(x: Any, y: Any, width: float) -> float:
    def mean(a: Any, b: Any, *, same: bool) -> float:
        values = [
            np.exp(-((one - other) ** 2).sum() / (2 * width**2))
            for i, one in enumerate(a)
            for j, other in enumerate(b)
            if not (same and i == j)
        ]
        return float(np.mean(values))

    return mean(x, x, same=True) + mean(y, y, same=True) - 2 * mean(x, y, same=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_permutation_is_the_sum_over_pairs(dtype: torch.dtype) -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(9, 3)), generator.normal(0.7, 1, size=(14, 3))
    both = torch.from_numpy(np.concatenate([x, y])).to(dtype)
    kernel = gaussian_kernel(both, 1.3)
    masks = permutations(9, 23, count=6, generator=generator)
    assert (masks.sum(axis=1) == 9).all()
    masks[0] = np.arange(23) < 9
    found = discrepancies(kernel, masks)
    points = np.concatenate([x, y])
    expected = [by_pairs(points[one], points[~one], 1.3) for one in masks]
    assert found == pytest.approx(expected, abs=1e-6 if dtype == torch.float32 else 1e-12)
    assert found[0] == pytest.approx(by_pairs(x, y, 1.3), abs=1e-6)


def test_the_bandwidth_is_the_median_distance() -> None:
    points = torch.from_numpy(np.random.default_rng(1).normal(size=(40, 2)))
    pairs = [float((points[i] - points[j]).norm()) for i in range(40) for j in range(i)]
    assert bandwidth(points) == pytest.approx(np.sort(pairs)[(len(pairs) - 1) // 2])
    assert bandwidth(torch.zeros(10, 2)) == 1
    mostly = torch.zeros(20, 1)
    mostly[0] = 3
    assert bandwidth(mostly) == 3


def test_the_tail_is_continued_below_what_permutations_resolve() -> None:
    generator = np.random.default_rng(2)
    null = generator.chisquare(5, 4000)
    at = np.array([2.0, 11.0, 25.0, 40.0])

    expected = stats.chi2.sf(at, 5)
    found = tail_p_value(at, null)
    assert found[:2] == pytest.approx(expected[:2], rel=0.1)
    assert found[2:] == pytest.approx(expected[2:], rel=0.9)
    assert tail_p_value(1.0, np.zeros(100)) == pytest.approx(1 / 101)
    assert tail_p_value(0.0, np.zeros(100)) == 1


def test_under_no_shift_p_values_are_uniform() -> None:
    torch.manual_seed(0)
    p_values = np.array(
        [mmd_test(torch.randn(40, 2), torch.randn(25, 2), count=100, seed=i)[1] for i in range(400)]
    )
    for level in (0.05, 0.2, 0.5):
        assert (p_values <= level).mean() == pytest.approx(
            level, abs=3 * np.sqrt(level * (1 - level) / 400)
        )


def test_a_change_of_the_correlation_alone_is_seen() -> None:
    generator = np.random.default_rng(3)
    x, y = generator.normal(size=(2, 400, 2))
    y[:, 1] = 0.8 * y[:, 0] + 0.6 * y[:, 1]
    _, p = mmd_test(torch.from_numpy(x), torch.from_numpy(y))
    assert p < 1e-4
