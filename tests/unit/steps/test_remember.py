"""Whose logits are stored, and in which dtype."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from perennial.data.logits import put
from perennial.data.rows import OWN, Rows
from perennial.errors import MethodError
from perennial.steps.learner import Constructor, Learner, build_learner
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
