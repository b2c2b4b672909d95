from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perennial.errors import ConfigError, MethodError
from perennial.methods import pull as room
from perennial.methods.ewc import EWC
from perennial.types import Batch, MethodContext, StepContext, VersionView


def batches(x: Tensor) -> Iterator[Batch]:
    for start in range(0, len(x), 16):
        part = x[start : start + 16]
        ids = np.array([f"{start + i}-{float(row.sum()):.6f}" for i, row in enumerate(part)])
        yield Batch(data=(part,), ids=ids, is_new=np.ones(len(part), dtype=bool))


def context(
    model: nn.Module, new: Tensor, history: Tensor | None = None, methods: Any = None
) -> MethodContext:
    return MethodContext(
        model=model,
        champion=VersionView(id="m@1", weights=model.state_dict(), methods=methods or {}),
        logits=lambda model, data: model(data[0]),
        per_example_loss=None,
        features=None,
        history=lambda: () if history is None else batches(history),
        new=lambda: batches(new),
        validate=dict,
        history_count=0 if history is None else len(history),
        new_count=len(new),
        seed=0,
        generator=torch.Generator(),
        device=torch.device("cpu"),
    )


def step(model: nn.Module, **changes: Any) -> StepContext:
    batch = Batch(data=(), ids=np.array([]), is_new=np.array([], dtype=bool))
    return StepContext(
        batch=batch, model=model, parameters=dict(model.named_parameters()), **changes
    )


