"""Cycles that train factors beside frozen layers, stored as an adapter of a base, or merged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import perennial
from perennial.models.adapter import is_factor
from perennial.models.checkpoint import BASE, WEIGHTS, read_safetensors
from perennial.promotion.registry import Registry, Version

SHORT = ("trainer.max_steps=150", "model.hidden=[64,64]", "trainer.batch_size=64")
LORA = "model.adapter={layers:['layers.1','layers.3'],rank:4,train:['layers.5.*'],store:%s}"
Run = Callable[..., dict[str, Any]]


def _versions(home: Path) -> list[Version]:
    return Registry(url=f"sqlite:///{home / 'registry.db'}").versions("digits")


def test_versions_of_an_adapter_share_its_base(run: Run, home: Path) -> None:
    result = run("method=[default,interpolation]", LORA % "adapter", *SHORT)
    assert result["error"] is None
    first, second = sorted(_versions(home), key=lambda version: version.number)
    assert first.files[BASE] == second.files[BASE]
    assert first.files[WEIGHTS] != second.files[WEIGHTS]
    base, own = (read_safetensors(second.open(name)) for name in (BASE, WEIGHTS))
    assert set(base) == {
        f"layers.{n}.base_layer.{kind}" for n in (1, 3) for kind in ("weight", "bias")
    }
    assert sum(map(is_factor, own)) == 4
    assert {name for name in own if not is_factor(name)} == {"layers.5.weight", "layers.5.bias"}
    precision = read_safetensors(second.open("methods/ewc.safetensors"))
    assert any(is_factor(name.removeprefix("precision.")) for name in precision)
    assert not any("base_layer" in name for name in precision)

    served = perennial.load("digits@2")
    assert second.manifest["model"]["adapter"]["rank"] == 4
    probabilities = served.probabilities(torch.rand(3, 8, 8).numpy())
    assert probabilities.shape == (3, 10)


def test_an_adapter_stays_what_it_was(run: Run) -> None:
    short = (*SHORT, "trainer.max_steps=4", "trainer.validate_every=2", "method=replay")
    assert run(LORA % "adapter", "promote=false", *short)["error"] is None
    for other in (LORA.replace("rank:4", "rank:5") % "adapter", LORA % "merged", "seed=0"):
        again = run(other, *short)
        assert "is an adapter of" in again["error"]["what"]


def test_a_merged_version_is_a_plain_model(run: Run, home: Path) -> None:
    result = run("method=[replay,interpolation]", LORA % "merged", *SHORT)
    assert result["error"] is None
    for version in _versions(home):
        assert BASE not in version.files
        assert "adapter" not in version.manifest["model"]
        weights = read_safetensors(version.open(WEIGHTS))
        assert set(weights) == {
            f"layers.{n}.{kind}" for n in (1, 3, 5) for kind in ("weight", "bias")
        }
    assert perennial.load("digits@2").predict(torch.rand(2, 8, 8).numpy())


@pytest.mark.parametrize("method", ["ewc", "si"])
def test_merged_factors_cannot_be_weighed(run: Run, method: str) -> None:
    result = run(f"method={method}", LORA % "merged", *SHORT)
    assert "do not go on" in result["error"]["what"]


def test_a_misspelt_setting_of_an_adapter_is_named(run: Run) -> None:
    result = run("model.adapter={layers:['layers.1'],rnak:4}", *SHORT)
    assert "model.adapter.rank" in result["error"]["mend"]
    result = run("model.adapter={layers:['layers.2']}", *SHORT)
    assert "no linear layer" in result["error"]["what"]


def test_interpolation_leaves_the_product_and_not_the_factors(home: Path) -> None:
    from types import SimpleNamespace

    from torch import nn

    from perennial.methods.interpolation import Interpolation
    from perennial.models.adapter import Adapter, adapt

    def filled(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
        adapt(model, Adapter(layers=("0",), rank=6))  # as wide as the layer: nothing is left out
        for name, parameter in model.named_parameters():
            if is_factor(name):
                nn.init.normal_(parameter)
        return model

    def product(state: dict[str, torch.Tensor]) -> torch.Tensor:
        return state["0.lora_B.default.weight"] @ state["0.lora_A.default.weight"]

    champion = {name: value.clone() for name, value in filled(0).state_dict().items()}
    model = filled(1)
    candidate = {name: value.clone() for name, value in model.state_dict().items()}
    scores = iter([{"new": 0.9}, {"new": 0.1}])
    told: list[str] = []
    method = Interpolation(points=2)
    context: Any = SimpleNamespace(
        model=model, champion=SimpleNamespace(weights=champion), champion_scores={"new": 0.0},
        validate=lambda: next(scores), warn=told.append, logits=None,
    )  # fmt: skip
    method.adjust(context)
    assert method.alpha == 0.5
    found = product(model.state_dict())
    torch.testing.assert_close(
        found, (product(champion) + product(candidate)) / 2, rtol=1e-4, atol=1e-4
    )
    assert len(told) == 1
