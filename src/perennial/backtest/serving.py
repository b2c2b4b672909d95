"""The version that serves in a state, as triggers look at it and as windows are scored by it.

Shapes: N rows of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from perennial.backtest.states import State
from perennial.backtest.timeline import Past, Timeline
from perennial.data.rows import Rows, concatenate
from perennial.data.source import check_schema
from perennial.errors import DataError
from perennial.monitoring.drift import Represent
from perennial.monitoring.performance import HeldOut, Record, join, recorded
from perennial.monitoring.reference import Reference
from perennial.monitoring.window import Window
from perennial.steps.learner import Learner
from perennial.steps.lineage import holdouts
from perennial.steps.loaded import configured
from perennial.steps.predicted import confidence, held_out_from, held_out_of
from perennial.steps.reference import reference_of, represent
from perennial.steps.settings import Cycle
from perennial.types import NAMED_KINDS, Predictions


@dataclass(frozen=True)
class Predicted:
    """What a version predicted for a window.

    Attributes:
        rows: The window's (N,), as the version takes them.
        found: Its predictions.
        label_names: Its own, and after them those of labels that it does not know.
    """

    rows: Rows
    found: Predictions
    label_names: tuple[str, ...]


class Serving:
    """The version that serves in a state.

    Args:
        state: Where it lies.
        cycle: Configured for the timeline's first window, on the state's registry.
        timeline: The windows.
        past: Their rows.
    """

    def __init__(self, state: State, cycle: Cycle, *, timeline: Timeline, past: Past) -> None:
        self._cycle, self._timeline, self._past = cycle, timeline, past
        self._version = cycle.registry.version(state.serving)
        self._known: dict[int, Predicted] = {}

    @cached_property
    def _learner(self) -> Learner:
        return configured(self._cycle, self._version)

    @cached_property
    def _label_names(self) -> tuple[str, ...]:
        return tuple(self._version.manifest["label_names"])

    @cached_property
    def _reference(self) -> Reference:
        return reference_of(self._version)

    def predicted(self, window: int) -> Predicted:
        """What it predicts for a window, before it learns of it.

        Raises:
            DataError: The rows do not fit the version.
        """
        if window not in self._known:
            rows, names = self._rows(window)
            found = self._learner.predict(rows, classes=len(names))
            self._known[window] = Predicted(rows, found, names)
        return self._known[window]

    def _rows(self, window: int) -> tuple[Rows, tuple[str, ...]]:
        cycle, schema = self._cycle, dict(self._version.manifest["schema"])
        grows = "grow" if cycle.task.target_kind in ("class", "item") else "refuse"
        data = replace(cycle.data, new_classes=grows).for_task(cycle.task)
        source = data.read(
            self._past.windows[window].rows,
            name="new",
            label_names=self._label_names,
            schema=schema,
            holds_out=False,
        )
        check_schema(schema, source.schema, "the version", "new")
        return source.rows, source.label_names

    def reference(self) -> Reference:
        """What it carries of its own rows."""
        return self._reference

    def window(self, window: int) -> Window:
        """A window's rows, without their labels."""
        return Window.of(self._rows(window)[0].features, self._reference, name="new")

    def represent(self) -> Represent:
        """Runs it on raw columns."""
        return represent(self._learner, self._label_names)

    def errors(self, windows: Sequence[int], *, labelled: int) -> tuple[HeldOut, list[Record]]:
        """It on held-out rows, and what it predicted for windows.

        Args:
            windows: In order, in which it served.
            labelled: The last window whose labels have come.
        """
        return self._held_out, [self._record(one, known=one <= labelled) for one in windows]

    def _record(self, window: int, *, known: bool) -> Record:
        told, where = self.predicted(window), f"data.new, {self._timeline.key}={window}"
        kind = self._cycle.task.target_kind
        record = recorded(
            told.rows.id,
            told.found.prediction,
            confidence=confidence(told.found) if kind == "class" else None,
            time=told.rows.time,
            now=self._timeline.end(window),
            where=where,
        )
        if not known:
            return record
        came = self._timeline.end(window + self._timeline.label_delay)
        score = told.found.score
        joined = join({where: record}, told.rows.id, score, now=came, where=where)
        return joined.changed.get(where, record)

    @cached_property
    def _held_out(self) -> HeldOut:
        """From its decision; of a founding, which was decided on nothing, predicted now."""
        if (stored := held_out_of(self._version)) is not None:
            return stored
        held = [rows for rows in holdouts(self._version).values() if len(rows)]
        if not held:
            raise DataError(
                f"{self._version.id} has no held-out rows: it is not known how well it did.",
                where="data.holdout_fraction",
                mend="raise it, or leave the policy performance out",
            )
        task, names = self._cycle.task, self._label_names
        return held_out_from(
            self._learner.predict(concatenate(held), classes=len(names)),
            kind=task.target_kind,
            classes=len(names) if task.target_kind in NAMED_KINDS else 0,
            score_name=task.score_name,
        )
