"""What a person is told of a fit: its last line above all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from rich.console import Console

from perennial.data.datamodule import CycleData
from perennial.data.rows import Rows
from perennial.reporting.progress import Display
from perennial.tasks.classification import Classification
from perennial.training.fit import FitResult, fit
from perennial.training.module import TaskModule
from perennial.training.settings import Training


def rows(n: int, seed: int) -> Rows:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 4)).astype(np.float32)
    ids = np.array([f"{seed}-{i}" for i in range(n)])
    return Rows({"x": x}, (x[:, 0] > 0).astype(np.int64), ids, ids, ids)


class Stopping(TaskModule):
    """Asks for an end by itself, after a step and before its validation."""

    stop_at = -1

    def on_train_batch_end(self, *_: Any) -> None:
        self.trainer.should_stop |= self.trainer.global_step == self.stop_at


def told(folder: Path, *, stop_at: int = -1, **settings: Any) -> tuple[FitResult, list[str]]:
    pl.seed_everything(0, verbose=False)
    model = torch.nn.Linear(4, 2)
    task = Classification()
    out = io.StringIO()
    display = Display(Console(file=out, width=80), clock=lambda: 0.0)
    module = Stopping(
        model=model,
        task=task,
        optimizer=lambda parameters, lr=0.1: torch.optim.SGD(parameters, lr=lr),
    )
    module.stop_at = stop_at
    result = fit(
        module=module,
        model=model,
        task=task,
        data=CycleData(
            new=rows(200, 1),
            history=None,
            new_validation=rows(100, 3),
            history_validation=None,
            batch_size=20,
            new_fraction=1.0,
            form="tuple",
            label="label",
            seed=0,
        ),
        methods=[],
        training=Training(accelerator="cpu", validate_every=10, **settings),
        folder=folder,
        show=display.progress("retraining"),
    )
    return result, out.getvalue().splitlines()


@pytest.mark.parametrize("max_steps", [40, 47])
def test_the_last_line_tells_the_scores_of_the_last_step(tmp_path: Path, max_steps: int) -> None:
    result, lines = told(tmp_path, max_steps=max_steps)
    last = result.curve[-1]
    assert last["step"] == max_steps
    assert lines == [f"retraining: step {max_steps} of {max_steps}, new {last['new']:.1%}"]


def test_an_early_stop_tells_where(tmp_path: Path) -> None:
    result, lines = told(tmp_path, max_steps=2000, patience=3)
    stop = result.optimizer_steps
    assert stop < 2000
    score = f"{result.curve[-1]['new']:.1%}"
    assert lines == [f"retraining: stopped early at step {stop} of 2000, new {score}"]


def test_a_module_that_ends_training_itself_is_told_with_the_scores_of_that_step(
    tmp_path: Path,
) -> None:
    result, lines = told(tmp_path, max_steps=2000, stop_at=13)
    assert (result.optimizer_steps, result.curve[-1]["step"]) == (13, 13)
    score = f"{result.curve[-1]['new']:.1%}"
    assert lines == [f"retraining: stopped early at step 13 of 2000, new {score}"]
