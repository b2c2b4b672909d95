"""Forgetting measures from the matrix of scores.

Shapes: T versions by H holdouts; ``matrix[i, j]`` is version i's score on the holdout of cycle j,
NaN where it was not measured. ``learned[j]`` is the version that first learned cycle j: version j,
one by one, unless said otherwise, as after a rollback, or for a test set of the user's own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Order = npt.NDArray[np.int64]


def average_accuracy(matrix: Matrix) -> float:
    """Mean of the last version's scores over all holdouts."""
    return _mean(matrix[-1])


def forgetting(matrix: Matrix, *, learned: Order | None = None) -> float:
    """Mean loss of the last version against the best earlier one, over earlier holdouts.

    Chaudhry et al., Riemannian Walk for Incremental Learning (2018); NaN with one version.
    """
    earlier = _order(matrix, learned) < len(matrix) - 1
    if not earlier.any():
        return math.nan
    return _mean(_best(matrix[:-1, earlier]) - matrix[-1, earlier])


def backward_transfer(matrix: Matrix, *, learned: Order | None = None) -> float:
    """Mean change on each earlier holdout since the version that first learned it.

    Lopez-Paz and Ranzato, Gradient Episodic Memory (2017); NaN with one version.
    """
    by = _order(matrix, learned)
    earlier = np.flatnonzero(by < len(matrix) - 1)
    return _mean(matrix[-1, earlier] - matrix[by[earlier], earlier])


def forward_transfer(matrix: Matrix, initial: Matrix, *, learned: Order | None = None) -> float:
    """Mean advantage on each window just before learning it, over a model that learned nothing.

    Lopez-Paz and Ranzato, Gradient Episodic Memory (2017); NaN with one version.

    Args:
        matrix: Scores (T, H), of holdouts that come later too.
        initial: Scores (H,) of a randomly initialised model, NaN where it was not measured.
        learned: See the head of this file (H,).
    """
    by = _order(matrix, learned)
    later = np.flatnonzero((by > 0) & (by < len(matrix)))
    return _mean(matrix[by[later] - 1, later] - initial[later])


def summary(
    matrix: Matrix, initial: Matrix | None = None, *, learned: Order | None = None
) -> dict[str, Any]:
    """All measures and the matrix, with None in the place of NaN.

    Args:
        matrix: Scores (T, H).
        initial: Scores (H,) of a randomly initialised model, for forward transfer.
        learned: See the head of this file (H,).
    """
    values = {
        "average_accuracy": average_accuracy(matrix),
        "forgetting": forgetting(matrix, learned=learned),
        "backward_transfer": backward_transfer(matrix, learned=learned),
    }
    if initial is not None:
        values["forward_transfer"] = forward_transfer(matrix, initial, learned=learned)
    return {
        **{name: _plain(value) for name, value in values.items()},
        "matrix": [[_plain(float(value)) for value in row] for row in matrix],
    }


def _order(matrix: Matrix, learned: Order | None) -> Order:
    return np.arange(matrix.shape[1]) if learned is None else learned


def _best(earlier: Matrix) -> Matrix:
    best: Matrix = np.where(np.isnan(earlier), -np.inf, earlier).max(axis=0)
    return np.where(np.isinf(best), np.nan, best)


def _mean(values: Matrix) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
