from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from perennial.errors import ConfigError
from perennial.training.optimizer import Grouped, build_optimizer, depths, learning_rate

SGD = functools.partial(torch.optim.SGD, lr=0.1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(2, 3)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(3, 3), nn.ReLU()) for _ in range(3))
        self.head = nn.Linear(3, 2)


def _rates(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


def test_rates_fall_from_the_output_down() -> None:
    model = Net()
    rates = _rates(model, build_optimizer(Grouped(SGD, layer_decay=0.5), model, 0.1))
    expected = {"embed": 0.1 / 16, "blocks.0": 0.1 / 8, "blocks.1": 0.05 / 2, "blocks.2": 0.05}
    expected["head"] = 0.1
    for name, rate in rates.items():
        prefix = name.removesuffix(".weight").removesuffix(".bias").removesuffix(".0")
        assert rate == pytest.approx(expected[prefix if prefix != "blocks" else "blocks.0"])
    assert len(rates) == 10


def test_a_tuners_rate_is_what_is_decayed() -> None:
    model = Net()
    rates = _rates(model, build_optimizer(Grouped(SGD, layer_decay=0.5), model, 1.0))
    assert rates["head.weight"] == 1.0
    assert rates["embed.bias"] == 1 / 16


def test_the_first_pattern_that_meets_a_name_counts() -> None:
    model = Net()
    groups = [
        {"pattern": "*.bias", "weight_decay": 0.0},
        {"pattern": "blocks.*", "lr": 0.01, "weight_decay": 0.5},
    ]
    found = build_optimizer(Grouped(SGD, layer_decay=0.5, groups=groups), model, 0.1)
    rates = _rates(model, found)
    assert rates["blocks.2.0.weight"] == 0.01
    assert rates["blocks.2.0.bias"] == pytest.approx(0.05)
    decays = {id(p): group["weight_decay"] for group in found.param_groups for p in group["params"]}
    assert decays[id(model.blocks[0][0].weight)] == 0.5  # type: ignore[index]
    assert decays[id(model.blocks[0][0].bias)] == 0  # type: ignore[index]
    assert decays[id(model.head.weight)] == 0


def test_frozen_parameters_are_left_out() -> None:
    model = Net()
    model.embed.requires_grad_(False)
    for factory in (SGD, Grouped(SGD), Grouped(SGD, layer_decay=0.9)):
        rates = _rates(model, build_optimizer(factory, model, 0.1))
        assert len(rates) == 8
    with pytest.raises(ConfigError, match=r"'embed.+' meets no parameter"):
        build_optimizer(Grouped(SGD, groups=[{"pattern": "embed.*", "lr": 1.0}]), model, 0.1)


def test_what_would_be_ignored_or_cannot_be_is_refused() -> None:
    assert learning_rate(Grouped(SGD)) == 0.1
    for decay in (0.0, 1.5, -1.0):
        with pytest.raises(ConfigError, match="layer_decay"):
            Grouped(SGD, layer_decay=decay)
    for group in ({"lr": 0.1}, {"pattern": "*"}):
        with pytest.raises(ConfigError, match="group of parameters"):
            Grouped(SGD, groups=[group])
    with pytest.raises(ConfigError, match="cannot be told apart"):
        depths(nn.ModuleDict({"a": nn.Linear(2, 2)}))
    for group in ({"lr": -1.0}, {"weight_deacy": 0.1}):
        with pytest.raises(ConfigError, match="refuses"):
            build_optimizer(Grouped(SGD, groups=[{"pattern": "head.*", **group}]), Net(), 0.1)


def test_the_longest_stack_gives_the_layers() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.Linear(2, 2))
    assert depths(model) == {
        f"{place}.{kind}": layer
        for layer, place in enumerate((0, 2, 3), start=1)
        for kind in ("weight", "bias")
    }


def test_settings_by_parameter_that_would_do_nothing_are_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    sgd = functools.partial(torch.optim.SGD, lr=0.1)
    with pytest.raises(ConfigError, match="A group of parameters is 'a"):
        Grouped(sgd, groups=["a.*"])  # type: ignore[list-item]
    covered = [{"pattern": "0.*", "lr": 1.0}, {"pattern": "0.weight", "lr": 2.0}]
    with pytest.raises(ConfigError, match=r"'0\.weight' meets is met by an earlier"):
        build_optimizer(Grouped(sgd, groups=covered), model, 0.1)
    build_optimizer(Grouped(sgd, groups=covered[::-1]), model, 0.1)
    model[0].requires_grad_(False)
    with pytest.raises(ConfigError, match="one layer of Sequential train"):
        build_optimizer(Grouped(sgd, layer_decay=0.5), model, 0.1)
