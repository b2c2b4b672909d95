"""Classification: one label of C per row.

Shapes: B rows, C classes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from perennial.errors import ConfigError, EvaluationError
from perennial.tasks.likelihood import Categorical

# what implementations of the log loss clip probabilities to in single precision
UNKNOWN = torch.finfo(torch.float32).eps


class Classification:
    """Single-label classification with cross-entropy.

    Args:
        label: Key of the targets in a batch that is a dict; a tuple's last element is its target.
        labels: Class names in the order of the model's outputs; None takes them from the data.
            Give them where a checkpoint's order is not the data's own.
    """

    score_name = "accuracy"
    likelihood = Categorical()

    def __init__(self, *, label: str = "label", labels: list[str] | None = None) -> None:
        names = None if labels is None else tuple(str(name) for name in labels)
        if names is not None and len(set(names)) != len(names):
            raise ConfigError(
                "A class name is listed twice.",
                where="task.labels",
                mend="name each output of the model once, in the model's order",
            )
        self.label = label
        self.labels = names

    def split_batch(self, batch: Any) -> tuple[Any, Tensor]:
        """Inputs and targets (B,) of a tuple or dict batch."""
        if isinstance(batch, dict):
            inputs = {name: value for name, value in batch.items() if name != self.label}
            return inputs, batch[self.label]
        *inputs, target = batch
        return (inputs[0] if len(inputs) == 1 else tuple(inputs)), target

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """Logits (B, C): the model is called with a dict's entries by name, a tuple's by position.

        Raises:
            EvaluationError: The model returned something that is not (B, C) logits.
        """
        inputs, target = self.split_batch(batch)
        if isinstance(inputs, dict):
            result = model(**inputs)
        elif isinstance(inputs, tuple):
            result = model(*inputs)
        else:
            result = model(inputs)
        logits = getattr(result, "logits", result)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(target):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise EvaluationError(
                f"The model returned {shape} where logits (rows, classes) were expected.",
                where=type(model).__name__,
                mend="let forward return one row of logits per example",
            )
        return logits

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
        """Cross-entropy in nats (B,)."""
        return F.cross_entropy(outputs.float(), self.split_batch(batch)[1], reduction="none")

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Softmax of the logits (B, C), float32."""
        return torch.softmax(outputs.float(), dim=1)

    def predictions(self, outputs: Tensor) -> Tensor:
        """The most probable class (B,)."""
        return outputs.argmax(dim=1)

    def scores(self, outputs: Tensor, batch: Any) -> Tensor:
        """1 where the prediction is right, else 0 (B,), float32."""
        return (self.predictions(outputs) == self.split_batch(batch)[1]).float()

    def metrics(self, classes: int) -> MetricCollection:
        """Accuracy over rows and macro F1 over classes, fed with predictions and targets (B,)."""
        metrics: dict[str, Any] = {
            "accuracy": MulticlassAccuracy(num_classes=classes, average="micro"),
            "f1_macro": MulticlassF1Score(num_classes=classes, average="macro"),
        }
        return MetricCollection(metrics)
