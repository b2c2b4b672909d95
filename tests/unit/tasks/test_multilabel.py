from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss

from perennial.errors import ConfigError
from perennial.tasks.multilabel import MultiLabel, example_f1
from perennial.types import Predictions


def drawn(rows: int = 60, labels: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(rows, labels, generator=generator)
    target = (torch.rand(rows, labels, generator=generator) < 0.3).long()
    return logits, target


def test_loss_is_the_mean_over_labels_as_scikit_learn_has_it() -> None:
    logits, target = drawn()
    found = MultiLabel().per_example_loss(logits, (None, target))
    p = torch.sigmoid(logits.double())
    for row in range(len(logits)):
        expected = log_loss(target[row], torch.stack([1 - p[row], p[row]], dim=1), labels=[0, 1])
        assert found[row].item() == pytest.approx(expected, rel=1e-5)


def test_a_probability_at_the_threshold_is_on() -> None:
    # the sigmoid of 0 is one half exactly
    assert MultiLabel(threshold=0.5).predictions(torch.tensor([[0.0, -1.0]])).tolist() == [[1, 0]]


def test_scores_are_the_f1_of_samples() -> None:
    logits, target = drawn()
    target[:5] = 0
    logits[:3] = -1.0
    task = MultiLabel(threshold=0.4)
    scores = task.scores(logits, (None, target))
    on = (torch.sigmoid(logits) >= 0.4).int()
    expected = f1_score(target, on, average="samples", zero_division=1)
    assert scores.mean().item() == pytest.approx(expected)
    assert scores[:3].tolist() == [1.0, 1.0, 1.0]
    assert example_f1(torch.tensor([[1, 1, 0]]), torch.tensor([[1, 0, 1]])).item() == 0.5
    assert task.predictions(logits).tolist() == on.tolist()


def test_metrics_are_scikit_learns() -> None:
    logits, target = drawn()
    task = MultiLabel()
    predicted = task.predictions(logits).numpy()
    score = task.scores(logits, (None, target)).numpy()
    predictions = Predictions(predicted, score, np.zeros(len(score)))
    found = task.measure(predictions, target.numpy().astype(np.int8), 4)
    assert found == pytest.approx(
        {
            "f1": score.mean(),
            "f1_micro": f1_score(target, predicted, average="micro"),
            "f1_macro": f1_score(target, predicted, average="macro"),
            "label_accuracy": accuracy_score(target.flatten(), predicted.flatten()),
        }
    )


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5])
def test_a_threshold_that_is_no_probability_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        MultiLabel(threshold=threshold)
