"""Backtest: the real cycle over an ordered series of windows, and what is left of each.

Shapes: T windows; ``matrix[i, j]`` is the score, after window i, of the version that then serves
on the holdout of window j, whether it was learned by then or not.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from inspect import isroutine
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from torch import nn

from perennial import cycle as story
from perennial.data.memory import Memory
from perennial.data.source import open_source
from perennial.errors import ConfigError, DataError
from perennial.evaluation.forgetting import Matrix, summary
from perennial.files import digest
from perennial.methods.base import Method
from perennial.promotion.policy import Policy
from perennial.promotion.registry import CycleRecord, Registry, Version
from perennial.steps.candidate import view
from perennial.steps.collect import Data
from perennial.steps.found import found
from perennial.steps.learner import Constructor
from perennial.steps.lineage import holdouts
from perennial.steps.settings import Cycle
from perennial.tasks.base import Task
from perennial.tasks.classification import Classification
from perennial.tracking.wandb import NoTracker
from perennial.training.optimizer import OptimizerFactory
from perennial.training.settings import Training

PROMOTIONS = ("gate", "always")
_PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Window:
    """What one window came to.

    Attributes:
        candidate: Id of the version that was trained on it.
        serving: Id of the version that serves after it.
        verdict: ``bootstrap`` for the first, then the gate's.
        optimizer_steps: Steps taken.
        train_rows: Rows trained on, replayed ones included, with repetition.
        replayed_rows: Of these, replayed.
        wall_seconds: Of the whole cycle; None where an earlier call had finished it.
    """

    candidate: str
    serving: str
    verdict: str
    optimizer_steps: int
    train_rows: int
    replayed_rows: int
    wall_seconds: float | None


@dataclass(frozen=True)
class Backtest:
    """Scores and costs of a series of cycles.

    Attributes:
        matrix: Scores (T, T), see the head of this file.
        initial: Scores (T,) of the model before it was trained at all.
        windows: In order.
    """

    matrix: Matrix
    initial: Matrix
    windows: tuple[Window, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the forgetting measures with the matrix, ``initial`` and ``windows``."""
        return {
            **summary(self.matrix, self.initial),
            "initial": self.initial.tolist(),
            "windows": [asdict(window) for window in self.windows],
        }


