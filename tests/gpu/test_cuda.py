"""What only a CUDA device can show; `scripts/test -m gpu` runs it where there is one."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from perennial.data.rows import Rows
from perennial.methods.agem import AGEM
from perennial.methods.base import Method
from perennial.methods.ewc import EWC
from perennial.methods.fisher import diagonal_fisher
from perennial.methods.l2sp import L2SP
from perennial.methods.lwf import LwF
from perennial.methods.pull import CHUNK, Pull
from perennial.methods.replay import Replay
from perennial.methods.si import SI
from perennial.models.reference import MLP
from perennial.steps.candidate import train
from perennial.steps.learner import Constructor, Learner, build_learner
from perennial.tasks.classification import Classification
from perennial.training.settings import Training
from perennial.types import VersionView, show_nothing

# another device's name lets the tests themselves be tried where there is no CUDA
DEVICE = torch.device(os.environ.get("PERENNIAL_TEST_DEVICE", "cuda"))
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"
    ),
]
METHODS: dict[str, Callable[[], Method]] = {
    "agem": lambda: AGEM(rows=16),
    "ewc": lambda: EWC(strength=20.0),
    "ewc proximal": lambda: EWC(strength=20.0, step="proximal"),
    "l2sp": lambda: L2SP(strength=0.5),
    "lwf": LwF,
    "replay": Replay,
    "si": lambda: SI(strength=5.0),
}


def rows(count: int, seed: int, *, new: bool = False) -> Rows:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(count, 6)).astype(np.float32)
    label = (values[:, 1] < 0 if new else values[:, 0] > 0).astype(np.int64)
    names = np.array([f"{new}-{seed}-{i}" for i in range(count)])
    return Rows(features={"x": values}, label=label, id=names, content=names, cluster=names)


def learner(device: torch.device = DEVICE) -> Learner:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, 2))

    return build_learner(
        model=Constructor(target="x", arguments={}, build=build),
        task=Classification(),
        optimizer=functools.partial(torch.optim.SGD, lr=0.1),
        device=device,
        form="tuple",
        label="label",
    )


def retrain(folder: Path, methods: list[Method], champion: VersionView | None) -> Any:
    made, first = learner(), champion is None
    torch.manual_seed(1)
    trained = train(
        made,
        champion=champion or VersionView(id="", weights=made.model.state_dict()),
        methods=methods,
        new=rows(300, 1, new=not first),
        history=None if first else rows(200, 2),
        new_validation=rows(100, 3, new=not first),
        history_validation=None if first else rows(100, 4),
        training=Training(
            max_steps=6,
            validate_every=6,
            batch_size=20,
            accelerator=DEVICE.type,
            precision="32-true",
        ),
        seed=0,
        folder=folder,
        logger=None,
        show=show_nothing,
        warn=lambda line: None,
    )
    weights = {n: v.detach().cpu().clone() for n, v in made.model.state_dict().items()}
    return trained, weights


def test_the_default_run_is_promoted_in_the_default_precision(
    run: Callable[..., dict[str, Any]],
) -> None:
    done = run(f"trainer.accelerator={DEVICE.type}")
    assert done["status"] == "promoted"
    assert done["cost"]["peak_memory_bytes"] > 0
    if DEVICE.type == "cuda" and torch.cuda.is_bf16_supported():
        assert Training(accelerator="cuda").resolved_precision() == "bf16-mixed"
    again = run(f"trainer.accelerator={DEVICE.type}")
    assert again["status"] == "skipped"


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_is_alive_after_three_steps(name: str, tmp_path: Path) -> None:
    trained, weights = retrain(tmp_path / "first", [SI()], None)
    champion = VersionView(id="m@1", weights=weights, methods=trained.methods)
    _, plain = retrain(tmp_path / "none", [], champion)
    _, found = retrain(tmp_path / "method", [METHODS[name]()], champion)
    assert max(float((plain[n] - found[n]).abs().max()) for n in plain) > 1e-5


def test_the_fisher_is_the_one_of_the_cpu() -> None:
    sums = {}
    for device in (torch.device("cpu"), DEVICE):
        made = learner(device)
        sums[device.type], count = diagonal_fisher(
            made.model,
            made.batches(rows(64, 5)),
            logits=lambda data, made=made: made.task.outputs(made.model, data),  # type: ignore[misc]
        )
        assert count == 64
    for name, value in sums["cpu"].items():
        found = sums[DEVICE.type][name].cpu()
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-7)


def test_a_penalty_allocates_nothing_of_a_parameter_s_size() -> None:
    torch.manual_seed(0)
    model = MLP(inputs=1024, classes=10, hidden=[2048]).to(DEVICE)
    parameters = dict(model.named_parameters())
    anchor = {n: torch.randn_like(p, requires_grad=False) for n, p in parameters.items()}
    precision = {n: torch.rand_like(p, requires_grad=False) for n, p in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    pull = Pull(anchor, precision, method="ewc")
    pull.add_gradients(parameters, 0.5, value=False)
    before = 0
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    pull.add_gradients(parameters, 0.5, value=False)
    if DEVICE.type == "cuda":
        assert torch.cuda.max_memory_allocated() - before <= 4 * CHUNK
    for name, parameter in parameters.items():
        expected = precision[name] * (parameter.detach() - anchor[name])
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-5, atol=1e-6)
