from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torch import nn

from perennial.errors import ConfigError, EvaluationError
from perennial.tasks.regression import Regression
from perennial.types import Predictions


def test_loss_and_score_are_in_the_scale_and_the_density_is_the_losss() -> None:
    outputs, target = torch.randn(9, requires_grad=True), torch.randn(9)
    task = Regression(scale=4.0)
    loss = task.per_example_loss(outputs, (None, target))
    torch.testing.assert_close(loss, (outputs - target) ** 2 / 16)
    torch.testing.assert_close(
        task.scores(outputs, (None, target)), -(outputs.double() - target.double()).abs() / 4
    )
    (gradient,) = torch.autograd.grad(-loss.sum(), outputs)
    torch.testing.assert_close(task.likelihood.gradient(outputs.detach(), target), gradient)


def test_metrics_are_scikit_learns_in_the_targets_unit() -> None:
    generator = np.random.default_rng(0)
    truth = generator.normal(1e6, 1e3, size=200).astype(np.float32)
    given = (truth + generator.normal(0, 500, size=200)).astype(np.float32)
    score = -np.abs(given.astype("f8") - truth) / 1000
    found = Regression(scale=1000).measure(Predictions(given, score, score**2), truth, 0)
    assert found == pytest.approx(
        {
            "minus_mae": -mean_absolute_error(truth, given) / 1000,
            "mae": mean_absolute_error(truth.astype("f8"), given.astype("f8")),
            "rmse": root_mean_squared_error(truth.astype("f8"), given.astype("f8")),
            "r2": r2_score(truth.astype("f8"), given.astype("f8")),
        },
        rel=1e-6,
    )
    equal = np.ones(5, dtype=np.float32)
    assert "r2" not in Regression().measure(Predictions(equal, -equal, equal), equal, 0)


def test_one_number_a_row_is_taken_and_nothing_else() -> None:
    task, batch = Regression(), (torch.randn(6, 4), torch.randn(6))
    assert task.outputs(nn.Linear(4, 1), batch).shape == (6,)
    assert task.outputs(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), batch).shape == (6,)
    with pytest.raises(EvaluationError, match=r"\(6, 2\)"):
        task.outputs(nn.Linear(4, 2), batch)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_scale_that_is_no_positive_number_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="scale"):
        Regression(scale=scale)
