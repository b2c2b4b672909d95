"""Token classification: a label of C at each position that has one.

Shapes: B rows, T positions, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from perennial.tasks.base import called, class_names, require_outputs, split
from perennial.tasks.classification import computed
from perennial.tasks.likelihood import IGNORED, CategoricalTokens
from perennial.types import Predictions


class Positions:
    """What tasks with a target at each position share: one forward gives logits (B, T, C)."""

    score_name = "token_accuracy"
    score_unit = "points"
    binary = False

    def split_batch(self, batch: Any) -> tuple[Any, Tensor]:
        """Inputs, and targets (B, T) that are -100 where there is none."""
        raise NotImplementedError

    def per_example_loss(self, outputs: Tensor, batch: Any) -> Tensor:
        """Cross-entropy in nats (B,), the mean over the positions that have a target."""
        return token_loss(outputs, self.split_batch(batch)[1])

    def probabilities(self, outputs: Tensor) -> None:
        """None: a row has as many distributions as positions."""

    def predictions(self, outputs: Tensor) -> Tensor:
        """The most probable class of each position (B, T)."""
        return outputs.argmax(dim=2)

    def scores(self, outputs: Tensor, batch: Any) -> Tensor:
        """Share of a row's positions that are right (B,); 1 where none has a target."""
        return token_accuracy(self.predictions(outputs), self.split_batch(batch)[1])


class TokenClassification(Positions):
    """One label per position, by cross-entropy; loss and score are means over a row's positions.

    Positions with the target -100 have no label and count nowhere. Targets that are shorter than
    the model's outputs are filled up with it; longer ones are cut, as their inputs were.

    Args:
        label: Key of the targets (B, T) in a batch that is a dict; a tuple's last element is its
            target.
        labels: Class names in the order of the model's outputs; None takes them from the data.
    """

    target_kind = "tokens"

    def __init__(self, *, label: str = "label", labels: list[str] | None = None) -> None:
        self.label = label
        self.labels = class_names(labels)
        self.likelihood = CategoricalTokens()
        self.arguments: dict[str, Any] = {
            "label": label,
            "labels": None if self.labels is None else list(self.labels),
        }

    def split_batch(self, batch: Any) -> tuple[Any, Tensor]:
        """Inputs and targets (B, T) of a tuple or dict batch."""
        return split(batch, self.label)

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """Logits (B, T, C), T as wide as the targets; of targets without any width, the model's T.

        Raises:
            EvaluationError: The model returned something else.
        """
        inputs, target = self.split_batch(batch)
        logits = require_outputs(
            called(model, inputs),
            len(target),
            dimensions=3,
            what="logits (rows, positions, classes)",
            model=model,
        )
        # of no width at all there are no targets, and none to be as wide as
        width = target.shape[1] or logits.shape[1]
        missing = width - logits.shape[1]
        return F.pad(logits, (0, 0, 0, missing)) if missing > 0 else logits[:, :width]

    def widened(self, outputs: Tensor, classes: int) -> Tensor:
        """The outputs: classes of positions are never appended."""
        assert outputs.shape[2] == classes
        return outputs

    def measure(
        self, predictions: Predictions, label: npt.NDArray[Any], classes: int
    ) -> dict[str, float]:
        """Mean score of the rows; accuracy and macro F1 over positions."""
        metrics: dict[str, Any] = {
            "position_accuracy": MulticlassAccuracy(
                num_classes=classes, average="micro", ignore_index=IGNORED
            ),
            "f1_macro": MulticlassF1Score(
                num_classes=classes, average="macro", ignore_index=IGNORED
            ),
        }
        found = computed(metrics, predictions.prediction, label)
        return {"token_accuracy": float(predictions.score.mean()), **found}


def token_loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of each row (B,) over positions with a target; 0 where there is none.

    Args:
        outputs: Logits (B, T, C).
        target: (B, T), -100 where there is none.
    """
    loss = F.cross_entropy(
        outputs.float().transpose(1, 2), target, reduction="none", ignore_index=IGNORED
    )
    return loss.sum(dim=1) / (target != IGNORED).sum(dim=1).clamp(min=1)


def token_accuracy(predicted: Tensor, target: Tensor) -> Tensor:
    """Share of the positions with a target that are right (B,), float64; 1 where there is none."""
    counted = target != IGNORED
    number = counted.sum(dim=1)
    right = ((predicted == target) & counted).sum(dim=1)
    return torch.where(number > 0, right.double() / number.clamp(min=1), 1.0)
