"""What a module gives to methods, and that finding it out leaves no trace."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perennial.methods.der import DER
from perennial.methods.replay import Replay
from perennial.steps.probing import capabilities
from perennial.tasks.classification import Classification
from support.learners import learner, net, rows


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
        missing = capabilities(learner(build), rows(40), [DER()])
        assert words in missing["stored_logits"]
        assert "logits" not in missing
    for good in (Changing, net):
        assert set(capabilities(learner(good), rows(40), [DER()])) == {"features"}
    quiet = learner(lambda: Noisy(0.0))
    state = {name: value.clone() for name, value in quiet.model.state_dict().items()}
    assert "stored_logits" not in capabilities(quiet, rows(40), [DER()])
    assert all(torch.equal(value, state[n]) for n, value in quiet.model.state_dict().items())
    assert all(part.training for part in quiet.model.modules())
    assert (
        "at random in training" in capabilities(learner(Noisy), rows(40), [DER()])["stored_logits"]
    )
    tokens = learner(net)
    tokens.task = Tokens()
    missing = capabilities(tokens, rows(40), [DER()])
    assert "(16, 7, 3)" in missing["stored_logits"]
    assert "logits" not in missing


class Augmenting(nn.Module):
    """Augments now and then, by a generator of its own choice."""

    def __init__(self, augment: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.augment, self.net = augment, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.augment(x) if self.training else x)


def one_row_in_twenty(x: Tensor) -> Tensor:
    return torch.where(torch.rand(len(x), 1) < 0.05, -x, x)


def a_quarter_of_batches(x: Tensor) -> Tensor:
    return -x if torch.rand(()) < 0.25 else x


def by_python(x: Tensor) -> Tensor:
    return -x if random.random() < 0.25 else x


def by_numpy(x: Tensor) -> Tensor:
    noise = np.random.normal(size=tuple(x.shape)).astype(np.float32)
    return x + 0.01 * torch.from_numpy(noise)


@pytest.mark.parametrize("augment", [one_row_in_twenty, a_quarter_of_batches, by_python, by_numpy])
def test_rare_augmentation_by_any_generator_is_found(augment: Callable[[Tensor], Tensor]) -> None:
    made = learner(lambda: Augmenting(augment))
    assert "at random in training" in capabilities(made, rows(40), [DER()])["stored_logits"]


class Counting(nn.Module):
    """Counts its calls in either mode, keeps the last batch, and clips a weight on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last", None)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x.detach()
        if self.training:
            self.net.weight.data.clamp_(-0.1, 0.1)
        return self.net(x)


def normalised() -> nn.Module:
    return nn.Sequential(
        torch.nn.utils.parametrizations.spectral_norm(nn.Linear(4, 6)),
        torch.nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)),
        torch.nn.utils.spectral_norm(nn.Linear(6, 6)),
        nn.BatchNorm1d(6),
        nn.Linear(6, 3),
    )


@pytest.mark.parametrize("build", [Counting, normalised])
@pytest.mark.parametrize("method", [DER, Replay])
def test_probing_leaves_model_and_generators_bit_by_bit(
    build: Callable[[], nn.Module], method: Callable[[], Any]
) -> None:
    made = learner(build)
    made.model[0].eval() if isinstance(made.model, nn.Sequential) else None
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    modes = [part.training for part in made.module.modules()]
    drawn = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    assert set(capabilities(made, rows(40), [method()])) == {"features"}
    after = made.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert modes == [part.training for part in made.module.modules()]
    assert drawn[0] == random.getstate()
    assert drawn[1] == np.random.get_state()[1].tolist()
    assert torch.equal(drawn[2], torch.get_rng_state())


def test_a_module_is_not_run_in_training_mode_for_nothing() -> None:
    seen: list[bool] = []
    made = learner(net)
    made.model.register_forward_pre_hook(lambda part, _: seen.append(part.training))
    capabilities(made, rows(40), [Replay()])
    assert seen == [False]
    capabilities(made, rows(40), [DER()])
    assert seen == [False] * 2 + [True] * 32
