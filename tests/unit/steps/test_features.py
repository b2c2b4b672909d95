"""Features are what enters the output layer, or a refusal with the reason."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from perennial.data.memory import Memory
from perennial.errors import MethodError
from perennial.models.head import Growing
from perennial.steps.features import features, require_selectable
from support.learners import learner, net, rows


def test_features_are_what_enters_the_output_layer() -> None:
    made = learner(net)
    made.model.train()
    found = features(made, rows(7))
    copy = net().eval()
    copy.load_state_dict(made.model.state_dict())
    with torch.no_grad():
        expected = copy[:-1](torch.from_numpy(rows(7).features["x"]))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)
    assert made.model.training
    assert not made.model[-1]._forward_pre_hooks


class NoHead(torch.nn.Module):
    """Its logits are no layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


def test_a_model_without_them_is_refused_where_memory_herds() -> None:
    made = learner(NoHead)
    with pytest.raises(MethodError, match="needs the capability features") as refused:
        require_selectable(Memory(selection="herding"), made, rows(5))
    assert refused.value.where == "data.memory.selection=herding"
    require_selectable(Memory(selection="class_balanced"), made, rows(5))
    require_selectable(Memory(selection="herding"), made, rows(5).take(slice(0, 0)))
    require_selectable(Memory(selection="herding"), learner(net), rows(5))


class Grows(torch.nn.Module):
    """Its output shares weights with its input, so that no layer is its output alone."""

    def __init__(self) -> None:
        super().__init__()
        self.items = torch.nn.Parameter(torch.ones(3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.items.T

    def grow_outputs(self, outputs: int, *, generator: torch.Generator) -> None:
        raise AssertionError("nothing grows here")

    @property
    def outputs(self) -> int:
        return len(self.items)


def test_a_model_that_grows_by_itself_is_refused_where_memory_herds() -> None:
    assert isinstance(Grows(), Growing)
    with pytest.raises(MethodError, match="grows by itself") as refused:
        require_selectable(Memory(selection="herding"), learner(Grows), rows(5))
    assert "class_balanced or reservoir" in refused.value.mend
