"""Forgetting measures against their definitions, written as loops."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from perennial.evaluation.forgetting import (
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
    summary,
)

NAN = math.nan
WORKED = np.array([[0.9, NAN, NAN], [0.7, 0.8, NAN], [0.75, 0.6, 0.95]])


def test_worked_example() -> None:
    assert average_accuracy(WORKED) == pytest.approx((0.75 + 0.6 + 0.95) / 3)
    assert forgetting(WORKED) == pytest.approx((0.15 + 0.2) / 2)
    assert backward_transfer(WORKED) == pytest.approx((-0.15 - 0.2) / 2)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_full_matrix_by_loops(size: int) -> None:
    matrix = np.random.default_rng(size).random((size, size))
    last = size - 1
    lost = [max(matrix[i][j] for i in range(last)) - matrix[last][j] for j in range(last)]
    moved = [matrix[last][j] - matrix[j][j] for j in range(last)]
    assert average_accuracy(matrix) == pytest.approx(sum(matrix[last]) / size)
    assert forgetting(matrix) == pytest.approx(sum(lost) / last)
    assert backward_transfer(matrix) == pytest.approx(sum(moved) / last)


def test_the_best_earlier_version_counts_for_forgetting_only() -> None:
    matrix = np.array([[0.5, NAN, NAN], [0.9, 0.8, NAN], [0.6, 0.8, 0.7]])
    assert forgetting(matrix) == pytest.approx((0.3 + 0.0) / 2)
    assert backward_transfer(matrix) == pytest.approx((0.1 + 0.0) / 2)


def test_forgetting_is_negative_where_earlier_holdouts_got_better() -> None:
    matrix = np.array([[0.5, NAN], [0.6, 0.7]])
    assert forgetting(matrix) == pytest.approx(-0.1)
    assert backward_transfer(matrix) == pytest.approx(0.1)


def test_what_was_not_measured_is_left_out() -> None:
    matrix = np.array([[NAN, NAN, NAN], [NAN, 0.8, NAN], [0.4, 0.6, NAN]])
    assert average_accuracy(matrix) == pytest.approx(0.5)
    assert forgetting(matrix) == pytest.approx(0.2)
    assert backward_transfer(matrix) == pytest.approx(-0.2)


def test_one_version_has_forgotten_nothing_measurable() -> None:
    matrix = np.array([[0.9]])
    assert average_accuracy(matrix) == 0.9
    assert math.isnan(forgetting(matrix))
    assert math.isnan(backward_transfer(matrix))


def test_nothing_measured() -> None:
    found = summary(np.full((2, 2), NAN))
    assert found["average_accuracy"] is None
    assert found["forgetting"] is None
    assert found["backward_transfer"] is None


def test_forward_transfer_by_hand() -> None:
    matrix = np.array([[0.9, 0.3, 0.2], [0.7, 0.8, 0.6], [0.75, 0.6, 0.95]])
    initial = np.array([0.5, 0.1, 0.4])
    assert forward_transfer(matrix, initial) == pytest.approx(((0.3 - 0.1) + (0.6 - 0.4)) / 2)
    assert summary(matrix, initial)["forward_transfer"] == pytest.approx(0.2)
    assert "forward_transfer" not in summary(matrix)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_forward_transfer_by_a_loop(size: int) -> None:
    generator = np.random.default_rng(size)
    matrix, initial = generator.random((size, size)), generator.random(size)
    ahead = [matrix[j - 1][j] - initial[j] for j in range(1, size)]
    assert forward_transfer(matrix, initial) == pytest.approx(sum(ahead) / (size - 1))


def test_one_window_has_nothing_ahead() -> None:
    assert math.isnan(forward_transfer(np.array([[0.9]]), np.array([0.1])))
    assert summary(np.array([[0.9]]), np.array([0.1]))["forward_transfer"] is None


def test_summary_is_plain() -> None:
    found = summary(WORKED)
    json.dumps(found, allow_nan=False)
    assert found["matrix"] == [[0.9, None, None], [0.7, 0.8, None], [0.75, 0.6, 0.95]]
    assert found["forgetting"] == pytest.approx(0.175)
    assert summary(np.array([[0.9]]))["forgetting"] is None


@pytest.mark.parametrize("seed", range(8))
def test_measures_where_versions_and_holdouts_do_not_run_in_step_by_loops(seed: int) -> None:
    generator = np.random.default_rng(seed)
    versions, holdouts = int(generator.integers(2, 6)), int(generator.integers(1, 7))
    matrix = generator.random((versions, holdouts))
    learned = generator.integers(0, versions, holdouts)
    initial, last = generator.random(holdouts), versions - 1
    old = [j for j in range(holdouts) if learned[j] < last]
    lost = [max(matrix[i][j] for i in range(last)) - matrix[last][j] for j in old]
    moved = [matrix[last][j] - matrix[learned[j]][j] for j in old]
    ahead = [matrix[learned[j] - 1][j] - initial[j] for j in range(holdouts) if learned[j] > 0]
    for found, expected in (
        (forgetting(matrix, learned=learned), lost),
        (backward_transfer(matrix, learned=learned), moved),
        (forward_transfer(matrix, initial, learned=learned), ahead),
    ):
        mean = np.mean(expected) if expected else NAN
        assert found == pytest.approx(mean, nan_ok=True)
    told = summary(matrix, initial, learned=learned)
    assert told["backward_transfer"] == (pytest.approx(np.mean(moved)) if moved else None)


def test_unmeasured_holdouts_are_left_out() -> None:
    # the second holdout was added by a version that was rolled back: none before the third saw it
    matrix = np.array([[0.9, NAN, 0.2], [0.8, 0.7, 0.6]])
    initial, learned = np.array([NAN, NAN, 0.1]), np.array([0, 1, 1])
    assert forgetting(matrix, learned=learned) == pytest.approx(0.1)
    assert backward_transfer(matrix, learned=learned) == pytest.approx(-0.1)
    assert forward_transfer(matrix, initial, learned=learned) == pytest.approx(0.1)
