from __future__ import annotations

import pytest
import torch
from torch import nn

from perennial.errors import ConfigError
from perennial.models.freezing import freeze


def _model() -> nn.Module:
    return nn.ModuleDict(
        {
            "encoder": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4)),
            "head": nn.Linear(4, 2),
        }
    )


def test_patterns_meet_whole_names() -> None:
    model = _model()
    assert freeze(model, ["encoder.0.*", "*.1.bias"]) == [
        "encoder.0.bias",
        "encoder.0.weight",
        "encoder.1.bias",
    ]
    training = {name for name, p in model.named_parameters() if p.requires_grad}
    assert training == {
        "encoder.1.weight", "encoder.2.weight", "encoder.2.bias", "head.weight", "head.bias",
    }  # fmt: skip


@pytest.mark.parametrize("pattern", ["encoder", "Encoder.*", "body.*", "head.weigh"])
def test_a_pattern_that_meets_nothing_is_an_error(pattern: str) -> None:
    with pytest.raises(ConfigError, match="meets no parameter") as raised:
        freeze(_model(), ["encoder.*", pattern])
    assert "encoder.0.weight" in str(raised.value.mend)


def test_something_must_be_left_to_train() -> None:
    with pytest.raises(ConfigError, match="Every parameter is frozen"):
        freeze(_model(), ["*"])


def test_a_frozen_batch_norm_keeps_its_statistics() -> None:
    model = _model()
    freeze(model, ["encoder.0.*", "encoder.1.*"])
    model.train()
    assert not model["encoder"][1].training  # type: ignore[index]
    assert model["encoder"][2].training  # type: ignore[index]
    before = {name: value.clone() for name, value in model.named_buffers()}
    model["encoder"](torch.randn(8, 3) + 5)  # type: ignore[index]
    moved = {name for name, value in model.named_buffers() if not torch.equal(value, before[name])}
    assert moved == {
        f"encoder.2.{n}" for n in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert model.state_dict().keys() == _model().state_dict().keys()


def test_a_weight_with_two_names_is_frozen_under_either() -> None:
    model = _model()
    model["copy"] = model["head"]  # type: ignore[index]
    freeze(model, ["copy.weight"])
    assert not model["head"].weight.requires_grad  # type: ignore[index]


def test_a_frozen_instance_norm_keeps_its_statistics_too() -> None:
    model = nn.Sequential(
        nn.InstanceNorm1d(2, affine=True, track_running_stats=True), nn.Linear(3, 2)
    )
    freeze(model, ["0.*"])
    model.train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    model(torch.randn(4, 2, 3) + 5)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
