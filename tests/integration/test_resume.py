"""A fit that was interrupted goes on where it stopped, bit for bit."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from perennial.data.augment import Noise
from perennial.data.datamodule import CycleData
from perennial.data.rows import Rows
from perennial.errors import ConfigError
from perennial.methods.base import Method
from perennial.tasks.classification import Classification
from perennial.training.fit import FitResult, fit
from perennial.training.module import TaskModule
from perennial.training.settings import Training
from perennial.types import StepContext


class Stopped(Exception):  # noqa: N818
    """The process was killed here."""


class Counting(Method):
    """A method with state: pulls on the gradient by a number that grows with each step taken."""

    name = "counting"

    def __init__(self) -> None:
        self.steps = 0

    def add_gradients(self, step: StepContext) -> None:
        for parameter in step.parameters.values():
            assert parameter.grad is not None
            parameter.grad.add_(parameter.detach(), alpha=1e-3 * self.steps)

    def after_step(self, step: StepContext) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: Any) -> None:
        self.steps = state["steps"]


def rows(count: int, seed: int) -> Rows:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(count, 6)).astype(np.float32)
    names = np.array([f"{seed}-{i}" for i in range(count)])
    label = (values[:, 0] > 0).astype(np.int64)
    return Rows(features={"x": values}, label=label, id=names, content=names, cluster=names)


def train(
    folder: Path,
    *,
    stop_at: int | None = None,
    stop: type[BaseException] = Stopped,
    **settings: Any,
) -> tuple[FitResult, Any]:
    torch.manual_seed(0)
    np.random.seed(0)
    # dropout draws from the generator at every step, so a resume must restore it
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
    task = Classification()
    new_rows = settings.pop("new_rows", 40)
    validation = settings.pop("validation", 20)
    data = CycleData(
        new=rows(new_rows, 1),
        history=rows(30, 2),
        new_validation=rows(validation, 3),
        history_validation=rows(validation, 4) if validation else None,
        batch_size=10,
        new_fraction=0.3,
        form="tuple",
        label="label",
        seed=0,
        sampling=settings.pop("sampling", "passes"),
        augment=settings.pop("augment", None),
    )
    methods = settings.pop("methods", None) or [Counting()]

    def show(step: int, steps: int, scores: str, *, stopped: bool = False) -> None:
        if stop_at is not None and step >= stop_at:
            raise stop

    training = Training(
        **{
            "max_steps": 40,
            "validate_every": 7,
            "resume_seconds": 0.0,
            "accelerator": "cpu",
            **settings,
        }
    )
    result = fit(
        module=TaskModule(
            model=model,
            task=task,
            optimizer=lambda parameters, lr=0.01: torch.optim.Adam(parameters, lr=lr),
        ),
        model=model,
        task=task,
        data=data,
        methods=methods,
        training=training,
        folder=folder,
        show=show,
    )
    return result, {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("stop_at", "settings"),
    [
        (5, {}),
        (14, {}),
        (23, {}),
        (30, {"patience": 2}),
        (17, {"accumulate": 2}),
        (9, {"new_rows": 3}),
        (17, {"sampling": "replacement"}),
        (17, {"augment": Noise(scale=0.5), "accumulate": 2}),
        (17, {"keep": "last"}),
        (17, {"keep": "last", "validation": 0}),
    ],
)
def test_a_resumed_fit_equals_the_uninterrupted_one(
    tmp_path: Path, stop_at: int, settings: dict[str, Any]
) -> None:
    whole, expected = train(tmp_path / "whole", **settings)
    with pytest.raises(Stopped):
        train(tmp_path / "parts", stop_at=stop_at, **settings)
    assert (tmp_path / "parts" / "resume.json").exists()
    result, weights = train(tmp_path / "parts", **settings)
    assert result.curve == whole.curve
    assert result.optimizer_steps == whole.optimizer_steps
    assert result.replayed_rows == whole.replayed_rows
    assert result.sha256 == whole.sha256
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


class Last(Method):
    """Remembers the weights after each step."""

    name = "last"

    def after_step(self, step: StepContext) -> None:
        self.weights = {n: v.detach().clone() for n, v in step.model.state_dict().items()}


@pytest.mark.parametrize("validation", [0, 20])
def test_the_last_weights_are_kept_where_they_are_wanted(tmp_path: Path, validation: int) -> None:
    method = Last()
    result, weights = train(
        tmp_path / "last", keep="last", max_steps=43, validation=validation, methods=[method]
    )
    assert result.optimizer_steps == 43
    assert bool(result.curve) == bool(validation)
    assert all(torch.equal(weights[name], method.weights[name]) for name in weights)
    best, _ = train(tmp_path / "best", max_steps=43, methods=[Last()])
    steps = {point["combined"]: point["step"] for point in reversed(best.curve)}
    assert steps[max(steps)] != 43, "the best must not be the last, or nothing is shown"
    assert best.sha256 != result.sha256


@pytest.mark.parametrize("settings", [{}, {"keep": "last", "patience": 2}])
def test_without_validation_rows_nothing_can_be_chosen(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="no validation rows"):
        train(tmp_path, validation=0, **settings)


def test_unknown_words_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer.keep is 'newest'"):
        train(tmp_path, keep="newest")
    with pytest.raises(ConfigError, match=r"'bootstrap' is not a way to draw rows"):
        train(tmp_path, sampling="bootstrap")


def test_ctrl_c_is_told_apart_from_an_error_and_the_fit_goes_on(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole")
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts", stop_at=16, stop=KeyboardInterrupt)
    finally:
        signal.signal(signal.SIGINT, handler)
    result, _ = train(tmp_path / "parts")
    assert result.sha256 == whole.sha256


def test_a_finished_fit_is_not_done_again(tmp_path: Path) -> None:
    first, expected = train(tmp_path)
    again, weights = train(tmp_path, stop_at=0)
    assert again == first
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_damaged_resume_point_is_noticed(tmp_path: Path) -> None:
    from perennial.errors import TrainingError

    with pytest.raises(Stopped):
        train(tmp_path, stop_at=12)
    path = next(tmp_path.glob("step-*.ckpt"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(TrainingError, match="damaged"):
        train(tmp_path)


def test_diverging_training_is_refused(tmp_path: Path) -> None:
    from perennial.errors import PerennialError

    class Exploding(Method):
        name = "exploding"

        def add_gradients(self, step: StepContext) -> None:
            for parameter in step.parameters.values():
                assert parameter.grad is not None
                parameter.grad.fill_(float("nan"))

    model = nn.Linear(6, 2)
    task = Classification()
    data = CycleData(
        new=rows(40, 1),
        history=None,
        new_validation=rows(20, 3),
        history_validation=None,
        batch_size=10,
        new_fraction=None,
        form="tuple",
        label="label",
        seed=0,
    )
    factory: Callable[..., torch.optim.Optimizer] = torch.optim.SGD
    with pytest.raises(PerennialError, match="diverged"):
        fit(
            module=TaskModule(
                model=model, task=task, optimizer=lambda p, lr=0.1: factory(p, lr=lr)
            ),
            model=model,
            task=task,
            data=data,
            methods=[Exploding()],
            training=Training(
                max_steps=20, validate_every=5, accelerator="cpu", log_every=1, gradient_clip=None
            ),
            folder=tmp_path,
        )


def test_a_fit_says_where_its_time_went(tmp_path: Path) -> None:
    result, _ = train(tmp_path)
    assert sum(result.profile.values()) == pytest.approx(1)
    assert all(result.profile[phase] > 0 for phase in ("data", "forward", "backward", "optimizer"))
    assert result.profile["logging"] == 0, "there is no logger"
    assert result.padding is None
