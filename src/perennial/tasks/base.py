"""The contract of a task: what a plain ``nn.Module`` is for.

Shapes: B rows of a batch, N rows of a set, C classes; what follows the rows is the task's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from perennial.errors import ConfigError, EvaluationError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from perennial.types import Likelihood, Predictions


class Task(Protocol):
    """From a batch to outputs, per-example losses, predictions and scores, and metrics.

    Attributes:
        target_kind: What a row's target is, one of `perennial.types.TARGET_KINDS`.
        score_name: Name of the per-example score's mean, among the metrics too: ``accuracy``.
        score_unit: ``points`` where scores are shares in [0, 1] that are shown in percent, else
            empty.
        binary: Whether each score is 0 or 1.
        labels: Class names in the order of the model's outputs; None takes them from the data.
        likelihood: Density of a target given the outputs, whose negative log is the per-example
            loss up to an added constant; the Fisher is taken of it.
        arguments: Of the constructor, plain values: what a version keeps of the task.
    """

    target_kind: str
    score_name: str
    score_unit: str
    binary: bool
    labels: tuple[str, ...] | None
    likelihood: Likelihood
    arguments: Mapping[str, Any]

    def split_batch(self, batch: Any) -> tuple[Any, Tensor]:
        """A batch in the source's own form to model inputs and targets (B, ...)."""
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
        """Predictions (B, ...)."""
        ...

    def probabilities(self, outputs: Tensor) -> Tensor | None:
        """Class probabilities (B, C), or None for a task without classes."""
        ...

    def scores(self, outputs: Tensor, batch: Any) -> Tensor:
        """Scores (B,), higher is better, for the paired tests."""
        ...

    def measure(
        self, predictions: Predictions, label: npt.NDArray[Any], classes: int
    ) -> dict[str, float]:
        """Aggregates over N rows by name, the mean score among them.

        Args:
            predictions: Of one model.
            label: Targets (N, ...).
            classes: Number of them; 0 for a task without classes.
        """
        ...


def split(batch: Any, label: str) -> tuple[Any, Tensor]:
    """Inputs and targets of a batch: by the label's key of a dict, else a tuple's last element."""
    if isinstance(batch, dict):
        inputs = {name: value for name, value in batch.items() if name != label}
        return inputs, batch[label]
    *values, target = batch
    return (values[0] if len(values) == 1 else tuple(values)), target


def called(model: nn.Module, inputs: Any) -> Any:
    """What the model returns: called with a dict's entries by name, a tuple's by position.

    Of an object with ``logits``, as transformers' models return, it is these.
    """
    if isinstance(inputs, dict):
        result = model(**inputs)
    elif isinstance(inputs, tuple):
        result = model(*inputs)
    else:
        result = model(inputs)
    return getattr(result, "logits", result)


def require_outputs(outputs: Any, rows: int, *, dimensions: int, what: str, model: Any) -> Tensor:
    """Outputs that have a row for each example, and as many dimensions as a task takes.

    Raises:
        EvaluationError: They do not.
    """
    import torch

    good = isinstance(outputs, torch.Tensor) and outputs.ndim == dimensions
    if not good or len(outputs) != rows:
        shape = (
            tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        )
        raise EvaluationError(
            f"The model returned {shape} where {what} were expected.",
            where=type(model).__name__,
            mend=f"let forward return {what}, one per example",
        )
    found: Tensor = outputs
    return found


def class_names(labels: list[str] | None) -> tuple[str, ...] | None:
    """The setting ``task.labels`` as names.

    Raises:
        ConfigError: A name is listed twice.
    """
    names = None if labels is None else tuple(str(name) for name in labels)
    if names is not None and len(set(names)) != len(names):
        raise ConfigError(
            "A class name is listed twice.",
            where="task.labels",
            mend="name each output of the model once, in the model's order",
        )
    return names
