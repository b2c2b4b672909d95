"""Forgetting measures from the matrix of scores.

Shapes: T versions by T holdouts; ``matrix[i, j]`` is version i's score on the holdout of cycle j,
NaN where it was not measured.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]


def average_accuracy(matrix: Matrix) -> float:
    """Mean of the last version's scores over all holdouts."""
    return _mean(matrix[-1])


def forgetting(matrix: Matrix) -> float:
    """Mean loss of the last version against the best earlier one, over earlier holdouts.

    Chaudhry et al., Riemannian Walk for Incremental Learning (2018); NaN with one version.
    """
    earlier = matrix[:-1, : matrix.shape[1] - 1]
    return _mean(_best(earlier) - matrix[-1, :-1]) if earlier.size else math.nan


def backward_transfer(matrix: Matrix) -> float:
    """Mean change on each earlier holdout since the version that first learned it.

    Lopez-Paz and Ranzato, Gradient Episodic Memory (2017); NaN with one version.
    """
    if len(matrix) < 2:
        return math.nan
    count = min(len(matrix) - 1, matrix.shape[1])
    return _mean(matrix[-1, :count] - np.diagonal(matrix)[:count])


def forward_transfer(matrix: Matrix, initial: Matrix) -> float:
    """Mean advantage on each window just before learning it, over a model that learned nothing.

    Lopez-Paz and Ranzato, Gradient Episodic Memory (2017); NaN with one version.

    Args:
        matrix: Scores (T, T), of holdouts that come later too.
        initial: Scores (T,) of a randomly initialised model.
    """
    count = min(len(matrix) - 1, matrix.shape[1] - 1)
    if count < 1:
        return math.nan
    return _mean(np.diagonal(matrix, offset=1)[:count] - initial[1 : count + 1])


def summary(matrix: Matrix, initial: Matrix | None = None) -> dict[str, Any]:
    """All measures and the matrix, with None in the place of NaN.

    Args:
        matrix: Scores (T, T).
        initial: Scores (T,) of a randomly initialised model, for forward transfer.
    """
    values = {
        "average_accuracy": average_accuracy(matrix),
        "forgetting": forgetting(matrix),
        "backward_transfer": backward_transfer(matrix),
    }
    if initial is not None:
        values["forward_transfer"] = forward_transfer(matrix, initial)
    return {
        **{name: _plain(value) for name, value in values.items()},
        "matrix": [[_plain(float(value)) for value in row] for row in matrix],
    }


def _best(earlier: Matrix) -> Matrix:
    best: Matrix = np.where(np.isnan(earlier), -np.inf, earlier).max(axis=0)
    return np.where(np.isinf(best), np.nan, best)


def _mean(values: Matrix) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
