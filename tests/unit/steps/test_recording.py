"""Scores of predictions without the inputs are the task's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from perennial.errors import ConfigError
from perennial.steps.recording import scores
from perennial.tasks.classification import Classification
from perennial.tasks.language import CausalLanguage
from perennial.tasks.multilabel import MultiLabel
from perennial.tasks.regression import Regression

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("task", "outputs", "target"),
    [
        (Classification(), RANDOM.normal(size=(50, 3)), RANDOM.integers(0, 3, 50)),
        (Regression(scale=2.5), RANDOM.normal(size=50), RANDOM.normal(size=50)),
        (MultiLabel(), RANDOM.normal(size=(50, 4)), RANDOM.integers(0, 2, (50, 4))),
        (MultiLabel(threshold=0.9), RANDOM.normal(size=(50, 4)), RANDOM.integers(0, 2, (50, 4))),
    ],
)
def test_scores_are_those_of_the_outputs(task: Any, outputs: Any, target: Any) -> None:
    given = torch.from_numpy(outputs).float()
    target = target.astype(np.float32) if task.target_kind == "number" else target
    batch = (torch.zeros(50), torch.from_numpy(target))
    expected = task.scores(given, batch).double().numpy()
    found = scores(task, task.predictions(given).numpy(), target, classes=3)
    assert np.ptp(expected) > 0
    assert found == pytest.approx(expected)


def test_a_class_that_the_version_does_not_know_is_wrong() -> None:
    found = scores(Classification(), np.array([0, 1, 1]), np.array([0, 1, 2]), classes=3)
    assert found.tolist() == [1, 1, 0]


def test_a_score_that_needs_more_than_the_prediction_is_refused() -> None:
    with pytest.raises(ConfigError, match="prediction and a label alone"):
        scores(CausalLanguage(), np.zeros((2, 3)), np.zeros((2, 3)), classes=0)
