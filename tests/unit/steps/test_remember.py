"""Whose logits are stored, in which dtype, and for which modules they would be wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perennial.data.logits import put
from perennial.data.rows import OWN, Rows
from perennial.errors import MethodError
from perennial.steps.learner import Constructor, Learner, build_learner, capabilities
from perennial.steps.remember import complete
from perennial.tasks.classification import Classification


def rows(count: int = 5) -> Rows:
    values = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    names = np.array([str(i) for i in range(count)])
    label = np.zeros(count, dtype=np.int64)
    return Rows(features={"x": values}, label=label, id=names, content=names, cluster=names)


def learner(build: Callable[[], nn.Module]) -> Learner:
    torch.manual_seed(0)
    return build_learner(
        model=Constructor(target="x", arguments={}, build=build),
        task=Classification(),
        optimizer=functools.partial(torch.optim.SGD, lr=0.1),
        device=torch.device("cpu"),
        form="tuple",
        label="label",
    )


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_without_logits_get_those_of_evaluation_mode(dtype: str) -> None:
    made = learner(net)
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    mask = np.array([False, True, False, False, False])
    known = put(rows(), mask, np.array([[7.0, 8.0, 9.0]]), 3)
    found = complete(made, known, dtype=dtype, version=OWN)
    assert found.logits is not None
    assert found.logits.dtype == dtype
    assert found.logits[1].tolist() == [7, 8, 9]
    assert found.logits_version.tolist() == [0, 3, 0, 0, 0]
    assert made.model.training
    assert all(torch.equal(before[n], v) for n, v in made.model.state_dict().items())
    copy = net().eval()
    copy.load_state_dict(before)
    expected = copy(torch.from_numpy(rows().features["x"])).detach().numpy().astype(dtype)
    np.testing.assert_allclose(found.logits[~mask], expected[~mask], rtol=1e-6)
    assert complete(made, found, dtype=dtype, version=9).logits is not None
    nothing = rows().take(slice(0, 0))
    assert complete(made, nothing, dtype=dtype, version=1) is nothing


def test_classes_that_the_weights_do_not_know_have_no_logit() -> None:
    mask = np.array([True, False, False, False, False])
    known = put(rows(), mask, np.array([[7.0, 8.0]]), 1)
    found = complete(learner(net), known, dtype="float32", version=2, known=2).logits
    assert found is not None
    assert found.shape == (5, 3)
    assert np.isnan(found[:, 2]).all()
    assert not np.isnan(found[:, :2]).any()
    assert found[0, :2].tolist() == [7, 8]


def test_a_logit_too_large_for_its_dtype_is_refused() -> None:
    made = learner(net)
    with torch.no_grad():
        made.model[3].bias.fill_(1e6)
    with pytest.raises(MethodError, match="does not fit float16"):
        complete(made, rows(), dtype="float16", version=1)
    complete(made, rows(), dtype="float32", version=1)


class Changing(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])


class After(Changing):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] + torch.randn_like(batch[0]), batch[1]


class Before(Changing):
    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch


class Noisy(nn.Module):
    """Augments in its own forward, beside what is random by design."""

    def __init__(self, noise: float = 0.1) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)
        )
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + self.noise * torch.randn_like(x) if self.training else x)


class Tokens(Classification):
    """A task with logits for every position."""

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        return super().outputs(model, batch)[:, None].expand(-1, 7, -1)

    def per_example_loss(self, outputs: Tensor, batch: Any) -> Tensor:
        return super().per_example_loss(outputs[:, 0], batch)


def test_what_makes_stored_logits_wrong_is_a_missing_capability() -> None:
    for build, words in ((After, "on_after_batch_transfer"), (Before, "on_before_batch_transfer")):
        missing = capabilities(learner(build), rows())
        assert words in missing["stored_logits"]
        assert "logits" not in missing
    for good in (Changing, net):
        assert set(capabilities(learner(good), rows())) == {"features"}
    quiet = learner(lambda: Noisy(0.0))
    state = {name: value.clone() for name, value in quiet.model.state_dict().items()}
    assert "stored_logits" not in capabilities(quiet, rows())
    assert all(torch.equal(value, state[n]) for n, value in quiet.model.state_dict().items())
    assert all(part.training for part in quiet.model.modules())
    assert "at random in training" in capabilities(learner(Noisy), rows())["stored_logits"]
    tokens = learner(net)
    tokens.task = Tokens()
    missing = capabilities(tokens, rows())
    assert "(2, 7, 3)" in missing["stored_logits"]
    assert "logits" not in missing
