"""Where EWC ends, against closed forms, through the real estimate, steps and hand-over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perennial.methods.ewc import EWC
from perennial.tasks.likelihood import Gaussian
from perennial.types import Batch, MethodContext, StepContext, VersionView

Rows = tuple[Tensor, Tensor]
NOTHING: Rows = (torch.zeros(0, 1), torch.zeros(0, 1))


def batches(rows: Rows, size: int = 13) -> Iterator[Batch]:
    for start in range(0, len(rows[0]), size):
        x, y = (part[start : start + size] for part in rows)
        ids = np.array([f"row-{start + i}" for i in range(len(x))])
        yield Batch(data=(x, y), ids=ids, is_new=np.ones(len(x), dtype=bool))


def context(
    model: nn.Module, new: Rows, variance: float, methods: Mapping[str, Any], history: Rows
) -> MethodContext:
    return MethodContext(
        model=model,
        champion=VersionView(id="m@1", weights=model.state_dict(), methods=methods),
        logits=lambda model, data: model(data[0]),
        per_example_loss=None,
        features=None,
        history=lambda: batches(history),
        new=lambda: batches(new),
        validate=dict,
        history_count=len(history[0]),
        new_count=len(new[0]),
        seed=0,
        generator=torch.Generator(),
        device=torch.device("cpu"),
        targets=lambda data: data[1],
        likelihood=Gaussian(variance=variance),
    )


def train(model: nn.Linear, method: EWC, rows: Rows, variance: float) -> None:
    """Gradient descent on the mean loss over the new rows, to the end."""
    x, y = rows
    precision = method.precision["weight"]
    curvature = torch.linalg.eigvalsh(x.T @ x)[-1] / len(x) / variance
    rate = 0.9 / float(curvature + method.factor * precision.max())
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(500):
        optimizer.zero_grad()
        ((y - model(x)).square().sum(dim=1) / (2 * variance)).mean().backward()
        now = StepContext(
            batch=Batch(data=(), ids=np.array([]), is_new=np.array([], dtype=bool)),
            model=model,
            parameters=dict(model.named_parameters()),
            optimizer=optimizer,
        )
        method.add_gradients(now)
        optimizer.step()
        method.after_step(now)


def weights(model: nn.Linear) -> Tensor:
    return model.weight.detach().double()


def solved(x: Tensor, y: Tensor) -> Tensor:
    return torch.linalg.lstsq(x.double(), y.double()).solution.T


def drawn(rows: int, width: int, outputs: int, generator: torch.Generator) -> Rows:
    x = torch.randn(rows, width, generator=generator) * torch.linspace(0.5, 1.5, width)
    return x, torch.randn(rows, outputs, generator=generator)


def orthogonal(rows: int, width: int, generator: torch.Generator) -> Rows:
    """Features without correlation, of different lengths, and targets with a law of their own."""
    basis = torch.linalg.qr(torch.randn(rows, width, generator=generator))[0]
    x = basis * (torch.rand(width, generator=generator) + 0.5) * rows**0.5
    law = torch.randn(width, 2, generator=generator)
    return x, x @ law + torch.randn(rows, 2, generator=generator) / 4


@pytest.mark.parametrize("step", ["explicit", "proximal"])
@pytest.mark.parametrize(("strength", "variance"), [(1.0, 0.5), (0.2, 1.0), (7.0, 3.0)])
def test_the_optimum_on_a_linear_gaussian_model_is_the_closed_form(
    strength: float, variance: float, step: str
) -> None:
    generator = torch.Generator().manual_seed(3)
    history, new = drawn(120, 4, 2, generator), drawn(35, 4, 2, generator)
    model = nn.Linear(4, 2, bias=False)
    model.weight.data.copy_(solved(*history))
    start = weights(model)
    method = EWC(strength=strength, fisher="true", step=step)
    method.prepare(context(model, new, variance, {}, history))
    train(model, method, new, variance)
    # one ridge regression per output: (XᵀX + sσ²P) θ = Xᵀy + sσ²P θ*, P = Σ x² / σ²
    x, y = (part.double() for part in new)
    ridge = strength * torch.diag(history[0].double().square().sum(dim=0))
    expected = torch.linalg.solve(x.T @ x + ridge, x.T @ y + ridge @ start.T).T
    torch.testing.assert_close(weights(model), expected, rtol=1e-4, atol=1e-5)
    assert (weights(model) - start).abs().max() > 0.01


@pytest.mark.parametrize("step", ["explicit", "proximal"])
@pytest.mark.parametrize("sizes", [(10, 40), (30, 5, 100), (7, 50, 6, 90, 20, 11)])
def test_with_orthogonal_features_cycles_of_different_sizes_end_where_joint_training_would(
    sizes: tuple[int, ...], step: str
) -> None:
    """An accumulated mean, or history counted by its own size again, would end elsewhere."""
    generator = torch.Generator().manual_seed(len(sizes))
    model = nn.Linear(4, 2, bias=False)
    cycles = [orthogonal(rows, 4, generator) for rows in sizes]
    stored: dict[str, Any] = {}
    for number, new in enumerate(cycles, start=1):
        method = EWC(strength=1.0, fisher="true", step=step)
        now = context(model, new, 0.5, stored, NOTHING)
        if number == 1:
            model.weight.data.copy_(solved(*new))
        else:
            method.prepare(now)
            train(model, method, new, 0.5)
        stored = {"ewc": method.finish(now)}
        x, y = (torch.cat(parts) for parts in zip(*cycles[:number], strict=True))
        torch.testing.assert_close(weights(model), solved(x, y), rtol=1e-4, atol=1e-4)
        expected = (x.square().sum(dim=0) / 0.5).expand(2, 4)
        torch.testing.assert_close(stored["ewc"]["weight"], expected, rtol=1e-5, atol=0)


def test_the_precision_is_in_the_units_of_the_loss() -> None:
    """Its sum over rows is the second derivative of the summed loss, whatever the variance."""
    generator = torch.Generator().manual_seed(5)
    rows = drawn(30, 3, 1, generator)
    model = nn.Linear(3, 1, bias=False)
    for variance in (0.5, 1.0, 8.0):

        def loss(weight: Tensor, variance: float = variance) -> Tensor:
            return ((rows[1] - rows[0] @ weight.T).square() / (2 * variance)).sum()

        hessian = torch.autograd.functional.hessian(loss, model.weight.detach()).reshape(3, 3)
        found = EWC(fisher="true").finish(context(model, rows, variance, {}, NOTHING))
        torch.testing.assert_close(found["weight"][0], hessian.diagonal(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", ["sampled", "true", "empirical"])
def test_rows_twice_have_twice_the_precision(kind: str) -> None:
    generator = torch.Generator().manual_seed(5)
    x, y = drawn(30, 3, 2, generator)
    model = nn.Linear(3, 2)
    once = EWC(fisher=kind).finish(context(model, (x, y), 1.0, {}, NOTHING))

    def twice() -> Iterator[Batch]:
        yield from batches((x, y))
        yield from batches((x, y), size=4)

    now = replace(context(model, (x, y), 1.0, {}, NOTHING), new=twice)
    for name, value in EWC(fisher=kind).finish(now).items():
        torch.testing.assert_close(value, 2 * once[name], rtol=1e-5, atol=1e-6)
