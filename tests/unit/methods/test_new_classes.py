"""What methods make of classes that the champion does not know, against explicit formulas.

A champion with 3 classes, whose output layer has grown to 5; D = 4 hidden units.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perennial.errors import MethodError
from perennial.methods.baselines import Scratch
from perennial.methods.ewc import EWC
from perennial.methods.fisher import diagonal_fisher
from perennial.methods.interpolation import Interpolation, mixed
from perennial.methods.l2sp import L2SP
from perennial.methods.lwf import LwF
from perennial.methods.si import SI
from perennial.models.head import Head, grow
from perennial.types import Batch, MethodContext, StepContext, VersionView

OLD, ALL = 3, 5
HEAD = ("2.weight", "2.bias")


def logits_of(model: nn.Module, data: Any) -> Tensor:
    found: Tensor = model(data[0])
    return found


def batches(x: Tensor) -> Callable[[], Iterator[Batch]]:
    ids = np.array([f"row {i}" for i in range(len(x))])
    return lambda: iter([Batch(data=(x,), ids=ids, is_new=np.ones(len(x), dtype=bool))])


@pytest.fixture
def champion() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, OLD))


@pytest.fixture
def model(champion: nn.Module) -> nn.Module:
    wider = copy.deepcopy(champion)
    grow(wider, Head("2", ALL), seed=0)
    return wider


def context(
    model: nn.Module,
    champion: nn.Module,
    methods: Mapping[str, Mapping[str, Tensor]] | None = None,
    **changes: Any,
) -> MethodContext:
    torch.manual_seed(2)
    new, history = torch.randn(30, 6), torch.randn(50, 6)
    given: dict[str, Any] = {
        "logits": logits_of,
        "per_example_loss": None,
        "features": None,
        "history": batches(history),
        "new": batches(new),
        "validate": dict,
        "history_count": len(history),
        "new_count": len(new),
        "seed": 0,
        "generator": torch.Generator(),
        "device": torch.device("cpu"),
    }
    return MethodContext(
        model=model,
        champion=VersionView(
            id="m@1",
            weights={name: value.clone() for name, value in champion.state_dict().items()},
            methods=methods or {},
            label_names=tuple("abc"),
        ),
        **{**given, **changes},
    )


def step(model: nn.Module, x: Tensor, **changes: Any) -> StepContext:
    batch = next(batches(x)())
    return StepContext(
        batch=batch,
        model=model,
        parameters=dict(model.named_parameters()),
        own_logits=lambda: logits_of(model, batch.data),
        logits_of=logits_of,
        **changes,
    )


def left_by(champion: nn.Module) -> dict[str, Tensor]:
    """What a method may have kept with the champion."""
    torch.manual_seed(3)
    return {name: torch.rand(p.shape) + 1 for name, p in champion.named_parameters()}


def moved(model: nn.Module) -> dict[str, Tensor]:
    """Move every weight, and say by how much."""
    torch.manual_seed(4)
    deltas = {name: torch.randn(p.shape) for name, p in model.named_parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(deltas[name])
            parameter.grad = torch.zeros_like(parameter)
    return deltas


def wide(values: Tensor, fill: float = 0.0) -> Tensor:
    """Values of the output layer with rows for the new classes."""
    rows = torch.full((ALL, *values.shape[1:]), fill)
    rows[:OLD] = values
    return rows


def pulled(model: nn.Module, deltas: dict[str, Tensor], precision: dict[str, Tensor]) -> None:
    """Every gradient is precision times displacement, none in the rows of new classes."""
    for name, parameter in model.named_parameters():
        p = wide(precision[name]) if name in HEAD else precision[name]
        torch.testing.assert_close(parameter.grad, p * deltas[name], rtol=1e-5, atol=1e-6)
        if name in HEAD:
            assert not parameter.grad[OLD:].any()
            assert parameter.grad[:OLD].all()


@pytest.mark.parametrize("kind", ["explicit", "proximal"])
def test_ewc_keeps_old_rows_and_frees_new_ones(
    kind: str, champion: nn.Module, model: nn.Module
) -> None:
    stored = left_by(champion)
    method = EWC(strength=30.0, step=kind)
    method.prepare(context(model, champion, {"ewc": stored}))
    for name in HEAD:
        assert torch.equal(method.precision[name], wide(stored[name]))
        assert torch.equal(method.anchor[name][:OLD], champion.state_dict()[name])
    if kind == "explicit":
        deltas = moved(model)
        method.add_gradients(step(model, torch.zeros(2, 6)))
        pulled(model, deltas, stored)  # strength / N_new is 1
        return
    deltas = moved(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method.after_step(step(model, torch.zeros(2, 6), optimizer=optimizer))
    for name, parameter in model.named_parameters():
        c = 0.1 * (wide(stored[name]) if name in HEAD else stored[name])
        expected = before[name] - c / (1 + c) * deltas[name]
        torch.testing.assert_close(parameter.detach(), expected)
        if name in HEAD:
            assert torch.equal(parameter[OLD:], before[name][OLD:])


@pytest.mark.parametrize("fisher", ["sampled", "true"])
def test_ewc_estimates_the_champions_own_precision(
    fisher: str, champion: nn.Module, model: nn.Module
) -> None:
    """The grown model's Fisher would spread old rows' probability over random new classes."""
    told: list[str] = []
    now = context(model, champion, warn=told.append)
    method = EWC(fisher=fisher)
    method.prepare(now)
    own, count = diagonal_fisher(
        champion, now.history(), logits=lambda data: champion(data[0]), kind=fisher, seed=0
    )
    for name, value in own.items():
        expected = count * (wide(value) if name in HEAD else value)
        torch.testing.assert_close(method.precision[name], expected, rtol=1e-5, atol=1e-7)
    assert not method.precision["2.weight"][OLD:].any()
    assert not [line for line in told if "Fisher" in line], "layer by layer, as ever"


def test_ewc_leaves_a_precision_over_all_classes(champion: nn.Module, model: nn.Module) -> None:
    stored = left_by(champion)
    method = EWC(decay=0.5)
    now = context(model, champion, {"ewc": stored})
    method.prepare(now)
    moved(model)
    fresh, count = diagonal_fisher(model, now.new(), logits=lambda data: model(data[0]), seed=0)
    left = method.finish(now)
    for name, value in fresh.items():
        old = wide(stored[name]) if name in HEAD else stored[name]
        torch.testing.assert_close(left[name], count * value + 0.5 * old)
    assert left["2.weight"][OLD:].any()


def test_si_keeps_old_rows_and_frees_new_ones(champion: nn.Module, model: nn.Module) -> None:
    stored = left_by(champion)
    method = SI(strength=0.5, damping=0.1)
    now = context(model, champion, {"si": stored})
    method.prepare(now)
    deltas = moved(model)
    method.add_gradients(step(model, torch.zeros(2, 6)))
    pulled(model, deltas, stored)

    path = {name: torch.rand(p.shape) for name, p in model.named_parameters()}
    method.path = {name: value.clone() for name, value in path.items()}
    method.end = {name: p.detach().clone() for name, p in model.named_parameters()}
    left = method.finish(now)
    for name, delta in deltas.items():
        old = wide(stored[name]) if name in HEAD else stored[name]
        torch.testing.assert_close(left[name], old + path[name] / (delta.square() + 0.1))


def test_l2sp_frees_new_rows_also_after_a_resume(champion: nn.Module, model: nn.Module) -> None:
    method = L2SP(strength=1.0)
    method.prepare(context(model, champion))
    deltas = moved(model)
    ones = {name: torch.ones(p.shape) for name, p in champion.named_parameters()}
    logged: dict[str, float] = {}
    x = torch.zeros(2, 6)
    method.add_gradients(step(model, x, is_logging=True, log=logged.__setitem__))
    pulled(model, deltas, ones)
    held = sum(
        float((delta[:OLD] if name in HEAD else delta).square().sum())
        for name, delta in deltas.items()
    )
    assert logged["l2sp/penalty"] == pytest.approx(held / 2, rel=1e-5)

    again = L2SP(strength=1.0)
    again.load_state_dict(copy.deepcopy(method.state_dict()))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    again.add_gradients(step(model, x))
    pulled(model, deltas, ones)


def test_the_teacher_speaks_about_the_champions_classes(
    champion: nn.Module, model: nn.Module
) -> None:
    method = LwF(strength=0.7, temperature=3.0)
    method.prepare(context(model, champion))
    moved(model)
    x = torch.randn(10, 6)
    p = torch.softmax(champion(x) / 3, dim=1)
    log_q = torch.log_softmax(model(x)[:, :OLD] / 3, dim=1)
    expected = 0.7 * 9 * (p * (p.log() - log_q)).sum(dim=1).mean()
    for one in (method, resumed(LwF(strength=0.7, temperature=3.0), method)):
        model.zero_grad()
        term = one.loss_terms(step(model, x))["distillation"]
        torch.testing.assert_close(term, expected)
        term.backward()
        assert not model[2].weight.grad[OLD:].any()
        assert model[2].weight.grad[:OLD].any()


def resumed(fresh: LwF, method: LwF) -> LwF:
    fresh.load_state_dict(copy.deepcopy(method.state_dict()))
    return fresh


def test_old_rows_are_interpolated_and_new_ones_the_candidates(
    champion: nn.Module, model: nn.Module
) -> None:
    deltas = moved(model)
    candidate = {name: value.clone() for name, value in model.state_dict().items()}
    served = champion.state_dict()
    found = mixed(served, candidate, 0.25)
    for name, value in found.items():
        old = value[:OLD] if name in HEAD else value
        delta = deltas[name][:OLD] if name in HEAD else deltas[name]
        torch.testing.assert_close(old, served[name] + 0.25 * delta)
        if name in HEAD:
            assert torch.equal(value[OLD:], candidate[name][OLD:])

    scores = iter([{"new": 0.4, "history": 0.9}, {"new": 0.8, "history": 0.7}])
    method = Interpolation(points=2, budget=0.1)
    # the champion itself scored 0.85 with its own classes
    method.adjust(
        context(
            model, champion,
            validate=lambda: next(scores), champion_scores={"new": 0.1, "history": 0.85},
        )
    )  # fmt: skip
    assert method.alpha == 0.5
    expected = mixed(served, candidate, 0.5)
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_scratch_draws_all_rows(champion: nn.Module, model: nn.Module) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Scratch().prepare(context(model, champion))
    assert model[2].weight.shape == (ALL, 4)
    assert (model[2].weight != before["2.weight"]).all()


@pytest.mark.parametrize("method", [EWC, SI])
def test_what_does_not_fit_is_still_refused(
    method: type[EWC] | type[SI], champion: nn.Module, model: nn.Module
) -> None:
    name = method.name
    for wrong in (torch.ones(OLD - 1, 4), torch.ones(OLD, 3), torch.ones(ALL + 1, 4)):
        stored = {**left_by(champion), "2.weight": wrong}
        with pytest.raises(MethodError, match=r"2\.weight"):
            method().prepare(context(model, champion, {name: stored}))
    shrunk = {**left_by(champion), "0.weight": torch.ones(2, 6)}
    with pytest.raises(MethodError, match=r"0\.weight"):
        method().prepare(context(model, champion, {name: shrunk}))
