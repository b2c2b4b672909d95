"""Methods attached to a module that knows nothing of Perennial."""

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
from perennial.data.logits import put
from perennial.data.rows import Rows
from perennial.errors import ConfigError
from perennial.methods.base import Method
from perennial.tasks.classification import Classification
from perennial.training.fit import fit
from perennial.training.module import TaskModule
from perennial.training.settings import Training
from perennial.types import StepContext


class Foreign(pl.LightningModule):
    """Its own step, logs, hooks and optimizer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 2)
        self.hooks: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any) -> dict[str, Tensor]:
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        self.log("own/loss", loss)
        return {"loss": loss}

    def on_train_batch_end(self, *_: Any) -> None:
        self.hooks.append("batch")

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Recorder(Method):
    name = "recorder"

    def __init__(self, pull: float = 0.0) -> None:
        self.pull = pull
        self.calls: list[str] = []
        self.seen: list[StepContext] = []

    def loss_terms(self, step: StepContext) -> dict[str, Tensor]:
        self.calls.append("loss")
        self.seen.append(step)
        squares = [p.square().sum() for p in step.parameters.values()]
        return {"decay": 0.5 * self.pull * torch.stack(squares).sum()}

    def observe_gradients(self, step: StepContext) -> None:
        self.calls.append("observe")

    def add_gradients(self, step: StepContext) -> None:
        self.calls.append("add")

    def project_gradients(self, step: StepContext) -> None:
        self.calls.append("project")

    def after_step(self, step: StepContext) -> None:
        self.calls.append("after")


class Closed(Method):
    """The same pull as a closed-form gradient."""

    name = "closed"

    def __init__(self, pull: float) -> None:
        self.pull = pull

    def add_gradients(self, step: StepContext) -> None:
        for parameter in step.parameters.values():
            assert parameter.grad is not None
            parameter.grad.add_(parameter.detach(), alpha=self.pull)


def rows(count: int, seed: int) -> Rows:
    values = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    names = np.array([f"{seed}-{i}" for i in range(count)])
    label = (values[:, 0] > 0).astype(np.int64)
    return Rows(features={"x": values}, label=label, id=names, content=names, cluster=names)


def with_logits(part: Rows) -> Rows:
    mask = np.ones(len(part), dtype=bool)
    return put(part, mask, np.arange(2.0 * len(part)).reshape(-1, 2).astype(np.float16), 1)


def cycle_data(history: Rows | None = None, augment: Any = None) -> CycleData:
    return CycleData(
        new=rows(24, 1),
        history=rows(24, 2) if history is None else history,
        new_validation=rows(8, 3),
        history_validation=rows(8, 4),
        batch_size=8,
        new_fraction=0.5,
        form="tuple",
        label="label",
        seed=0,
        augment=augment,
    )


def train(
    folder: Path,
    *methods: Method,
    module: pl.LightningModule | None = None,
    history: Rows | None = None,
    augment: Any = None,
    **settings: Any,
) -> Any:
    module = module or Foreign()
    data = cycle_data(history, augment)
    training = {"max_steps": 6, "validate_every": 3, "accelerator": "cpu", **settings}
    fit(
        module=module,
        model=module,
        task=Classification(),
        data=data,
        methods=methods,
        training=Training(**training),
        folder=folder,
    )
    return module


def test_phases_run_in_order_once_per_optimizer_step(tmp_path: Path) -> None:
    method = Recorder()
    module = train(tmp_path, method, accumulate=2)
    one_step = ["loss", "loss", "observe", "add", "project", "after"]
    assert method.calls == one_step * 6
    assert module.hooks == ["batch"] * 12
    assert all(len(step.batch) == 8 and step.batch.is_new.sum() == 4 for step in method.seen)
    assert "training_step" not in vars(module)
    assert "validation_step" not in vars(module)


class Moving(Foreign):
    """Moves its batches by a hook of its own, and keeps what its steps got."""

    def __init__(self) -> None:
        super().__init__()
        self.got: dict[str, list[Tensor]] = {"training": [], "validation": []}

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] + 100, batch[1]

    def training_step(self, batch: Any) -> dict[str, Tensor]:
        self.got["training"].append(batch[0])
        return super().training_step(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.got["validation"].append(batch[0])


def test_training_alone_sees_augmented_batches_after_the_modules_own_hooks(tmp_path: Path) -> None:
    asked = []

    def double(inputs: Any, *, generator: torch.Generator) -> Any:
        asked.append(inputs[0].clone())
        return (inputs[0] * 2,)

    method, module, history = Recorder(), Moving(), rows(24, 2)
    before = {name: values.copy() for name, values in history.features.items()}
    train(tmp_path, method, module=module, augment=double, history=history)
    assert len(asked) == len(module.got["training"]) == 6
    for given, got, step in zip(asked, module.got["training"], method.seen, strict=True):
        assert torch.equal(got, given * 2)
        assert torch.equal(step.batch.data[0], got)
        assert step.batch.is_new.sum() == 4
    assert 90 < torch.cat(module.got["validation"]).mean() < 110
    assert 180 < torch.cat(module.got["training"]).mean() < 220
    assert "on_after_batch_transfer" not in vars(module)
    assert all(np.array_equal(history.features[name], before[name]) for name in before)


@pytest.mark.parametrize("settings", [{}, {"accumulate": 3}, {"gradient_clip": 0.05}])
def test_a_loss_term_and_its_closed_form_train_alike(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    """The closed form enters once per step, before clipping, whatever the accumulation."""
    by_loss = train(tmp_path / "loss", Recorder(pull=0.3), **settings)
    by_gradient = train(tmp_path / "closed", Closed(pull=0.3), **settings)
    plain = train(tmp_path / "plain", **settings)
    for a, b, c in zip(
        by_loss.parameters(), by_gradient.parameters(), plain.parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
        assert not torch.allclose(a, c, rtol=1e-3)


def test_a_step_brings_the_logits_of_its_own_rows(tmp_path: Path) -> None:
    method, history = Recorder(), with_logits(rows(24, 2))
    train(tmp_path, method, history=history)
    assert history.logits is not None
    stored = dict(zip(history.id.tolist(), history.logits.tolist(), strict=True))
    for step in method.seen:
        assert step.batch.logits is not None
        for name, is_new, values in zip(
            step.batch.ids.tolist(), step.batch.is_new, step.batch.logits.tolist(), strict=True
        ):
            assert np.isnan(values).all() if is_new else values == stored[name]
    plain = Recorder()
    train(tmp_path / "plain", plain)
    assert all(step.batch.logits is None for step in plain.seen)


def test_manual_optimization_is_refused(tmp_path: Path) -> None:
    manual = Foreign()
    manual.automatic_optimization = False
    with pytest.raises(ConfigError, match="optimises by hand"):
        train(tmp_path, module=manual)


def test_the_tuner_finds_rate_and_batch_size_and_training_starts_anew(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    module = TaskModule(
        model=model,
        task=Classification(),
        optimizer=functools.partial(torch.optim.SGD, lr=0.1),
    )
    data = cycle_data()
    result = fit(
        module=module,
        model=model,
        task=Classification(),
        data=data,
        methods=[],
        training=Training(
            max_steps=6, validate_every=3, accelerator="cpu", find_lr=True, find_batch_size=True
        ),
        folder=tmp_path,
    )
    assert result.tuned["lr"] == module.lr
    assert 1e-5 <= result.tuned["lr"] <= 1.0
    assert result.tuned["batch_size"] == data.batch_size > 8
    assert result.train_rows == 6 * data.batch_size
    assert result.optimizer_steps == 6


def test_a_module_without_a_rate_to_tune_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Foreign has no attribute lr"):
        train(tmp_path, find_lr=True)
