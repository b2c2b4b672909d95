"""The gradient phases under scaled, skipped, accumulated and clipped steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from perennial.data.datamodule import CycleData
from perennial.data.logits import put
from perennial.data.rows import Rows
from perennial.methods.base import Method, arrange
from perennial.methods.der import DER
from perennial.methods.ewc import EWC
from perennial.methods.replay import Replay
from perennial.tasks.classification import Classification
from perennial.training.attach import MethodCallback, ValidationScores, attached
from perennial.training.module import TaskModule
from perennial.training.trainer import quiet_lightning
from perennial.types import StepContext


class Witness(Method):
    """Sees the raw gradients, and which steps were taken."""

    name = "a witness"

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []
        self.before: list[dict[str, Tensor]] = []
        self.batches: list[Any] = []
        self.taken: list[int] = []

    def observe_gradients(self, step: StepContext) -> None:
        self.seen.append({n: p.grad.detach().clone() for n, p in step.parameters.items()})
        self.before.append({n: p.detach().clone() for n, p in step.parameters.items()})
        self.batches.append(step.batch.data)

    def after_step(self, step: StepContext) -> None:
        self.taken.append(len(self.seen) - 1)


def rows(count: int, seed: int) -> Rows:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(count, 6)).astype(np.float32)
    names = np.array([f"{seed}-{i}" for i in range(count)])
    label = (values[:, 0] > 0).astype(np.int64)
    return Rows(features={"x": values}, label=label, id=names, content=names, cluster=names)


def anchored(method: EWC, model: nn.Module) -> EWC:
    """Prepared by hand: the anchor half a unit away, precision 2 everywhere."""
    parameters = dict(model.named_parameters())
    method.anchor = {n: p.detach() - 0.5 for n, p in parameters.items()}
    method.precision = {n: torch.full_like(p, 2.0) for n, p in parameters.items()}
    method.new_count = 4
    return method


def trained(
    folder: Path,
    methods: list[Method],
    *,
    precision: Any = None,
    steps: int = 12,
    history: Rows | None = None,
    **trainer: Any,
) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    for method in methods:
        if isinstance(method, EWC):
            anchored(method, model)
    data = CycleData(
        new=rows(64, 1), history=history, new_validation=rows(8, 2), history_validation=None,
        batch_size=16, new_fraction=None if history is None else 0.5, form="tuple",
        label="label", seed=0,
    )  # fmt: skip
    task = Classification()
    module = TaskModule(
        model=model, task=task, optimizer=lambda p, lr=0.05: torch.optim.SGD(p, lr=lr)
    )
    loader = data.train_dataloader()
    scores = ValidationScores(loader=data.validation_loader)
    callback = MethodCallback(
        methods=arrange(methods), model=model, loader=loader, log_every=1000, logits_of=task.outputs
    )
    plugins = [] if precision is None else [precision]
    with (
        quiet_lightning(),
        attached(module, task=task, methods=callback, scores=scores, augmented=lambda batch: batch),
    ):
        pl.Trainer(
            accelerator="cpu", max_steps=steps, plugins=plugins, callbacks=[callback, scores],
            limit_val_batches=0, logger=False, enable_checkpointing=False, max_epochs=-1,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
            use_distributed_sampler=False, **trainer,
        ).fit(module, datamodule=data)  # fmt: skip
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def scaled(initial: float) -> MixedPrecision:
    scaler = torch.amp.GradScaler("cpu", init_scale=initial)  # type: ignore[attr-defined]
    return MixedPrecision("16-mixed", device="cpu", scaler=scaler)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_a_skipped_step_moves_no_method_and_no_weight(tmp_path: Path) -> None:
    witness = Witness()
    proximal = EWC(strength=8.0, step="proximal")
    trained(tmp_path, [witness, proximal], precision=scaled(2.0**22))
    skipped = sorted(set(range(len(witness.seen))) - set(witness.taken))
    assert skipped, "the scale was so large that the first steps overflowed"
    assert witness.taken, "and some were taken"
    for at in skipped:
        if at + 1 < len(witness.before):
            for name, value in witness.before[at].items():
                assert torch.equal(value, witness.before[at + 1][name])
    for at in witness.taken:
        if at + 1 < len(witness.before):
            moved = witness.before[at + 1]
            assert any(not torch.equal(v, moved[n]) for n, v in witness.before[at].items())


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "32-true"])
def test_methods_see_unscaled_gradients_and_the_penalty_enters_once(
    tmp_path: Path, precision: str
) -> None:
    """A step of SGD moves by lr (g + strength / N P Δ), whatever the scale of the loss."""
    plugin = {"16-mixed": scaled(2.0**10), "bf16-mixed": MixedPrecision("bf16-mixed", "cpu")}
    witness = Witness()
    trained(tmp_path, [witness, EWC(strength=3.0)], precision=plugin.get(precision), steps=3)
    start = witness.before[0]
    anchor = {name: value - 0.5 for name, value in start.items()}
    for at in range(2):
        for name, value in witness.before[at].items():
            pull = 3.0 / 4 * 2.0 * (value - anchor[name])
            expected = value - 0.05 * (witness.seen[at][name] + pull)
            torch.testing.assert_close(witness.before[at + 1][name], expected, rtol=1e-5, atol=1e-6)
    # and the gradient itself is that of float32, up to the precision
    plain = Witness()
    trained(tmp_path, [plain, EWC(strength=3.0)], steps=1)
    for name, value in plain.seen[0].items():
        torch.testing.assert_close(witness.seen[0][name], value, rtol=0.05, atol=5e-3)


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "32-true"])
def test_weighed_losses_and_stored_logits_under_every_precision(
    tmp_path: Path, precision: str
) -> None:
    """The gradient is that of w L_new + (1 − w) L_replayed + alpha mean (z − z*)², by hand."""
    plugin = {"16-mixed": scaled(2.0**10), "bf16-mixed": MixedPrecision("bf16-mixed", "cpu")}
    old = rows(32, 3)
    stored = np.random.default_rng(0).normal(size=(32, 2)).astype(np.float32)
    old = put(old, np.ones(32, dtype=bool), stored, 1)
    witness = Witness()
    trained(
        tmp_path, [witness, Replay(new_weight=0.7), DER(alpha=0.4)],
        precision=plugin.get(precision), steps=1, history=old,
    )  # fmt: skip
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    model.load_state_dict(witness.before[0])
    x, y = witness.batches[0]
    logits = model(x)
    losses = nn.functional.cross_entropy(logits, y, reduction="none")
    place = {tuple(row): i for i, row in enumerate(old.features["x"].tolist())}
    wanted = torch.from_numpy(stored[[place[tuple(row)] for row in x[8:].tolist()]])
    distance = (logits[8:] - wanted).square().mean()
    (0.7 * losses[:8].mean() + 0.3 * losses[8:].mean() + 0.4 * distance).backward()
    close = {"rtol": 1e-4, "atol": 1e-6} if precision == "32-true" else {"rtol": 0.05, "atol": 1e-2}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(witness.seen[0][name], parameter.grad, **close)


@pytest.mark.parametrize("trainer", [{"accumulate_grad_batches": 4}, {"gradient_clip_val": 0.05}])
def test_once_per_optimizer_step_under_accumulation_and_clipping(
    tmp_path: Path, trainer: dict[str, Any]
) -> None:
    witness = Witness()
    trained(tmp_path, [witness, EWC(strength=3.0)], steps=3, **trainer)
    assert len(witness.seen) == 3
    assert witness.taken == [0, 1, 2]
    start = witness.before[0]
    for at in range(2):
        gradient = {
            name: witness.seen[at][name] + 3.0 / 4 * 2.0 * (value - start[name] + 0.5)
            for name, value in witness.before[at].items()
        }
        norm = float(torch.stack([g.square().sum() for g in gradient.values()]).sum().sqrt())
        limit = trainer.get("gradient_clip_val")
        share = min(1.0, limit / norm) if limit else 1.0
        for name, value in witness.before[at].items():
            torch.testing.assert_close(
                witness.before[at + 1][name],
                value - 0.05 * share * gradient[name],
                rtol=1e-4,
                atol=1e-6,
            )
