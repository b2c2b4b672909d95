"""One policy after another over the windows of a past, as they would have met them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import datasets

from perennial import cycle as story
from perennial.backtest.cadence import Cadence
from perennial.backtest.scoring import Metric
from perennial.backtest.serving import Serving
from perennial.backtest.states import Ran, State, States, kept_score
from perennial.backtest.timeline import Past, Timeline
from perennial.data.source import open_source
from perennial.environment import versions
from perennial.errors import DataError
from perennial.monitoring.triggers import Firing, Situation, Trigger
from perennial.monitoring.triggers import Past as Decided
from perennial.nested import leaves
from perennial.steps.found import found
from perennial.steps.settings import Cycle


class CycleAt(Protocol):
    """Builds the cycle that is configured for a window, on a registry of its own."""

    def __call__(
        self, window: int, *, url: str | None = None, settings: Mapping[str, Any] | None = None
    ) -> Cycle:
        """The cycle.

        Args:
            window: Its number.
            url: Of the registry; None where none is worked in.
            settings: Others beside the window's number, by their dotted names.
        """


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """A cycle that a policy ran.

    Attributes:
        first: The first window of the rows that were new to it.
        last: The last one.
        rows: How many these rows are.
        ran: What it came to.
    """

    first: int
    last: int
    rows: int
    ran: Ran


@dataclass(frozen=True)
class Step:
    """A window under a policy.

    Attributes:
        window: Its number.
        score: Of the version that served in it.
        firing: What the policy answered after it; None after the last one, which nothing follows.
        retraining: The cycle that it then ran, if any.
        labels: Labelled rows that it looked at after this window and not before: those that the
            cycle learned from, and those whose errors it watched.
    """

    window: int
    score: float
    firing: Firing | None
    retraining: Retraining | None
    labels: int


@dataclass(frozen=True)
class Course:
    """A policy over all windows.

    Attributes:
        policy: Its name.
        steps: One for each window.
    """

    policy: str
    steps: tuple[Step, ...]


class Replay:
    """Runs policies over a past.

    Args:
        timeline: Its windows.
        past: Their rows.
        states: Where lineages lie.
        cycle_at: Builds cycles.
        say: Shows a line.

    Attributes:
        metric: What windows are scored by.
    """

    def __init__(
        self,
        *,
        timeline: Timeline,
        past: Past,
        states: States,
        cycle_at: CycleAt,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.timeline, self.past, self.states = timeline, past, states
        self._cycle_at, self._say = cycle_at, say
        cycle = cycle_at(timeline.first)
        self.metric = Metric(timeline.metric, task=cycle.task, classes=past.classes)
        self._device = cycle.training.device()
        self._serving: tuple[str, Serving] | None = None

    def follow(self, cadence: Cadence) -> Course:
        """One policy from the first window to the last.

        Rows that a cycle cannot use leave things as they are, as they would have: the cycle has
        failed, and the next one that is due has them as well.

        Raises:
            PerennialError: Something else is wrong; what ran before it is kept.
        """
        state, since = self._found(self.timeline.first - 1), self.timeline.first
        steps: list[Step] = []
        bought: set[int] = set()
        decided: list[Decided] = []
        for window in self.timeline.windows:
            score, known = self._score(state, window), set(bought)
            firing, retraining = None, None
            if window < self.timeline.last:
                situation = self._situation(state, range(since, window + 1), decided, bought)
                firing = _asked(cadence.trigger, situation)
                last = window - self.timeline.label_delay
                if firing.due and last > state.learned:
                    state, retraining = self._retrain(cadence, state, last)
                    bought.update(range(retraining.first, retraining.last + 1))
                    decided += _decided(situation, retraining)
                    since = window + 1 if retraining.ran.applied else since
            labels = sum(self.past.rows(one, one) for one in bought - known)
            self._say(_line(cadence, window, score, firing, retraining))
            steps.append(Step(window, score, firing, retraining, labels))
        return Course(cadence.name, tuple(steps))

    def _score(self, state: State, window: int) -> float:
        """The metric of the version that serves, over all rows of a window."""
        rows = self.past.windows[window].fingerprint

        def score() -> float:
            return self.metric.of(self._served(state).predicted(window), window=window)

        return kept_score(state, [self.metric.name, rows], score)

    def _served(self, state: State) -> Serving:
        """The version that serves in a state; one at a time is held in memory."""
        if self._serving is None or self._serving[0] != state.id:
            cycle = self._cycle_at(self.timeline.first, url=state.url)
            serving = Serving(state, cycle, timeline=self.timeline, past=self.past)
            self._serving = (state.id, serving)
        return self._serving[1]

    def _situation(
        self, state: State, served: range, decided: list[Decided], bought: set[int]
    ) -> Situation:
        """What a trigger may look at after the last of the windows in which a version served."""
        window = served[-1]
        labelled = window - self.timeline.label_delay

        def errors() -> Any:
            bought.update(one for one in served if one <= labelled)
            return self._served(state).errors(served, labelled=labelled)

        return Situation(
            now=self.timeline.end(window),
            cycles=tuple(decided),
            rows=self.past.rows(state.learned + 1, labelled),
            reference=lambda: self._served(state).reference(),
            window=lambda: self._served(state).window(window),
            represent=lambda: self._served(state).represent(),
            errors=errors,
            device=self._device,
        )

    def _retrain(self, cadence: Cadence, state: State, last: int) -> tuple[State, Retraining]:
        """The state after a cycle on all labelled rows that the serving version has not learned."""
        first = self.timeline.first if cadence.scratch else state.learned + 1
        told = partial(Retraining, first=first, last=last, rows=self.past.rows(first, last))
        try:
            reached = self._found(last) if cadence.scratch else self._cycle(state, first, last)
        except DataError as error:  # the scheduled command would exit so, and what serves stays
            failed = Ran(verdict="failed", applied=False, serving=state.serving, reason=error.what)
            return state, told(ran=failed)
        return reached, told(ran=reached.ran)

    def _found(self, until: int) -> State:
        """A lineage whose first version is trained on everything up to a window's end."""
        window = max(until, self.timeline.first)
        settings = leaves(self.timeline.founding)
        cycle = self._cycle_at(window, settings=settings)

        def work(url: str) -> Ran:
            rows = self.past.until(until)
            self._say(f"training a first version on {len(rows):,} rows")
            given = self._cycle_at(window, url=url, settings=settings)
            version = found(replace(given, data=replace(given.data, history=rows, new=None)))
            told = version.manifest
            return Ran(
                verdict="bootstrap",
                applied=True,
                serving=version.id,
                device_seconds=told["device_seconds"],
                train_rows=told["train_rows"],
                replayed_rows=told["replayed_rows"],
                optimizer_steps=told["optimizer_steps"],
            )

        return self.states.reach(
            {"founded": until, **self._identity(cycle, until)},
            after=None,
            learned=until,
            work=work,
        )

    def _cycle(self, state: State, first: int, last: int) -> State:
        """The state after a cycle whose new rows are those of some windows."""
        cycle = self._cycle_at(last)

        def work(url: str) -> Ran:
            self._say(f"retraining {state.serving} on windows {first} to {last}")
            given = self._cycle_at(last, url=url)
            new, history = self.past.between(first, last), self._history(first, given)
            data = replace(given.data, new=new, history=history)
            return _ran(story.run(replace(given, data=data)), first, last)

        return self.states.reach(
            {
                "windows": [first, last],
                "promotion": self.timeline.promotion,
                **self._identity(cycle, last),
            },
            after=state,
            learned=last,
            work=work,
        )

    def _identity(self, cycle: Cycle, last: int) -> dict[str, Any]:
        """What a cycle's outcome depends on beside the state that it starts from."""
        rows = self.past.fingerprints(last)
        return {"config": cycle.config, "rows": rows, "libraries": versions()}

    def _history(self, first: int, cycle: Cycle) -> datasets.Dataset | None:
        """What is configured as history to the first of a cycle's windows.

        The version has learned all before it, and what is learned is not history to read again
        where the configuration leaves older windows to memory.
        """
        data = self._cycle_at(first).data
        if cycle.history != "all" or data.history is None:
            return None
        return open_source(data.history, name="history", csv=data.csv())


