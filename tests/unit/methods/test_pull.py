"""The quadratic pull that EWC, SI and L2-SP share, against its closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from perennial.errors import MethodError
from perennial.methods import pull as room
from perennial.methods.pull import Pull, anchors, like


def made(dtype: torch.dtype = torch.float32, *, precise: bool = True) -> tuple[Pull, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3)).to(dtype)
    parameters = dict(model.named_parameters())
    precision = {n: like(p, torch.rand(p.shape) * 9) for n, p in parameters.items()}
    pull = Pull(anchors(parameters), precision if precise else {}, method="m")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    return pull, model


@pytest.mark.parametrize("chunk", [4, 1 << 16])
@pytest.mark.parametrize("precise", [True, False])
def test_the_gradient_is_autograds(
    monkeypatch: pytest.MonkeyPatch, chunk: int, precise: bool
) -> None:
    monkeypatch.setattr(room, "CHUNK", chunk)
    pull, model = made(precise=precise)
    parameters = dict(model.named_parameters())
    value = 0.35 * sum(
        ((pull.precision[n] if pull.precision else 1.0) * (p - pull.anchor[n]).square()).sum()
        for n, p in parameters.items()
    )
    expected = torch.autograd.grad(value, list(parameters.values()))
    for parameter in parameters.values():
        parameter.grad = torch.full_like(parameter, 2.0)
    told = pull.add_gradients(parameters, 0.7, value=True)
    assert told == pytest.approx(float(value.detach()), rel=1e-5)
    for parameter, gradient in zip(parameters.values(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient + 2, rtol=1e-5, atol=1e-5)
    assert pull.add_gradients(parameters, 0.7, value=False) is None


@pytest.mark.parametrize("chunk", [4, 1 << 16])
@pytest.mark.parametrize("precise", [True, False])
@pytest.mark.parametrize("strength", [1e-3, 1.0, 1e6])
def test_the_proximal_step_minimises_penalty_and_distance(
    monkeypatch: pytest.MonkeyPatch, chunk: int, precise: bool, strength: float
) -> None:
    """argmin over θ of ½‖θ − θ₀‖² + lr · strength / 2 · Σ P (θ − θ*)²."""
    monkeypatch.setattr(room, "CHUNK", chunk)
    pull, model = made(precise=precise)
    parameters = dict(model.named_parameters())
    before = anchors(parameters)
    pull.shrink(parameters, dict.fromkeys(parameters, 0.1 * strength))
    for name, parameter in parameters.items():
        p = pull.precision[name] if pull.precision else torch.ones_like(parameter)
        c = 0.1 * strength * p.double()
        expected = (before[name].double() + c * pull.anchor[name].double()) / (1 + c)
        torch.testing.assert_close(parameter.detach().double(), expected, rtol=1e-5, atol=1e-5)


def test_no_cancellation_near_the_anchor() -> None:
    """P (θ − θ*), not Pθ − Pθ*: at a distance of 1e-6 the latter has lost most digits."""
    parameter = nn.Parameter(torch.tensor([1000.0]))
    pull = Pull({"w": torch.tensor([1000.0 - 2**-10])}, {"w": torch.tensor([3.0])}, method="m")
    parameter.grad = torch.zeros(1)
    pull.add_gradients({"w": parameter}, 1.0, value=False)
    assert float(parameter.grad) == 3 * 2**-10


def test_bfloat16_weights_are_pulled_with_float32_arithmetic() -> None:
    pull, model = made(torch.bfloat16)
    parameters = dict(model.named_parameters())
    pull.add_gradients(parameters, 0.5, value=False)
    for name, parameter in parameters.items():
        exact = 0.5 * pull.precision[name] * (parameter.float() - pull.anchor[name].float())
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, exact.detach().bfloat16(), rtol=1e-2, atol=1e-3)
    pull.shrink(parameters, dict.fromkeys(parameters, 1e9))
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.detach(), pull.anchor[name], rtol=0.02, atol=0.05)


def test_a_parameter_without_an_anchor_is_refused() -> None:
    pull, _ = made()
    with pytest.raises(MethodError, match="became trainable after m was prepared"):
        pull.add_gradients({"other": nn.Parameter(torch.zeros(2))}, 1.0, value=False)
    with pytest.raises(MethodError, match="'other'"):
        pull.shrink({"other": nn.Parameter(torch.zeros(2))}, {"other": 1.0})