def prepared(strength: float = 3.0) -> tuple[EWC, nn.Module, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    new = torch.randn(40, 5)
    method = EWC(strength=strength)
    method.prepare(context(model, new, history=torch.randn(90, 5)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    return method, model, new


@pytest.mark.parametrize("chunk", [3, 1 << 16])
def test_the_gradient_is_that_of_the_penalty(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(room, "CHUNK", chunk)
    method, model, new = prepared()
    penalty = sum(
        (method.precision[name] * (p - method.anchor[name]).square()).sum()
        for name, p in model.named_parameters()
    )
    penalty = 3.0 / (2 * len(new)) * penalty
    expected = torch.autograd.grad(penalty, list(model.parameters()))
    logged: dict[str, float] = {}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    method.add_gradients(step(model, is_logging=True, log=logged.__setitem__))
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad - 1, gradient, rtol=1e-4, atol=1e-6)
    assert logged["ewc/penalty"] == pytest.approx(float(penalty.detach()), rel=1e-5)


@pytest.mark.parametrize("layout", ["channels_last", "gradient differs", "strided parameter"])
def test_other_layouts_in_memory_change_nothing(layout: str) -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 4, 3, 3)
    model = nn.Conv2d(4, 6, 3, bias=False)
    if layout == "strided parameter":
        model.weight = nn.Parameter(torch.zeros(6, 4, 3, 6)[..., ::2])
    elif layout == "channels_last":
        model.to(memory_format=torch.channels_last)
    model.weight.data.copy_(weight)
    precision = torch.rand_like(weight)
    method = EWC(strength=1.0)
    method.prepare(context(model, torch.randn(4, 1), methods={"ewc": {"weight": precision}}))
    moved = torch.randn_like(weight)
    model.weight.data.add_(moved)
    start = torch.randn_like(weight)
    model.weight.grad = torch.empty_like(model.weight).copy_(start)
    if layout == "gradient differs":
        model.weight.grad = start.to(memory_format=torch.channels_last)
    logged: dict[str, float] = {}
    method.add_gradients(step(model, is_logging=True, log=logged.__setitem__))
    torch.testing.assert_close(
        model.weight.grad, start + precision * moved / 4, rtol=1e-5, atol=1e-5
    )
    expected = float((precision * moved.square()).sum()) / 8
    assert logged["ewc/penalty"] == pytest.approx(expected, rel=1e-5)


def test_nothing_of_a_parameters_size_is_allocated() -> None:
    model = nn.Conv2d(64, 64, 7, bias=False).to(memory_format=torch.channels_last)
    method = EWC(strength=1.0)
    method.prepare(
        context(model, torch.randn(4, 1), methods={"ewc": {"weight": torch.rand(64, 64, 7, 7)}})
    )
    model.weight.grad = torch.zeros_like(model.weight)
    method.add_gradients(step(model))  # the scratch buffer
    with torch.profiler.profile(profile_memory=True) as profile:
        method.add_gradients(step(model))
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < model.weight.numel() * 4


def test_the_first_step_from_the_anchor_is_zero_and_a_missing_gradient_is_made() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    method = EWC(strength=1.0)
    method.prepare(context(model, torch.randn(9, 4), history=torch.randn(9, 4)))
    method.add_gradients(step(model))
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_precision_is_a_sum_over_rows_over_cycles() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    first, second = torch.randn(64, 4), torch.randn(16, 4)
    one = EWC(fisher="true").finish(context(model, first))
    method = EWC(fisher="true", decay=0.5)
    method.prepare(context(model, second, methods={"ewc": one}))
    both = method.finish(context(model, second))

    def summed(x: Tensor) -> Tensor:
        p = torch.softmax(model(x), dim=1).detach()
        return (p * (1 - p)).T @ x.square()

    torch.testing.assert_close(one["weight"], summed(first), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        both["weight"], 0.5 * summed(first) + summed(second), rtol=1e-5, atol=1e-6
    )


def test_the_optimum_of_a_quadratic_is_the_precision_weighted_mean() -> None:
    # loss ½ N_new h (θ - a)² / N_new with one parameter, penalty s/(2 N_new) P (θ - θ*)²
    theta = nn.Linear(1, 1, bias=False)
    method = EWC(strength=2.0)
    method.precision = {"weight": torch.tensor([[6.0]])}
    method.anchor = {"weight": torch.tensor([[1.0]])}
    method.new_count = 4
    optimizer = torch.optim.SGD(theta.parameters(), lr=0.1)
    for _ in range(500):
        theta.weight.grad = (theta.weight.detach() - 5.0) * 0.5
        method.add_gradients(step(theta))
        optimizer.step()
    # stationary: 0.5 (θ - 5) + 2/4 · 6 (θ - 1) = 0
    assert float(theta.weight.detach()) == pytest.approx((0.5 * 5 + 3 * 1) / 3.5, rel=1e-5)


def test_a_resumed_method_goes_on_exactly() -> None:
    method, model, _ = prepared()
    other = EWC(strength=3.0)
    other.load_state_dict(method.state_dict())
    method.add_gradients(step(model))
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    for parameter in model.parameters():
        parameter.grad = None
    other.add_gradients(step(model))
    assert all(
        torch.equal(p.grad, g)
        for p, g in zip(model.parameters(), expected, strict=True)
        if p.grad is not None
    )


def test_without_history_or_precision_it_refuses() -> None:
    with pytest.raises(MethodError, match="no history"):
        EWC(strength=1.0).prepare(context(nn.Linear(2, 2), torch.randn(4, 2)))


def test_a_precision_of_another_shape_is_named() -> None:
    stored = {"ewc": {"weight": torch.ones(3, 3), "bias": torch.ones(2)}}
    with pytest.raises(MethodError, match="weight"):
        EWC(strength=1.0).prepare(context(nn.Linear(2, 2), torch.randn(4, 2), methods=stored))


@pytest.mark.parametrize(
    "settings",
    [
        {"strength": -1},
        {"strength": "strong"},
        {"strength": True},
        {"strength": float("nan")},
        {"decay": 1.5},
        {"fisher": "squared"},
        {"fisher": False},
        {"max_classes": 1},
        {"max_classes": 1, "fisher": "true"},
        {"max_classes": 50},
        {"max_classes": 50, "fisher": "empirical"},
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"method\.ewc\.{next(iter(settings))}"):
        EWC(**settings)


def test_the_limit_of_classes_is_of_the_true_fisher_alone() -> None:
    assert EWC(fisher="true").max_classes == EWC().max_classes == 100
    assert EWC(fisher="true", max_classes=50).max_classes == 50


class Known(EWC):
    """Its Fisher is given: the curvature of a quadratic, a sum over rows."""

    curvature: Tensor
    rows: int

    def _estimate(self, context: MethodContext, *, history: bool) -> dict[str, Tensor]:
        return {"weight": self.rows * self.curvature}


def test_an_unstable_explicit_step_under_sgd_is_told_once() -> None:
    told: list[str] = []
    for rate, expected in ((0.1, 0), (10.0, 1)):
        model = nn.Linear(4, 1, bias=False)
        method = Known(strength=1.0)
        method.curvature, method.rows = torch.ones(1, 4), 10
        method.prepare(
            replace(
                context(model, torch.zeros(10, 4), history=torch.zeros(10, 4)), warn=told.append
            )
        )
        for _ in range(3):
            method.add_gradients(
                step(model, optimizer=torch.optim.SGD(model.parameters(), lr=rate))
            )
        assert len(told) == expected
    assert "method.ewc.step=proximal" in told[0]
    adam = torch.optim.Adam(model.parameters(), lr=10.0)
    other = Known(strength=1.0)
    other.curvature, other.rows = torch.ones(1, 4), 10
    other.prepare(context(model, torch.zeros(10, 4), history=torch.zeros(10, 4)))
    other.add_gradients(step(model, optimizer=adam))
    assert len(told) == 1


@pytest.mark.parametrize(("replays", "expected"), [(True, 0.1), (False, 100.0)])
def test_a_strength_that_is_not_given_depends_on_replay(replays: bool, expected: float) -> None:
    model = nn.Linear(3, 2)
    precision = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    context = MethodContext(
        model=model,
        champion=VersionView(id="m@1", weights=model.state_dict(), methods={"ewc": precision}),
        logits=lambda model, data: model(data),
        per_example_loss=None,
        features=None,
        history=tuple,
        new=tuple,
        validate=dict,
        history_count=5,
        new_count=10,
        seed=0,
        generator=torch.Generator(),
        device=torch.device("cpu"),
        replays=replays,
    )
    method, resumed, given = EWC(), EWC(), EWC(strength=2.0)
    method.prepare(context)
    given.prepare(context)
    resumed.load_state_dict(method.state_dict())
    assert method.factor == resumed.factor == expected / 10
    assert given.factor == 0.2


@pytest.mark.parametrize("fisher", ["sampled", "true", "empirical"])
@pytest.mark.parametrize("build", [lambda: nn.Linear(3, 2), lambda: Scaled()])
def test_a_row_counts_for_as_many_as_it_stands_for(
    fisher: str, build: Callable[[], nn.Module]
) -> None:
    """Weights are the same as so many copies, layer by layer and through the whole model."""
    torch.manual_seed(0)
    model, x = build(), torch.randn(20, 3)
    stands_for = np.arange(20) % 4
    targets = (x[:, 0] > 0).long()

    def precision(index: Any, weight: Any) -> dict[str, Tensor]:
        def history() -> Iterator[Batch]:
            for part in np.array_split(index, 3):
                data = (x[part], targets[part])
                yield Batch(data, ids=part.astype(np.str_), is_new=np.zeros(len(part), dtype=bool))

        method = EWC(strength=1.0, fisher=fisher)
        method.prepare(
            replace(
                context(model, x, history=x[index]),
                history=history,
                history_weight=weight,
                targets=lambda data: data[1],
            )
        )
        return method.precision

    copies = precision(np.repeat(np.arange(20), stands_for), None)
    weighed = precision(np.arange(20), stands_for.astype(np.float64))
    for name, value in copies.items():
        torch.testing.assert_close(weighed[name], value, rtol=1e-5, atol=1e-6)
    assert any(value.any() for value in copies.values())


class Scaled(nn.Module):
    """A parameter of which no layer's rule knows."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.scale = nn.Linear(3, 2), nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x * self.scale)
        return logits
