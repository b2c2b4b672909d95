"""Regression: one number per row.

Shapes: B rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score

from perennial.errors import EvaluationError, require_setting
from perennial.tasks.base import called, split
from perennial.tasks.classification import computed
from perennial.tasks.likelihood import Gaussian
from perennial.types import Predictions


class Regression:
    """One number by squared error; a row's score is minus its absolute error.

    Args:
        label: Key of the targets in a batch that is a dict; a tuple's last element is its target.
        scale: What counts as an error of one, in the target's own unit, above 0: loss and scores
            are in it, and with them the gate's margins. Predictions stay in the target's unit.

    Raises:
        ConfigError: The scale is not a positive number.
    """

    target_kind = "number"
    score_name = "minus_mae"
    score_unit = ""
    binary = False
    labels: tuple[str, ...] | None = None

    def __init__(self, *, label: str = "label", scale: float = 1.0) -> None:
        require_setting(0 < scale < math.inf, "task.scale", scale, "above 0 and finite")
        self.label = label
        self.scale = float(scale)
        # ((y − f) / s)² is the negative log of a normal density of variance s²/2, up to a constant
        self.likelihood = Gaussian(variance=self.scale**2 / 2)
        self.arguments: dict[str, Any] = {"label": label, "scale": self.scale}

    def split_batch(self, batch: Any) -> tuple[Any, Tensor]:
        """Inputs and targets (B,) of a tuple or dict batch."""
        return split(batch, self.label)

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """Predicted numbers (B,), of a model that gives (B,) or (B, 1).

        Raises:
            EvaluationError: The model returned something else.
        """
        inputs, target = self.split_batch(batch)
        found = called(model, inputs)
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if shape not in ((len(target),), (len(target), 1)):
            raise EvaluationError(
                f"The model returned {shape} where one number for each of {len(target)} rows was "
                "expected.",
                where=type(model).__name__,
                mend="let forward return (rows,) or (rows, 1)",
            )
        numbers: Tensor = found.reshape(len(target))
        return numbers

    def widened(self, outputs: Tensor, classes: int) -> Tensor:
        """The outputs: there are no classes."""
        return outputs

    def per_example_loss(self, outputs: Tensor, batch: Any) -> Tensor:
        """Squared error (B,), over the squared scale."""
        target = self.split_batch(batch)[1].float()
        return ((outputs.float() - target) / self.scale) ** 2

    def probabilities(self, outputs: Tensor) -> None:
        """None: there are no classes."""

    def predictions(self, outputs: Tensor) -> Tensor:
        """The outputs (B,), float32."""
        return outputs.float()

    def scores(self, outputs: Tensor, batch: Any) -> Tensor:
        """Minus the absolute error (B,), over the scale."""
        return -(outputs.double() - self.split_batch(batch)[1].double()).abs() / self.scale

    def measure(
        self, predictions: Predictions, label: npt.NDArray[Any], classes: int
    ) -> dict[str, float]:
        """Mean score; mean absolute and root mean squared error in the target's unit; R².

        R² is left out where all targets are equal.
        """
        metrics: dict[str, Any] = {
            "mae": MeanAbsoluteError(),
            "rmse": MeanSquaredError(squared=False),
        }
        if len(label) > 1 and np.ptp(label) > 0:
            metrics["r2"] = R2Score()
        for metric in metrics.values():
            metric.set_dtype(torch.float64)
        found = computed(metrics, predictions.prediction.astype("f8"), label.astype("f8"))
        return {"minus_mae": float(predictions.score.mean()), **found}
