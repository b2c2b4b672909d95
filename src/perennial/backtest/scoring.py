"""The version that serves in a state, scored on a whole window before it learns of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from perennial.backtest.states import State, kept_score
from perennial.backtest.timeline import Past, Timeline
from perennial.data.rows import Rows
from perennial.data.source import check_schema
from perennial.errors import ConfigError, EvaluationError
from perennial.evaluation.measure import build_metric, point
from perennial.steps.candidate import view
from perennial.steps.judge import aggregate
from perennial.tasks.base import Task
from perennial.types import Predictions

if TYPE_CHECKING:
    from perennial.backtest.replay import CycleAt

WHERE = "backtest.metric"
# among what tasks measure
_LOWER = {"loss", "perplexity", "ece", "mae", "rmse"}


class Scorer:
    """Scores states on windows.

    Args:
        timeline: Names the metric.
        past: Has the rows.
        cycle_at: Builds cycles.

    Attributes:
        metric: Its name.
        higher_is_better: Its direction.

    Raises:
        ConfigError: A class of torchmetrics is named that does not exist or does not fit.
    """

    def __init__(self, *, timeline: Timeline, past: Past, cycle_at: CycleAt) -> None:
        self._past, self._cycle_at = past, cycle_at
        task = cycle_at(timeline.first).task
        self.metric = timeline.metric or str(task.score_name)
        self.higher_is_better = self.metric not in _LOWER
        self._is_class = self.metric[:1].isupper()
        if self._is_class:
            with _told_here():
                built = build_metric(self.metric, {}, classes=past.classes, kind=task.target_kind)
            self.higher_is_better = bool(built.higher_is_better)

    def score(self, state: State, window: int) -> float:
        """The metric of the version that serves, over all rows of a window.

        Raises:
            ConfigError: There is no such metric.
            DataError: The rows do not fit the version.
            EvaluationError: They give no finite number.
        """
        rows = self._past.windows[window].fingerprint
        return kept_score(state, [self.metric, rows], lambda: self._scored(state, window))

    def _scored(self, state: State, window: int) -> float:
        predictions, rows, names, task = self.predicted(state, window)
        value = self._value(predictions, rows.label, names, task)
        # of one class an area is 0, whatever the model says
        one = self._is_class and task.target_kind == "class" and len(np.unique(rows.label)) == 1
        if one or not math.isfinite(value):
            raise EvaluationError(
                f"{self.metric} says nothing on the {len(rows):,} rows of window {window}"
                + (", which are of one class." if one else ": it is no finite number."),
                where=WHERE,
                mend="take another metric, or longer windows",
            )
        return value

    def _value(
        self, predictions: Predictions, label: Any, names: Sequence[str], task: Task
    ) -> float:
        kind, classes = task.target_kind, len(names)
        if self._is_class:
            with _told_here():
                return point(
                    self.metric, predictions=predictions, label=label, classes=classes, kind=kind
                )
        everywhere = np.ones(len(label), dtype=bool)
        found = aggregate(predictions, label, everywhere, task, classes)
        if self.metric not in found:
            own = ", ".join(name for name in found if name != "n")
            raise ConfigError(
                f"{type(task).__name__} does not measure {self.metric!r}.",
                where=WHERE,
                mend=f"take one of {own}, or a class of torchmetrics by its name",
            )
        return found[self.metric]

    def predicted(
        self, state: State, window: int
    ) -> tuple[Predictions, Rows, tuple[str, ...], Task]:
        """Predictions of the version that serves, a window's rows, their label names, and the task.

        Labels that the version does not know come after its own.
        """
        cycle = self._cycle_at(window, url=state.url)
        version = cycle.registry.version(state.serving)
        known, schema = tuple(version.manifest["label_names"]), dict(version.manifest["schema"])
        grows = "grow" if cycle.task.target_kind in ("class", "item") else "refuse"
        data = replace(cycle.data, new_classes=grows).for_task(cycle.task)
        source = data.read(
            self._past.windows[window].rows,
            name="new",
            label_names=known,
            schema=schema,
            holds_out=False,
        )
        check_schema(schema, source.schema, "the version", "new")
        learner = cycle.learner(version)
        learner.load(learner.view(view(version)).weights)
        names = source.label_names
        return learner.predict(source.rows, classes=len(names)), source.rows, names, cycle.task


@contextmanager
def _told_here() -> Iterator[None]:
    """What a metric refuses, told of the setting that named it here."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(error.what, where=WHERE, mend=error.mend) from error
