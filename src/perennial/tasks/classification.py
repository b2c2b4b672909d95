"""Classification: one label of C per row.

Shapes: B rows, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from perennial.errors import ConfigError, require_setting
from perennial.tasks.base import called, class_names, require_outputs, split
from perennial.tasks.likelihood import Categorical
from perennial.types import Predictions

# what implementations of the log loss clip probabilities to in single precision
UNKNOWN = torch.finfo(torch.float32).eps


class Classification:
    """Single-label classification with cross-entropy.

    Args:
        label: Key of the targets in a batch that is a dict; a tuple's last element is its target.
        labels: Class names in the order of the model's outputs; None takes them from the data.
            Give them where a checkpoint's order is not the data's own.
        class_weights: Class name to how much a row of the class counts in the loss, 1 for those
            that are not named; with ``labels``, which say the order. Scores count every row alike.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1); the
            curvature of the loss is the same whatever it is, and so is the Fisher.

    Raises:
        ConfigError: A value out of range, or weights of classes without a place.
    """

    target_kind = "class"
    score_name = "accuracy"
    score_unit = "points"
    binary = True

    def __init__(
        self,
        *,
        label: str = "label",
        labels: list[str] | None = None,
        class_weights: Mapping[str, float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        require_setting(
            0 <= label_smoothing < 1,
            "task.label_smoothing",
            label_smoothing,
            "at least 0 and below 1",
        )
        self.label = label
        self.labels = class_names(labels)
        self.label_smoothing = float(label_smoothing)
        self.class_weights = _ordered(class_weights, self.labels) if class_weights else ()
        self.likelihood = Categorical(weights=self.class_weights)
        self.arguments: dict[str, Any] = {
            "label": label,
            "labels": None if self.labels is None else list(self.labels),
            "class_weights": dict(class_weights) if class_weights else None,
            "label_smoothing": self.label_smoothing,
        }

    def split_batch(self, batch: Any) -> tuple[Any, Tensor]:
        """Inputs and targets (B,) of a tuple or dict batch."""
        return split(batch, self.label)

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """Logits (B, C): the model is called with a dict's entries by name, a tuple's by position.

        Raises:
            EvaluationError: The model returned something that is not (B, C) logits.
        """
        inputs, target = self.split_batch(batch)
        return require_outputs(
            called(model, inputs),
            len(target),
            dimensions=2,
            what="logits (rows, classes)",
            model=model,
        )

    def widened(self, outputs: Tensor, classes: int) -> Tensor:
        """Logits (B, classes) of a model whose own (B, C) know nothing of the other classes.

        Each of these gets the probability `UNKNOWN`, so that a row of such a class is wrong at a
        finite loss of 15.9 nats; the odds of the model's own classes stay as they are.
        """
        count = classes - outputs.shape[1]
        assert count >= 0
        if count == 0:
            return outputs
        own = outputs.float()
        rest = math.log(UNKNOWN) - math.log1p(-count * UNKNOWN)
        unknown = torch.logsumexp(own, dim=1, keepdim=True) + rest
        return torch.cat([own, unknown.expand(-1, count)], dim=1)

    def per_example_loss(self, outputs: Tensor, batch: Any) -> Tensor:
        """Cross-entropy in nats (B,), times the weight of the row's class."""
        target = self.split_batch(batch)[1]
        loss = F.cross_entropy(
            outputs.float(), target, reduction="none", label_smoothing=self.label_smoothing
        )
        if not self.class_weights:
            return loss
        return loss * row_weights(self.class_weights, target, outputs.shape[1]).to(loss)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Softmax of the logits (B, C), float32."""
        return torch.softmax(outputs.float(), dim=1)

    def predictions(self, outputs: Tensor) -> Tensor:
        """The most probable class (B,)."""
        return outputs.argmax(dim=1)

    def scores(self, outputs: Tensor, batch: Any) -> Tensor:
        """1 where the prediction is right, else 0 (B,), float32."""
        return (self.predictions(outputs) == self.split_batch(batch)[1]).float()

    def measure(
        self, predictions: Predictions, label: npt.NDArray[Any], classes: int
    ) -> dict[str, float]:
        """Accuracy over rows and macro F1 over classes."""
        metrics: dict[str, Any] = {
            "accuracy": MulticlassAccuracy(num_classes=classes, average="micro"),
            "f1_macro": MulticlassF1Score(num_classes=classes, average="macro"),
        }
        return computed(metrics, predictions.prediction, label)


def row_weights(weights: tuple[float, ...], target: Tensor, classes: int) -> Tensor:
    """Weight of each row's class (B,); 1 for classes that came after the named ones."""
    table = torch.ones(classes, dtype=torch.float64, device=target.device)
    table[: len(weights)] = torch.tensor(weights, dtype=torch.float64, device=target.device)
    return table[target]


def computed(
    metrics: dict[str, Any], prediction: npt.NDArray[Any], label: npt.NDArray[Any]
) -> dict[str, float]:
    """Torchmetrics of predictions and targets (N, ...), by name."""
    given = (torch.from_numpy(np.ascontiguousarray(values)) for values in (prediction, label))
    return {name: float(value) for name, value in MetricCollection(metrics)(*given).items()}


def _ordered(weights: Mapping[str, float], names: tuple[str, ...] | None) -> tuple[float, ...]:
    if names is None:
        raise ConfigError(
            "Weights of classes are given, and the order of the classes is not.",
            where="task.class_weights",
            mend="name all classes in the order of the model's outputs in task.labels=[...]",
        )
    if unknown := [name for name in map(str, weights) if name not in names]:
        raise ConfigError(
            f"There is a weight for {unknown[0]!r}, which is no class.",
            where="task.class_weights",
            mend=f"the classes in task.labels are {', '.join(names[:10])}",
        )
    for name, value in weights.items():
        good = isinstance(value, int | float) and 0 < value < math.inf
        require_setting(good, "task.class_weights", {name: value}, "of numbers above 0")
    given = {str(name): float(value) for name, value in weights.items()}
    return tuple(given.get(name, 1.0) for name in names)
