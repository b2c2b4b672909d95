"""A foreign module's own training step, once per part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perennial.data.datamodule import CycleData
from perennial.data.rows import Rows
from perennial.errors import MethodError
from perennial.methods.base import Method
from perennial.methods.replay import Replay
from perennial.tasks.classification import Classification
from perennial.training.fit import fit
from perennial.training.parts import in_order, joined, take
from perennial.training.settings import Training
from perennial.types import Part, StepContext

MIXED = np.array([False, True, False, True, True])


def parts(rows: Any = MIXED, weight: float = 0.25) -> tuple[Part, Part]:
    rows = np.asarray(rows)
    return Part(rows, weight, "update"), Part(~rows, 1 - weight, "update")


@pytest.mark.parametrize("rows", [MIXED, [True, True, False, False, False]])
def test_rows_are_taken_of_any_form_and_put_back_in_order(rows: Any) -> None:
    x, y = torch.randn(5, 2), torch.arange(5)
    batch = {"x": (x, {"y": y}), "scale": 3, "temperature": torch.tensor(2.0)}
    found = [take(batch, part.rows) for part in parts(rows)]
    assert torch.equal(found[0]["x"][0], x[torch.tensor(rows)])
    assert found[1]["scale"] == 3
    assert float(found[1]["temperature"]) == 2
    assert torch.equal(in_order([one["x"][1]["y"] for one in found], parts(rows)), y)


def test_what_has_no_row_of_its_own_cannot_be_divided() -> None:
    for batch in ((torch.zeros(5, 2), torch.zeros(3)), torch.zeros(1, 5), "text"):
        with pytest.raises(MethodError, match="5 rows cannot be divided"):
            take(batch, MIXED)


def test_results_are_joined() -> None:
    results = [
        {"loss": torch.tensor(4.0), "logits": torch.ones(3, 2), "n": 3, "name": "a"},
        {"loss": torch.tensor(8.0), "logits": torch.zeros(2, 2), "n": 2, "name": "b"},
    ]
    found = joined(results, parts())
    assert float(found["loss"]) == 0.25 * 4 + 0.75 * 8
    assert found["logits"][:, 0].tolist() == [0, 1, 0, 1, 1]
    assert found["n"] == 0.25 * 3 + 0.75 * 2
    assert found["name"] == ["a", "b"]
    assert float(joined([r["loss"] for r in results], parts())) == 7
    assert joined([results[0], None], parts()) is None
    with pytest.raises(MethodError, match="other keys"):
        joined([results[0], {"loss": torch.tensor(1.0)}], parts())


class Foreign(pl.LightningModule):
    """Its own step and logs; keeps its logits to itself."""

    def __init__(self, *, norm: bool = False, named: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        between = nn.BatchNorm1d(5) if norm else nn.Tanh()
        self.net = nn.Sequential(nn.Linear(4, 5), between, nn.Linear(5, 2))
        self.sizes: list[int] = []
        self.logged: list[dict[str, float]] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        self.sizes.append(len(x))
        loss = nn.functional.cross_entropy(self(x), y)
        self.log("own/loss", loss)
        self.log_dict({"own/size": float(len(x))}, on_step=True, on_epoch=True)
        return loss

    def on_train_batch_end(self, outputs: Any, *_: Any) -> None:
        got = {n: float(v) for n, v in self.trainer.callback_metrics.items() if n[:3] == "own"}
        self.logged.append({**got, "loss": float(outputs["loss"])})

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Watching(Method):
    """Sees the gradient before anything else, and asks for logits."""

    name = "a watch"

    def __init__(self) -> None:
        self.seen: list[tuple[Any, dict[str, Tensor], dict[str, Tensor], Any]] = []
        self.logits: list[Tensor] = []
        self.statistics: list[Tensor] = []

    def loss_terms(self, step: StepContext) -> dict[str, Tensor]:
        norms = [m for m in step.model.modules() if isinstance(m, nn.BatchNorm1d)]
        before = [norm.running_mean.clone() for norm in norms]
        self.logits.append(step.logits())
        assert step.logits() is self.logits[-1]
        assert all(torch.equal(n.running_mean, b) for n, b in zip(norms, before, strict=True))
        self.batch = step.batch
        self.before = {n: p.detach().clone() for n, p in step.parameters.items()}
        return {}

    def observe_gradients(self, step: StepContext) -> None:
        gradients = {n: p.grad.clone() for n, p in step.parameters.items()}
        self.statistics += [b.clone() for n, b in step.model.named_buffers() if "mean" in n]
        self.seen.append((self.batch.data, self.before, gradients, self.batch.is_new))


def rows(count: int, seed: int) -> Rows:
    values = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    names = np.array([f"{seed}-{i}" for i in range(count)])
    label = (values[:, 0] > 0).astype(np.int64)
    return Rows(features={"x": values}, label=label, id=names, content=names, cluster=names)


def train(
    folder: Path, *methods: Method, module: pl.LightningModule, form: str = "tuple", **settings: Any
) -> None:
    data = CycleData(
        new=rows(22, 1), history=rows(24, 2), new_validation=rows(8, 3),
        history_validation=rows(8, 4), batch_size=8, new_fraction=0.5, form=form, label="label",
        seed=0,
    )  # fmt: skip
    training = {"max_steps": 6, "validate_every": 6, "accelerator": "cpu", "gradient_clip": None}
    fit(
        module=module, model=module, task=Classification(), data=data, methods=methods,
        training=Training(**{**training, **settings}), folder=folder,
    )  # fmt: skip


def test_separate_forwards_weigh_the_losses_of_a_foreign_step(tmp_path: Path) -> None:
    watch, module = Watching(), Foreign()
    train(tmp_path, watch, Replay(new_weight=0.7), module=module)
    # the sixth batch ends the pass over 22 new rows with two of them
    assert module.sizes == [4, 4] * 5 + [2, 6]
    for (x, y), before, gradients, is_new in watch.seen:
        copy = Foreign()
        copy.load_state_dict(before)
        new = torch.from_numpy(is_new.copy())
        parts = [nn.functional.cross_entropy(copy(x[m]), y[m]) for m in (new, ~new)]
        (0.7 * parts[0] + 0.3 * parts[1]).backward()
        for name, parameter in copy.named_parameters():
            torch.testing.assert_close(gradients[name], parameter.grad)
    for logged in module.logged:
        assert logged["own/loss"] == pytest.approx(logged["loss"], rel=1e-6)
    assert module.logged[0]["own/size_step"] == pytest.approx(4)
    assert module.logged[-1]["own/size_step"] == pytest.approx(0.7 * 2 + 0.3 * 6)
    assert "log" not in vars(module)


@pytest.mark.parametrize("settings", [{}, {"accumulate": 3}])
def test_without_batch_norm_separate_forwards_train_as_one(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    once, twice = Foreign(), Foreign()
    train(tmp_path / "once", Replay(), module=once, **settings)
    train(tmp_path / "twice", Replay(forward="separate"), module=twice, **settings)
    assert max(once.sizes) == 8
    assert max(twice.sizes) == 6
    for a, b in zip(once.parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_accumulated_separate_forwards_are_the_mean_of_batches(tmp_path: Path) -> None:
    watch = Watching()
    module = Foreign()
    batches: list[Any] = []

    class Keeping(Method):
        name = "keeping"

        def loss_terms(self, step: StepContext) -> dict[str, Tensor]:
            batches.append((step.batch.data, step.batch.is_new))
            return {}

    train(
        tmp_path, watch, Keeping(), Replay(new_weight=0.6),
        module=module, accumulate=2, max_steps=2, validate_every=2,
    )  # fmt: skip
    copy = Foreign()
    for (x, y), is_new in batches[:2]:
        new = torch.from_numpy(is_new.copy())
        parts = [nn.functional.cross_entropy(copy(x[m]), y[m]) for m in (new, ~new)]
        ((0.6 * parts[0] + 0.4 * parts[1]) / 2).backward()
    assert len(batches) == 4
    for name, parameter in copy.named_parameters():
        torch.testing.assert_close(watch.seen[0][2][name], parameter.grad)


@pytest.mark.parametrize("manner", ["mixed", "new", "frozen"])
def test_batch_norm_sees_one_kind_of_rows_at_a_time(tmp_path: Path, manner: str) -> None:
    watch, module = Watching(), Foreign(norm=True)
    forward = "auto" if manner == "frozen" else "separate"
    train(
        tmp_path, watch, Replay(running_statistics=manner, forward=forward),
        module=module, max_steps=2, validate_every=2,
    )  # fmt: skip
    assert module.sizes == ([8] if manner == "frozen" else [4, 4]) * 2
    (x, y), before, gradients, _ = watch.seen[0]
    copy = Foreign(norm=True)
    copy.load_state_dict(before, strict=False)
    copy.net[1].train(manner != "frozen")
    logits = torch.cat([copy(x[:4]), copy(x[4:])])
    torch.testing.assert_close(watch.logits[0], logits)
    nn.functional.cross_entropy(logits, y).backward()
    for name, parameter in copy.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6)
    expected = torch.zeros(5)
    for part in {"mixed": (x[:4], x[4:]), "new": (x[:4],), "frozen": ()}[manner]:
        inner = nn.functional.linear(part, before["net.0.weight"], before["net.0.bias"])
        expected = 0.9 * expected + 0.1 * inner.mean(0)
    torch.testing.assert_close(watch.statistics[0], expected, rtol=1e-4, atol=1e-6)


def test_a_dict_is_divided_too(tmp_path: Path) -> None:
    class Named(Foreign):
        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.sizes.append(len(batch["x"]))
            logits = self(batch["x"])
            return {
                "loss": nn.functional.cross_entropy(logits, batch["label"]),
                "logits": logits,
            }

    watch, module = Watching(), Named(norm=True)
    train(
        tmp_path,
        watch,
        Replay(new_weight=0.4),
        module=module,
        form="dict",
        max_steps=2,
        validate_every=2,
    )
    assert module.sizes == [4, 4] * 2
    assert watch.logits[0].shape == (8, 2)
