"""A user's module in Lightning's loop: what uses the trainer works, what cannot be is refused."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perennial.data.datamodule import CycleData
from perennial.data.rows import Rows
from perennial.errors import ConfigError
from perennial.tasks.classification import Classification
from perennial.training.fit import FitResult, fit
from perennial.training.optimization import require_loss
from perennial.training.optimizer import Grouped
from perennial.training.root import root_module
from perennial.training.settings import Training

STEPS = 12


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def validation_step(self, batch: Any, _: int) -> None:
        x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self(x), y))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class OneCycle(Module):
    def configure_optimizers(self) -> Any:
        made = torch.optim.SGD(self.parameters(), lr=0.1)
        steps = int(self.trainer.estimated_stepping_batches)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(made, 0.1, total_steps=steps)
        return [made], [{"scheduler": self.schedule, "interval": "step"}]


class Plateau(Module):
    monitor = "val_loss"

    def configure_optimizers(self) -> Any:
        made = torch.optim.SGD(self.parameters(), lr=0.1)
        self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(made, patience=0, threshold=1e9)
        chosen = {"scheduler": self.schedule, "monitor": self.monitor, "interval": "epoch"}
        return {"optimizer": made, "lr_scheduler": chosen}


class Unlogged(Plateau):
    monitor = "nothing"


class Monitors(Module):
    def configure_callbacks(self) -> list[pl.Callback]:
        return [pl.callbacks.LearningRateMonitor()]


class LateLayers(Module):
    def setup(self, stage: str) -> None:
        self.extra = nn.Linear(2, 2)


class Vector(Module):
    def training_step(self, batch: Any, _: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1], reduction="none")


class Detached(Module):
    def training_step(self, batch: Any, _: int) -> Tensor:
        return super().training_step(batch, _).detach()


def rows(count: int, seed: int) -> Rows:
    values = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    names = np.array([f"{seed}-{i}" for i in range(count)])
    label = (values[:, 0] > 0).astype(np.int64)
    return Rows(features={"x": values}, label=label, id=names, content=names, cluster=names)


def trained(folder: Path, module: Module, *, validate_every: int = 4) -> FitResult:
    optimizer = Grouped(functools.partial(torch.optim.SGD, lr=0.1))
    root, _ = root_module(module, task=Classification(), optimizer=optimizer)
    data = CycleData(
        new=rows(32, 1),  # an epoch is 4 steps of 8 rows
        history=rows(8, 2),
        new_validation=rows(10, 3),
        history_validation=rows(10, 4),
        batch_size=8,
        new_fraction=None,
        form="tuple",
        label="label",
        seed=0,
    )
    return fit(
        module=root, model=module, task=Classification(), data=data, methods=[], folder=folder,
        training=Training(
            max_steps=STEPS, batch_size=8, validate_every=validate_every, accelerator="cpu"
        ),
    )  # fmt: skip


def test_an_optimizer_may_be_made_with_the_trainer(tmp_path: Path) -> None:
    module = OneCycle()
    assert trained(tmp_path, module).optimizer_steps == STEPS
    assert module.schedule.total_steps == STEPS
    assert module.schedule.last_epoch == STEPS


def test_a_rate_falls_where_validation_comes_in_each_epoch(tmp_path: Path) -> None:
    module = Plateau()
    trained(tmp_path, module, validate_every=4)
    # nothing is better by 1e9: each of three epochs lowers it to a tenth
    assert module.schedule.get_last_lr() == pytest.approx([0.1 * 0.1**3])


def test_a_rate_that_would_be_lowered_before_validation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"every 4 steps[\s\S]*validate_every=4, or"):
        trained(tmp_path, Plateau(), validate_every=5)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Unlogged, "Lightning refuses Unlogged: .*nothing"),
        (Monitors, "Lightning refuses Monitors: .*no logger"),
        (LateLayers, "makes 'extra.weight' in setup"),
        (Vector, r"a loss of shape \(8,\)"),
        (Detached, "a loss without a gradient"),
    ],
)
def test_what_lightning_would_fail_on_later_is_a_message(
    tmp_path: Path, kind: type[Module], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        trained(tmp_path, kind())


def test_losses_in_every_form_are_taken() -> None:
    loss = torch.ones((), requires_grad=True)
    for good in (None, loss, loss.reshape(1), {"loss": loss, "logits": loss}):
        require_loss(good, name="M")
    for bad, words in ((3.0, "a float"), ({"logits": loss}, "no loss")):
        with pytest.raises(ConfigError, match=words):
            require_loss(bad, name="M")