def _ran(result: Mapping[str, Any], first: int, last: int) -> Ran:
    if result["status"] == "skipped":
        raise DataError(
            f"Windows {first} to {last} have no row that the lineage has not met.",
            where="data.new",
            mend="leave them out with backtest.first and backtest.last",
        )
    cost, applied = result["cost"], bool(result["decision"]["applied"])
    return Ran(
        verdict=str(result["status"]),
        applied=applied,
        serving=str(result["candidate" if applied else "champion"]["id"]),
        device_seconds=float(cost["device_seconds"]),
        train_rows=int(cost["train_rows"]),
        replayed_rows=int(cost["replayed_rows"]),
        optimizer_steps=int(cost["optimizer_steps"]),
    )


def _asked(trigger: Trigger, situation: Situation) -> Firing:
    """A trigger's answer; rows that it cannot look at make nothing due, and it says so."""
    try:
        return trigger.ask(situation)
    except DataError as error:
        reason = f"it could not look: {error.what}"
        return Firing(kind=trigger.kind, due=False, reason=reason, evidence={"failed": True})


def _decided(situation: Situation, retraining: Retraining) -> list[Decided]:
    """The cycle as triggers know it; none where it failed before a decision."""
    ran = retraining.ran
    if ran.verdict == "failed":
        return []
    return [Decided(situation.now, ran.verdict, ran.applied, ran.device_seconds)]


def _line(
    cadence: Cadence,
    window: int,
    score: float,
    firing: Firing | None,
    retraining: Retraining | None,
) -> str:
    """What a window came to under a policy."""
    told = f"{cadence.name}, window {window}: {score:.4f}"
    if retraining is not None:
        ran = retraining.ran
        return f"{told}; {ran.verdict}{': ' if ran.reason else ''}{ran.reason or ''}"
    return f"{told}; no labelled row yet" if firing is not None and firing.due else told
