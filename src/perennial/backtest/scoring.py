"""What a window is scored by: a metric of the task, or of torchmetrics.

Shapes: N rows of a window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from perennial.backtest.serving import Predicted
from perennial.errors import ConfigError, EvaluationError
from perennial.evaluation.measure import build_metric, point
from perennial.steps.judge import aggregate
from perennial.tasks.base import Task

WHERE = "backtest.metric"
# among what tasks measure
_LOWER = {"loss", "perplexity", "ece", "mae", "rmse"}


class Metric:
    """What windows are scored by.

    Args:
        name: One of the task's own metrics, or a class of torchmetrics; None is the task's score.
        task: What the model is for.
        classes: Number of them, as far as it is known before anything is trained.

    Attributes:
        name: Of the metric.
        higher_is_better: Its direction.

    Raises:
        ConfigError: A class of torchmetrics is named that does not exist or does not fit.
    """

    def __init__(self, name: str | None, *, task: Task, classes: int) -> None:
        self._task = task
        self.name = name or str(task.score_name)
        self.higher_is_better = self.name not in _LOWER
        self._is_class = self.name[:1].isupper()
        if self._is_class:
            with _told_here():
                built = build_metric(self.name, {}, classes=classes, kind=task.target_kind)
            self.higher_is_better = bool(built.higher_is_better)

    def of(self, predicted: Predicted, *, window: int) -> float:
        """Its value over all rows of a window.

        Raises:
            ConfigError: The task does not measure it.
            EvaluationError: The rows give no number.
        """
        label, kind = predicted.rows.label, self._task.target_kind
        # of one class an area is 0, whatever the model says
        one = self._is_class and kind == "class" and len(np.unique(label)) == 1
        value = math.nan if one else self._value(predicted)
        if not math.isfinite(value):
            raise EvaluationError(
                f"{self.name} says nothing on the {len(label):,} rows of window {window}"
                + (", which are of one class." if one else ": it is no finite number."),
                where=WHERE,
                mend="take another metric, or longer windows",
            )
        return value

    def _value(self, predicted: Predicted) -> float:
        label, found, task = predicted.rows.label, predicted.found, self._task
        classes, kind = len(predicted.label_names), task.target_kind
        if self._is_class:
            with _told_here():
                return point(self.name, predictions=found, label=label, classes=classes, kind=kind)
        everywhere = np.ones(len(label), dtype=bool)
        measured = aggregate(found, label, everywhere, task, classes)
        if self.name not in measured:
            own = ", ".join(name for name in measured if name != "n")
            raise ConfigError(
                f"{type(task).__name__} does not measure {self.name!r}.",
                where=WHERE,
                mend=f"take one of {own}, or a class of torchmetrics by its name",
            )
        return measured[self.name]


@contextmanager
def _told_here() -> Iterator[None]:
    """What a metric refuses, told of the setting that named it here."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(error.what, where=WHERE, mend=error.mend) from error
