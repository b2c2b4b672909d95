"""Small learners and their rows, for tests of what is done with them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from perennial.data.rows import Rows
from perennial.steps.learner import Constructor, Learner, build_learner
from perennial.tasks.classification import Classification


def rows(count: int) -> Rows:
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
