"""Multi-label classification: any number of C labels per row.

Shapes: B rows, C labels.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MultilabelAccuracy, MultilabelF1Score

from perennial.errors import require_setting
from perennial.tasks.base import called, class_names, require_outputs, split
from perennial.tasks.classification import computed
from perennial.tasks.likelihood import Bernoulli
from perennial.types import Predictions


class MultiLabel:
    """Each label on or off on its own, by binary cross-entropy.

    The loss of a row is the mean over labels, its score the F1 of the labels that are on.

    Args:
        label: Key of the targets (B, C) in a batch that is a dict; a tuple's last element is its
            target.
        labels: Label names in the order of the model's outputs; None takes them from the data.
        threshold: Probability from which a label is predicted, in (0, 1).

    Raises:
        ConfigError: A value out of range.
    """

    target_kind = "classes"
    score_name = "f1"
    score_unit = "points"
    binary = False

    def __init__(
        self, *, label: str = "label", labels: list[str] | None = None, threshold: float = 0.5
    ) -> None:
        require_setting(0 < threshold < 1, "task.threshold", threshold, "above 0 and below 1")
        self.label = label
        self.labels = class_names(labels)
        self.threshold = float(threshold)
        self.likelihood = Bernoulli()
        self.arguments: dict[str, Any] = {
            "label": label,
            "labels": None if self.labels is None else list(self.labels),
            "threshold": self.threshold,
        }

    def split_batch(self, batch: Any) -> tuple[Any, Tensor]:
        """Inputs and targets (B, C) of a tuple or dict batch."""
        return split(batch, self.label)

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """Logits (B, C).

        Raises:
            EvaluationError: The model returned something that is not (B, C) logits.
        """
        inputs, target = self.split_batch(batch)
        return require_outputs(
            called(model, inputs),
            len(target),
            dimensions=2,
            what="logits (rows, labels)",
            model=model,
        )

    def widened(self, outputs: Tensor, classes: int) -> Tensor:
        """The outputs: labels are never appended."""
        assert outputs.shape[1] == classes
        return outputs

    def per_example_loss(self, outputs: Tensor, batch: Any) -> Tensor:
        """Binary cross-entropy in nats (B,), the mean over labels."""
        target = self.split_batch(batch)[1].float()
        loss = F.binary_cross_entropy_with_logits(outputs.float(), target, reduction="none")
        return loss.mean(dim=1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Sigmoid of the logits (B, C), float32."""
        return torch.sigmoid(outputs.float())

    def predictions(self, outputs: Tensor) -> Tensor:
        """1 where a label's probability reaches the threshold, else 0 (B, C), int8."""
        return (self.probabilities(outputs) >= self.threshold).to(torch.int8)

    def scores(self, outputs: Tensor, batch: Any) -> Tensor:
        """F1 of each row's labels (B,), in [0, 1]."""
        return example_f1(self.predictions(outputs), self.split_batch(batch)[1])

    def measure(
        self, predictions: Predictions, label: npt.NDArray[Any], classes: int
    ) -> dict[str, float]:
        """Mean F1 of the rows, micro and macro F1 and accuracy of the labels."""
        metrics: dict[str, Any] = {
            "f1_micro": MultilabelF1Score(num_labels=classes, average="micro"),
            "f1_macro": MultilabelF1Score(num_labels=classes, average="macro"),
            "label_accuracy": MultilabelAccuracy(num_labels=classes, average="micro"),
        }
        found = computed(metrics, predictions.prediction, label.astype("int64"))
        return {"f1": float(predictions.score.mean()), **found}


def example_f1(predicted: Tensor, target: Tensor) -> Tensor:
    """F1 of each row (B,) over its labels; 1 where none is on and none is predicted.

    ``2 |P ∩ T| / (|P| + |T|)`` (Godbole & Sarawagi, PAKDD 2004).

    Args:
        predicted: 0 and 1 (B, C).
        target: Likewise.
    """
    on, there = predicted.double(), target.double()
    both, total = (on * there).sum(dim=1), (on + there).sum(dim=1)
    # where nothing is on on either side, both are 0
    return torch.where(total > 0, 2 * both / total.clamp(min=1), 1.0)