def backtest(
    windows: Sequence[Any],
    *,
    model: Callable[[], nn.Module],
    optimizer: OptimizerFactory,
    methods: Callable[[int], Sequence[Method]],
    data: Data | None = None,
    task: Task | None = None,
    training: Training | None = None,
    policy: Policy | None = None,
    promotion: str = "gate",
    history: str = "all",
    keep: int | None = None,
    seed: int = 0,
    registry: Registry | None = None,
    name: str = "backtest",
    change: Callable[[Cycle, int], Cycle] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Backtest:
    """Run the cycle over each window in turn, as it would have run when the window came in.

    The first window trains the first version; each later one is new data to the champion of then.
    Given a registry, an interrupted call goes on where it stopped.

    Args:
        windows: Sources in the order of time, of one schema: paths or built ``datasets.Dataset``.
        model: Builds the model; its weights are drawn under the seed.
        optimizer: Called with the trainable parameters, as a partial of a constructor is.
        methods: Number of the window, from 1, to fresh methods.
        data: How columns are read, split and remembered; its sources are not used.
        task: What the model is for.
        training: Length and manner.
        policy: The gate's.
        promotion: ``gate``, or ``always``: every candidate serves, whatever the verdict.
        history: ``all`` lets methods see earlier windows, ``memory`` what a version carries.
        keep: How many windows before the new one ``all`` is, where history misleads; of what was
            learned in older ones only memory is left. None for all of them. It takes built data
            sets: a path stays known to the lineage as long as it can be read.
        seed: Of everything random.
        registry: Where versions go; None for a temporary folder.
        name: Of the lineage.
        change: A window's cycle and its number, from 1, to the cycle that runs instead: for what
            differs from window to window.
        say: Shows a line.

    Returns:
        See `Backtest`.

    Raises:
        ConfigError: An unknown promotion, a ``keep`` that is no number of built windows, or a
            registry whose lineage is of another backtest.
        DataError: There is no window, or one without new rows or without a holdout.

    Example:
        >>> from functools import partial
        >>> import torch
        >>> from perennial.backtest import backtest
        >>> from perennial.data.digits import digits
        >>> from perennial.methods.replay import Replay
        >>> from perennial.models.reference import MLP
        >>> from perennial.steps.collect import Data
        >>> from perennial.training.settings import Training
        >>> clean, inverted = (
        ...     digits(part=part, inverted=part == "new") for part in ("history", "new")
        ... )
        >>> result = backtest(
        ...     [clean, inverted],
        ...     model=lambda: MLP(inputs=64, classes=10),
        ...     optimizer=partial(torch.optim.AdamW, lr=1e-3),
        ...     methods=lambda window: [Replay()],
        ...     data=Data(split_column="split", group_column="group"),
        ...     training=Training(max_steps=60, accelerator="cpu"),
        ... )
        >>> result.matrix.shape
        (2, 2)
    """
    if promotion not in PROMOTIONS:
        raise ConfigError(
            f"promotion is {promotion!r}.", where="promotion", mend="use gate or always"
        )
    _check_keep(keep, windows, history)
    if not windows:
        raise DataError("There is no window.", where="windows", mend="give at least one source")
    with _registry(registry) as kept:

        def prepared(number: int) -> Cycle:
            base = Cycle(
                name=name,
                data=data or Data(memory=Memory()),
                model=Constructor(target=_path(model), arguments={}, build=model),
                task=task or Classification(),
                methods=lambda: methods(number),
                optimizer=optimizer,
                training=training or Training(),
                policy=policy or Policy(),
                registry=kept,
                tracker=NoTracker(),
                folder=Path(),
                seed=seed,
                history=history,
                promotion=promotion,
                report=False,
                say=say,
            )
            changed = base if change is None else change(base, number)
            sources = _sources(changed, windows, number, keep)
            return replace(changed, data=sources, config=_plain(changed) | {"keep": keep})

        told = [_one(prepared(number), number) for number in range(1, len(windows) + 1)]
        matrix, initial = _scores(prepared(len(windows)), told)
    return Backtest(matrix=matrix, initial=initial, windows=tuple(told))


def _check_keep(keep: int | None, windows: Sequence[Any], history: str) -> None:
    if keep is None:
        return
    paths = any(isinstance(window, str | Path) for window in windows)
    if keep < 1 or paths or history != "all":
        raise ConfigError(
            f"keep is {keep}, history is {history!r}, and {'some' if paths else 'no'} windows are "
            "paths.",
            where="keep, history, windows",
            mend="give a number from 1, history=all and built data sets, or leave keep out",
        )


def _sources(cycle: Cycle, windows: Sequence[Any], number: int, keep: int | None) -> Data:
    """The window as new data, or as history where it founds the lineage.

    A version's manifest remembers the paths of earlier windows; built data sets are handed over.
    """
    if number == 1:
        return replace(cycle.data, history=windows[0], new=None)
    first = 0 if keep is None else max(0, number - 1 - keep)
    earlier = [w for w in windows[first : number - 1] if not isinstance(w, str | Path)]
    opened = [open_source(source, name="history", csv=cycle.data.csv()) for source in earlier]
    history = datasets.concatenate_datasets(opened) if cycle.history == "all" and opened else None
    return replace(cycle.data, history=history, new=windows[number - 1])


def _one(cycle: Cycle, number: int) -> Window:
    """Run one window, unless an earlier call did."""
    records = cycle.registry.cycles(cycle.name)
    seconds: float | None = None
    if len(records) < number:
        started = time.monotonic()
        if number == 1:
            found(cycle)
        elif story.run(cycle)["status"] == "skipped":
            raise DataError(
                f"Window {number} has no row that earlier windows have not.",
                where=f"windows[{number - 1}]",
                mend="leave it out",
            )
        seconds = time.monotonic() - started
        records = cycle.registry.cycles(cycle.name)
    else:
        _check_same(cycle, records[number - 1], number)
    return _told(cycle, records[:number], seconds)


def _told(cycle: Cycle, records: Sequence[CycleRecord], seconds: float | None) -> Window:
    last = records[-1]
    manifest = _version(cycle, last.candidate).manifest
    serving = next(record.candidate for record in reversed(records) if record.applied)
    return Window(
        candidate=f"{cycle.name}@{last.candidate}",
        serving=f"{cycle.name}@{serving}",
        verdict=last.verdict,
        optimizer_steps=int(manifest["optimizer_steps"]),
        train_rows=int(manifest["train_rows"]),
        replayed_rows=int(manifest["replayed_rows"]),
        wall_seconds=seconds,
    )


def _check_same(cycle: Cycle, record: CycleRecord, number: int) -> None:
    """Refuse to go on from another backtest's versions."""
    manifest = _version(cycle, record.candidate).manifest
    source = cycle.data.history if number == 1 else cycle.data.new
    names = tuple(manifest["label_names"])
    schema = dict(manifest["schema"])
    rows = cycle.data.read(source, name="window", label_names=names, schema=schema)
    same = manifest["data"]["fingerprint"] == rows.fingerprint
    if not same or digest(manifest["config"]) != cycle.config_sha256():
        what = "settings" if same else "rows"
        raise ConfigError(
            f"{cycle.name!r} holds versions already, and window {number} had other {what}.",
            where="registry, name",
            mend="give the backtest another name, or an empty registry",
        )


def _scores(cycle: Cycle, told: Sequence[Window]) -> tuple[Matrix, Matrix]:
    """Every version that served after a window, and the untrained model, on every holdout."""
    held = []
    for number, window in enumerate(told, 1):
        parts = holdouts(cycle.registry.version(window.candidate))
        if not parts:
            raise DataError(
                f"Window {number} has no holdout.",
                where="data.holdout_fraction",
                mend="raise it, or mark rows as holdout in data.split_column",
            )
        held.append(list(parts.values())[-1])
    cycle.seed_everything()
    learner = cycle.learner(preprocess=cycle.stored_preprocess(_version(cycle, 1)))

    def row() -> list[float]:
        return [float(learner.predict(rows).score.mean()) for rows in held]

    initial = np.array(row())
    found_rows: dict[str, list[float]] = {}
    for window in told:
        if window.serving not in found_rows:
            learner.load(learner.view(view(cycle.registry.version(window.serving))).weights)
            found_rows[window.serving] = row()
    return np.array([found_rows[window.serving] for window in told]), initial


def _version(cycle: Cycle, number: int) -> Version:
    return cycle.registry.version(f"{cycle.name}@{number}")


def _plain(cycle: Cycle) -> dict[str, Any]:
    """What makes a cycle what it is, as plain values: its identity in the registry."""
    memory, preprocess = cycle.data.memory, cycle.data.preprocess
    return {
        "methods": {method.name: _settings(method) for method in cycle.methods()},
        "training": asdict(cycle.training),
        "optimizer": _settings(cycle.optimizer),
        "task": _settings(cycle.task),
        "memory": _settings(memory),
        "sampling": cycle.data.sampling,
        "augment": None if cycle.data.augment is None else _settings(cycle.data.augment),
        "preprocess": None
        if preprocess is None
        else [_path(type(preprocess)), preprocess.settings],
        "seed": cycle.seed,
        "history": cycle.history,
        "promotion": cycle.promotion,
    }


def _settings(thing: Any) -> dict[str, Any]:
    """Class and public plain attributes, of what it is made of too; a function's own name.

    Of a partial they are those of what it calls, and the arguments that it gives.
    """
    if isinstance(thing, partial):
        called = _settings(thing.func)
        named = {f"[{i}]": value for i, value in enumerate(thing.args)} | thing.keywords
        return called | {"arguments": _attributes(named)}
    if isinstance(thing, type) or isroutine(thing):
        return {"target": _path(thing)}
    return {"target": _path(type(thing)), **_attributes(vars(thing))}


def _attributes(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name.startswith("_"):
            continue
        if isinstance(value, _PLAIN):
            found[name] = value
        elif isinstance(value, list | tuple) and all(isinstance(one, _PLAIN) for one in value):
            found[name] = list(value)
        elif isinstance(value, Mapping):
            found[name] = _attributes({str(key): one for key, one in value.items()})
        elif isroutine(value) or type(value).__module__.startswith(("perennial.", "functools")):
            found[name] = _settings(value)
    return found


def _path(thing: Any) -> str:
    return f"{thing.__module__}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


@contextmanager
def _registry(given: Registry | None) -> Iterator[Registry]:
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Registry(url=f"sqlite:///{Path(folder) / 'registry.db'}")
