from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import nn

from perennial.errors import ConfigError, EvaluationError
from perennial.tasks.language import CausalLanguage, next_tokens
from perennial.tasks.tokens import TokenClassification
from perennial.types import Predictions

ROWS, LENGTH, CLASSES = 12, 5, 3


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(ROWS, LENGTH, CLASSES, generator=generator)
    target = torch.randint(0, CLASSES, (ROWS, LENGTH), generator=generator)
    for row in range(ROWS):
        target[row, 1 + row % LENGTH :] = -100
    target[-1] = -100
    return logits, target


def test_loss_and_score_are_means_over_the_positions_with_a_label() -> None:
    logits, target = drawn()
    task = TokenClassification()
    loss = task.per_example_loss(logits, (None, target))
    score = task.scores(logits, (None, target))
    for row in range(ROWS - 1):
        there = [(t, int(y)) for t, y in enumerate(target[row].tolist()) if y != -100]
        terms = [-torch.log_softmax(logits[row, t], dim=0)[y].item() for t, y in there]
        right = [int(logits[row, t].argmax()) == y for t, y in there]
        assert loss[row].item() == pytest.approx(np.mean(terms), rel=1e-5)
        assert score[row].item() == pytest.approx(np.mean(right))
    assert (loss[-1].item(), score[-1].item()) == (0.0, 1.0)


def test_metrics_are_scikit_learns_over_positions() -> None:
    logits, target = drawn()
    task = TokenClassification()
    predicted, score = task.predictions(logits), task.scores(logits, (None, target)).numpy()
    predictions = Predictions(predicted.numpy(), score, np.zeros(ROWS))
    found = task.measure(predictions, target.numpy(), CLASSES)
    there = target != -100
    assert found == pytest.approx(
        {
            "token_accuracy": score.mean(),
            "position_accuracy": accuracy_score(target[there], predicted[there]),
            "f1_macro": f1_score(target[there], predicted[there], average="macro"),
        }
    )


class Fixed(nn.Module):
    """Gives the same logits, whatever it gets, and keeps what it got."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, *values: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        self.got = list(named) or len(values)
        return self.logits


def test_outputs_are_as_wide_as_the_targets() -> None:
    logits, target = drawn()
    task = TokenClassification()
    for width in (3, 5, 7):
        given = torch.zeros(ROWS, width, dtype=torch.long)
        found = task.outputs(Fixed(logits), (torch.zeros(ROWS, 5), given))
        assert found.shape == (ROWS, width, CLASSES)
        same = min(width, LENGTH)
        assert torch.equal(found[:, :same], logits[:, :same])
    with pytest.raises(EvaluationError, match="positions"):
        task.outputs(Fixed(logits[:, 0]), (torch.zeros(ROWS, 5), target))


def test_next_tokens_do_not_cross_into_padding() -> None:
    tokens = torch.tensor([[4, 5, 6, 7, 8, 0]])
    assert next_tokens(tokens).tolist() == [[5, 6, 7, 8, 0]]
    left = torch.tensor([[0, 0, 1, 1, 1, 0]])
    assert next_tokens(tokens, mask=left).tolist() == [[-100, -100, 7, 8, -100]]


def test_the_columns_of_a_language_model_are_named_once() -> None:
    ids = torch.ones(2, 4, dtype=torch.long)
    model = Fixed(torch.zeros(2, 4, 3))
    batch = {"input_ids": ids, "attention_mask": ids}
    assert CausalLanguage().outputs(model, batch).shape == (2, 3, 3)
    assert model.got == ["input_ids", "attention_mask"]
    with pytest.raises(ConfigError, match="There is no column 'input_ids'"):
        CausalLanguage().split_batch({"ids": ids})
    with pytest.raises(ConfigError, match="two purposes"):
        CausalLanguage(mask="input_ids")


def test_padding_is_never_trained_on_for_want_of_the_masks_column() -> None:
    ids = torch.ones(2, 4, dtype=torch.long)
    misspelt = CausalLanguage(mask="attention_msk")
    with pytest.raises(ConfigError, match=r"no column 'attention_msk'[\s\S]*task\.mask"):
        misspelt.split_batch({"input_ids": ids, "attention_mask": ids})
    with pytest.raises(ConfigError, match=r"a tuple has no column[\s\S]*data\.form"):
        CausalLanguage().split_batch((ids, ids))
    inputs, target = CausalLanguage(mask=None).split_batch((ids,))
    assert torch.equal(inputs, ids)
    assert target.shape == (2, 3)


def test_perplexity_is_that_of_the_mean_loss() -> None:
    loss = np.array([1.0, 2.0])
    found = CausalLanguage().measure(
        Predictions(np.zeros((2, 3)), np.array([0.5, 1.0]), loss), np.zeros(2), 0
    )
    assert found == pytest.approx({"token_accuracy": 0.75, "perplexity": math.exp(1.5)})
