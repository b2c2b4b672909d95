"""What the full default training step costs, over a bare Lightning Trainer on the same model.

python benchmarks/loop_cost.py --rounds 7 --json loop_cost.json

Full: replay, EWC, gradient clipping, W&B offline, the point to resume from, and every other
callback of a fit. Bare: a Trainer with nothing switched on, over resident tensors that a batched
sampler draws from. The same model, AdamW and total batch; CPU time of the steps between the first
ones and the last, without validation, which is the task's own cost.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from harness import bar, finish, models, ratios
from step_cost import prepared
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from perennial.data.datamodule import CycleData
from perennial.data.rows import Rows
from perennial.methods.ewc import EWC
from perennial.methods.replay import Replay
from perennial.stopwatch import PHASES, Stopwatch
from perennial.tasks.classification import Classification
from perennial.tracking.wandb import WandbTracker
from perennial.training.fit import fit
from perennial.training.module import TaskModule
from perennial.training.settings import Training
from perennial.training.trainer import quiet_lightning

STEPS = {"mlp": 300, "encoder": 12}
SKIPPED = {"mlp": 50, "encoder": 2}
ROWS = {"mlp": 4096, "encoder": 512}
LIMITS = {"mlp": 1.25, "encoder": 1.10}
ADAMW = partial(torch.optim.AdamW, lr=1e-4)


class Timed(pl.Callback):
    """CPU-seconds from the end of one step to the end of another."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.seconds = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Start or stop."""
        if trainer.global_step == self.first:
            self.seconds = -time.process_time()
        elif trainer.global_step == self.last:
            self.seconds += time.process_time()


class Bare(pl.LightningModule):
    """A module and its loss."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Cross-entropy."""
        x, y = batch
        return F.cross_entropy(self.model(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return ADAMW(self.parameters())


def bare(model: nn.Module, x: Tensor, y: Tensor, *, size: int, first: int, last: int) -> float:
    """CPU-seconds of a Trainer with nothing switched on."""
    timed = Timed(first, last)
    data = TensorDataset(x, y)
    sampler = BatchSampler(RandomSampler(data), batch_size=size, drop_last=True)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=last,
        max_epochs=-1,
        logger=False,
        callbacks=[timed],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Bare(model), DataLoader(data, sampler=sampler, batch_size=None))
    return timed.seconds


def as_rows(x: Tensor, y: Tensor, name: str) -> Rows:
    """The same tensors as rows; whole numbers as sources have them."""
    values = x.numpy() if x.is_floating_point() else x.to(torch.int32).numpy()
    ids = np.array([f"{name}{number:031d}" for number in range(len(y))])
    return Rows(features={"x": values}, label=y.numpy(), id=ids, content=ids, cluster=ids)


def full(
    model: nn.Module, x: Tensor, y: Tensor, *, size: int, first: int, last: int, logger: Any
) -> tuple[float, dict[str, float]]:
    """CPU-seconds of the default fit, and its profile."""
    timed = Timed(first, last)
    few = len(y) // 5
    none = as_rows(x[:0], y[:0], "v")
    data = CycleData(
        new=as_rows(x[:few], y[:few], "n"),
        history=as_rows(x[few:], y[few:], "h"),
        new_validation=none,
        history_validation=None,
        batch_size=size,
        new_fraction=0.2,
        form="tuple",
        label="label",
        seed=0,
    )
    task = Classification()
    module = TaskModule(model=model, task=task, optimizer=ADAMW)
    module.configure_callbacks = lambda: [timed]  # type: ignore[method-assign]
    ewc = EWC()
    with tempfile.TemporaryDirectory() as folder:
        result = fit(
            module=module,
            model=model,
            task=task,
            data=data,
            methods=[Replay(), prepared(ewc, model)],
            training=Training(max_steps=last, batch_size=size, accelerator="cpu", keep="last"),
            folder=Path(folder),
            logger=logger,
        )
    return timed.seconds, result.profile


def reading(steps: int = 100_000) -> float:
    """Seconds that the profile takes of a step."""
    watch = Stopwatch()
    began = time.process_time()
    for _ in range(steps):
        watch.step()
        for phase in (*PHASES, "method", "method"):
            watch.add(phase, watch.now())
    return (time.process_time() - began) / steps


def measured(name: str, tracker: WandbTracker, *, rounds: int) -> dict[str, Any]:
    """Both ways in turns, after a round to warm up: seconds a step, their ratio, the profile."""
    build, inputs, size = models()[name]
    torch.manual_seed(0)
    x = inputs(ROWS[name])
    y = torch.randint(0, 10, (len(x),))
    last = SKIPPED[name] + STEPS[name]
    taken: dict[str, list[float]] = {"bare": [], "full": []}
    profiles: list[dict[str, float]] = []

    def one_bare() -> None:
        taken["bare"].append(bare(build(), x, y, size=size, first=SKIPPED[name], last=last))

    def one_full() -> None:
        logger = tracker.logger(f"{name}{len(profiles)}/")
        seconds, profile = full(
            build(), x, y, size=size, first=SKIPPED[name], last=last, logger=logger
        )
        taken["full"].append(seconds)
        profiles.append(profile)

    for turn in range(1 + rounds):
        for way in (one_bare, one_full) if turn % 2 else (one_full, one_bare):
            way()
    taken = {key: times[1:] for key, times in taken.items()}
    per_step = {key: median(times) / STEPS[name] for key, times in taken.items()}
    return {
        "model": name,
        "ratio": ratios(taken, to="bare")["full"],
        "profile": {p: median(one[p] for one in profiles[1:]) for p in profiles[0]},
        "profile_cost": reading() / per_step["full"],
        **per_step,
    }


def main() -> None:
    """Print a table and the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--models", nargs="*", default=list(models()))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["WANDB_SILENT"] = "true"
    rows, bars = [], []
    with tempfile.TemporaryDirectory() as folder, quiet_lightning():
        tracker = WandbTracker(mode="offline")
        tracker.start(name="loop", group="loop", job_type="train", config={}, folder=Path(folder))
        for name in chosen.models:
            found = measured(name, tracker, rounds=chosen.rounds)
            print(f"{name:8} bare {1e3 * found['bare']:.2f} ms, full {1e3 * found['full']:.2f} ms")
            shares = (f"{phase} {value:.1%}" for phase, value in found["profile"].items())
            print("         " + ", ".join(shares))
            rows.append(found)
            bars += [
                bar(f"{name}: default over bare", found["ratio"], LIMITS[name], higher=False),
                bar(f"{name}: the profile's share", found["profile_cost"], 0.01, higher=False),
            ]
        tracker.finish(0)
    finish(rows, bars, chosen.json)


if __name__ == "__main__":
    main()
