"""Backtests over tiny windows: what they score, what serves, and how they go on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch

from perennial.backtest import Backtest, backtest
from perennial.data.memory import Memory
from perennial.errors import ConfigError, DataError
from perennial.methods.base import Method
from perennial.methods.baselines import Joint
from perennial.methods.replay import Replay
from perennial.models.checkpoint import read_safetensors
from perennial.models.reference import MLP
from perennial.promotion.registry import Registry
from perennial.steps.collect import Data
from perennial.steps.settings import Cycle
from perennial.training.settings import Training
from perennial.types import StepContext

STEPS = 25
DATA = Data(
    memory=Memory(capacity=30), id_column="id", split_column="split", validation_fraction=0.0
)


class Stopped(Exception):  # noqa: N818
    """The process was killed here."""


class Watching(Method):
    """Sees the ids of every batch, and stops where it is told to."""

    name = "watching"
    learns_from_training = True

    def __init__(self, seen: set[str], stop_at: int | None = None) -> None:
        self._seen, self._stop_at = seen, stop_at

    def observe_gradients(self, step: StepContext) -> None:
        if step.global_step == self._stop_at:
            raise Stopped
        self._seen.update(step.batch.ids.tolist())


def frame(number: int, *, train: int = 60, test: int = 20) -> pd.DataFrame:
    """Two classes; which feature tells them apart changes from window to window."""
    generator = np.random.default_rng(number)
    values = generator.normal(size=(train + test, 3)).astype(np.float32)
    table = pd.DataFrame({f"x{i}": values[:, i] for i in range(3)})
    table["label"] = (values[:, number % 3] > 0).astype(int)
    table["id"] = [f"{number}-{row}" for row in range(train + test)]
    table["split"] = ["train"] * train + ["test"] * test
    return table


def built(number: int, **sizes: int) -> datasets.Dataset:
    return datasets.Dataset.from_pandas(frame(number, **sizes))


def run(windows: Sequence[Any], **changes: Any) -> Backtest:
    settings: dict[str, Any] = {
        "model": lambda: MLP(inputs=3, classes=2, hidden=[8]),
        "optimizer": functools.partial(torch.optim.Adam, lr=0.02),
        "methods": lambda number: [],
        "data": DATA,
        "training": Training(
            max_steps=STEPS, batch_size=10, keep="last", accelerator="cpu", resume_seconds=0
        ),
        "promotion": "always",
        "seed": 3,
    }
    return backtest(windows, **{**settings, **changes})


def registry(path: Path) -> Registry:
    return Registry(url=f"sqlite:///{path / 'registry.db'}")


def accuracy(model: MLP, number: int) -> float:
    table = frame(number)
    test = table[table["split"] == "test"]
    inputs = torch.tensor(test[["x0", "x1", "x2"]].to_numpy())
    with torch.no_grad():
        predicted = model(inputs).argmax(1).numpy()
    return float((predicted == test["label"].to_numpy()).mean())


def test_the_matrix_is_what_the_stored_champions_score(tmp_path: Path) -> None:
    kept = registry(tmp_path)
    result = run([built(number) for number in (1, 2, 3)], registry=kept)
    model = MLP(inputs=3, classes=2, hidden=[8])
    for i, window in enumerate(result.windows):
        assert window.serving == window.candidate == f"backtest@{i + 1}"
        stored = kept.version(window.serving).open("model.safetensors")
        model.load_state_dict(dict(read_safetensors(stored)))
        assert result.matrix[i].tolist() == [accuracy(model, number) for number in (1, 2, 3)]
    pl.seed_everything(3, verbose=False)
    fresh = MLP(inputs=3, classes=2, hidden=[8])
    assert result.initial.tolist() == [accuracy(fresh, number) for number in (1, 2, 3)]
    assert (np.diagonal(result.matrix) > 0.7).all(), "each window was learned"
    told = result.to_dict()
    assert told["matrix"] == result.matrix.tolist()
    assert told["forward_transfer"] == pytest.approx(
        np.mean([result.matrix[0, 1], result.matrix[1, 2]]) - result.initial[1:].mean()
    )
    assert told["backward_transfer"] < 0


def test_every_candidate_serves_and_its_verdict_stays_what_it_was(tmp_path: Path) -> None:
    kept = registry(tmp_path)
    result = run([built(number) for number in (1, 2)], registry=kept)
    records = kept.cycles("backtest")
    assert records[0].verdict == "bootstrap"
    assert records[1].verdict in ("rejected", "inconclusive")
    assert records[1].verdict == result.windows[1].verdict
    assert records[1].applied
    assert kept.aliases("backtest")["champion"] == 2
    assert "report.html" not in kept.version("backtest@2").files


def test_the_gate_decides_unless_told_otherwise(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holdout has 20 independent rows"):
        run([built(number) for number in (1, 2)], promotion="gate")
    large = [built(number, train=300, test=300) for number in (1, 2)]
    result = run(large, promotion="gate")
    assert result.windows[1].verdict == "rejected", "plain fine-tuning forgets"
    assert [window.serving for window in result.windows] == ["backtest@1", "backtest@1"]
    assert (result.matrix[0] == result.matrix[1]).all()


def test_costs_are_counted(tmp_path: Path) -> None:
    result = run([built(1), built(2)], methods=lambda number: [Replay(new_fraction=0.2)])
    first, second = result.windows
    assert (first.optimizer_steps, first.train_rows, first.replayed_rows) == (STEPS, 250, 0)
    assert (second.optimizer_steps, second.train_rows) == (STEPS, 250)
    assert second.replayed_rows == 8 * STEPS
    assert first.wall_seconds is not None
    assert first.wall_seconds > 0


@pytest.mark.parametrize("kind", ["built", "paths", "mixed"])
def test_history_is_every_earlier_window(tmp_path: Path, kind: str) -> None:
    windows: list[Any] = [built(number) for number in (1, 2, 3)]
    for number in {"built": (), "paths": (1, 2, 3), "mixed": (2,)}[kind]:
        path = tmp_path / f"{number}.parquet"
        frame(number).to_parquet(path)
        windows[number - 1] = str(path) if kind == "paths" else path
    seen: dict[int, set[str]] = {1: set(), 2: set(), 3: set()}
    run(
        windows,
        methods=lambda number: [Joint(), Watching(seen[number])],
        training=Training(max_steps=30, keep="last", accelerator="cpu"),
    )
    everything = {f"{number}-{row}" for number in (1, 2, 3) for row in range(60)}
    assert seen[3] == everything, "all training rows of all windows, and no holdout row"


def test_memory_is_what_a_version_carries() -> None:
    seen: dict[int, set[str]] = {1: set(), 2: set(), 3: set()}
    run(
        [built(number) for number in (1, 2, 3)],
        methods=lambda number: [Replay(new_fraction=0.5), Watching(seen[number])],
        history="memory",
    )
    replayed = {id for id in seen[3] if not id.startswith("3-")}
    assert len(replayed) == 30, "the memory's capacity"


@pytest.mark.parametrize("keep", [1, 2])
def test_only_the_latest_windows_are_history(keep: int) -> None:
    seen: dict[int, set[str]] = {number: set() for number in range(1, 5)}
    run(
        [built(number) for number in (1, 2, 3, 4)],
        methods=lambda number: [Replay(new_fraction=0.5), Watching(seen[number])],
        training=Training(max_steps=80, batch_size=20, keep="last", accelerator="cpu"),
        data=Data(
            memory=Memory(capacity=4),
            id_column="id",
            split_column="split",
            validation_fraction=0.0,
        ),
        keep=keep,
    )
    kept = {f"{number}-{row}" for number in range(4 - keep, 4) for row in range(60)}
    replayed = {id for id in seen[4] if not id.startswith("4-")}
    assert kept <= replayed
    assert len(replayed - kept) <= 4, "of older windows there is memory"


@pytest.mark.parametrize("change", [{"keep": 0}, {"keep": 1, "history": "memory"}, {"keep": 1}])
def test_what_cannot_be_narrowed_is_told(tmp_path: Path, change: dict[str, Any]) -> None:
    frame(2).to_parquet(tmp_path / "2.parquet")
    second = tmp_path / "2.parquet" if change == {"keep": 1} else built(2)
    with pytest.raises(ConfigError, match=f"keep is {change['keep']}"):
        run([built(1), second], **change)


def test_a_window_may_have_settings_of_its_own() -> None:
    def change(cycle: Cycle, number: int) -> Cycle:
        return replace(cycle, training=replace(cycle.training, max_steps=5 * number))

    result = run([built(number) for number in (1, 2, 3)], change=change)
    assert [window.optimizer_steps for window in result.windows] == [5, 10, 15]


def stopping(window: int, step: int) -> Callable[[int], list[Method]]:
    return lambda number: [Watching(set(), stop_at=step if number == window else None)]


@pytest.mark.parametrize(("window", "step"), [(1, 12), (2, 12), (3, 0)])
def test_it_goes_on_where_it_was_stopped(tmp_path: Path, window: int, step: int) -> None:
    windows = [built(number) for number in (1, 2, 3)]
    whole = run(windows, methods=stopping(0, 0))
    kept = registry(tmp_path)
    with pytest.raises(Stopped):
        run(windows, methods=stopping(window, step), registry=kept)
    assert len(kept.cycles("backtest")) == window - 1
    assert bool(list(tmp_path.rglob("resume.json"))) == bool(step)
    again = run(windows, methods=stopping(0, 0), registry=kept)
    assert (again.matrix == whole.matrix).all()
    assert [w.wall_seconds is None for w in again.windows] == [n < window for n in (1, 2, 3)]
    for ours, theirs in zip(again.windows, whole.windows, strict=True):
        assert replace(ours, wall_seconds=None) == replace(theirs, wall_seconds=None)
    once_more = run(windows, methods=stopping(0, 0), registry=kept)
    assert len(kept.cycles("backtest")) == 3, "nothing is done twice"
    assert (once_more.matrix == whole.matrix).all()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"seed": 4}, "settings"),
        ({"methods": lambda number: [Replay()]}, "settings"),
        ({"optimizer": functools.partial(torch.optim.Adam, lr=0.01)}, "settings"),
        ({}, "rows"),
    ],
)
def test_another_backtests_registry_is_refused(
    tmp_path: Path, change: dict[str, Any], what: str
) -> None:
    kept = registry(tmp_path)
    run([built(1)], registry=kept)
    other = built(1) if change else built(2)
    with pytest.raises(ConfigError, match=f"window 1 had other {what}"):
        run([other], registry=kept, **change)


def scaled(inputs: Any, *, generator: torch.Generator, **factors: Any) -> Any:
    return inputs


def turned(inputs: Any, *, generator: torch.Generator, **factors: Any) -> Any:
    return inputs


@pytest.mark.parametrize(
    "other",
    [
        functools.partial(turned, factor=2, by={"x0": 3}),
        functools.partial(scaled, factor=3, by={"x0": 3}),
        functools.partial(scaled, factor=2, by={"x0": 4}),
        functools.partial(functools.partial(scaled, factor=2), by=functools.partial(turned)),
        scaled,
        turned,
    ],
)
def test_functions_are_known_by_what_they_call_and_with_what(tmp_path: Path, other: Any) -> None:
    kept = registry(tmp_path)

    def begin(augment: Any) -> None:
        run([built(1)], registry=kept, data=replace(DATA, augment=augment))

    for _ in range(2):
        begin(functools.partial(scaled, factor=2, by={"x0": 3}))
    with pytest.raises(ConfigError, match="window 1 had other settings"):
        begin(other)


def test_windows_that_cannot_be_used() -> None:
    with pytest.raises(DataError, match="no window"):
        run([])
    with pytest.raises(DataError, match="Window 2 has no row"):
        run([built(1), built(1)])
    with pytest.raises(ConfigError, match="promotion is 'never'"):
        run([built(1)], promotion="never")
    no_test = Data(
        memory=Memory(),
        id_column="id",
        split_column="split",
        validation_fraction=0.0,
        holdout_fraction=0.0,
    )
    with pytest.raises(DataError, match="Window 1 has no holdout"):
        run([built(1, test=0)], data=no_test)
