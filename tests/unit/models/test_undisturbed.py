from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perennial.models.undisturbed import undisturbed


class Restless(nn.Module):
    """Everything of a module that a forward can touch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("mean", torch.full((3,), float("nan")))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last", None)
        self.register_buffer("cache", torch.arange(2), persistent=False)
        self.register_buffer("scratch", torch.zeros(3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1  # replaces, others change in place
        self.mean.copy_(x.mean(dim=0))
        self.last = x
        self.scratch += 1
        if len(self.cache) < len(x):
            self.cache = torch.arange(len(x))
        if not hasattr(self, "late"):
            self.register_buffer("late", x)
        self.weight.data.mul_(2)
        return x * self.weight * torch.rand(()) * random.random() * np.random.rand()


def _fail_in_the_middle(model: nn.Module) -> None:
    with undisturbed(model, parameters=True):
        model.eval()
        model(torch.ones(5, 3))
        raise ZeroDivisionError


def test_everything_that_a_version_keeps_is_what_it_was() -> None:
    model = Restless()
    model.calls += 4
    keep = {name: value.clone() for name, value in model.state_dict().items()}
    same_calls = model.calls
    draws = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    with pytest.raises(ZeroDivisionError):
        _fail_in_the_middle(model)
    assert model.training
    found = model.state_dict()
    assert found.keys() == keep.keys()
    for name, value in keep.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True)
    assert model.calls is same_calls, "who holds on to a buffer goes on holding it"
    assert model.scratch.sum() == 0
    assert len(model.cache) == 5, "the module may remember that its cache has grown"
    assert torch.equal(draws[0], torch.get_rng_state())
    assert draws[1] == random.getstate()
    assert (draws[2] == np.random.get_state()[1]).all()


def test_parameters_are_copied_only_where_that_is_asked_for() -> None:
    model = Restless()
    with undisturbed(model):
        model(torch.ones(2, 3))
    assert float(model.weight[0].detach()) == 2
