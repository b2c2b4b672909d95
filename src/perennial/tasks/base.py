"""The contract of a task: what a plain ``nn.Module`` is for.

Shapes: B rows, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torchmetrics import MetricCollection

    from perennial.types import Likelihood


class Task(Protocol):
    """From a batch to outputs, per-example losses, predictions and scores, and metrics.

    Attributes:
        score_name: What the per-example score's mean is called, ``accuracy`` for 0/1.
        likelihood: Density of a target given the outputs, whose negative log is the per-example
            loss up to an added constant; the Fisher is taken of it.
    """

    score_name: str
    likelihood: Likelihood

    def split_batch(self, batch: Any) -> tuple[Any, Tensor]:
        """A batch in the source's own form to model inputs and targets (B,)."""
        ...

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """The model's outputs on a batch, (B, C) for classification."""
        ...

    def widened(self, outputs: Tensor, classes: int) -> Tensor:
        """Outputs over ``classes`` classes of a model that knows only the first of them."""
        ...

    def per_example_loss(self, outputs: Tensor, batch: Any) -> Tensor:
        """Losses (B,)."""
        ...

    def predictions(self, outputs: Tensor) -> Tensor:
        """Predictions (B,)."""
        ...

    def probabilities(self, outputs: Tensor) -> Tensor | None:
        """Class probabilities (B, C), or None for a task without classes."""
        ...

    def scores(self, outputs: Tensor, batch: Any) -> Tensor:
        """Scores (B,), higher is better, for the paired tests."""
        ...

    def metrics(self, classes: int) -> MetricCollection:
        """Aggregates, fed with predictions and targets."""
        ...
