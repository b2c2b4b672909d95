from __future__ import annotations

import functools
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from perennial.errors import ConfigError
from perennial.tasks.classification import Classification
from perennial.training.module import TaskModule
from perennial.training.optimizer import Grouped
from perennial.training.root import root_module

ADAM = functools.partial(torch.optim.Adam, lr=0.25)


class Own(pl.LightningModule):
    def __init__(self, given: Any = None, manual: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        self.given = given
        self.automatic_optimization = not manual

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        loss: torch.Tensor = self.layers(batch).sum()
        return loss


class WithOptimizer(Own):
    def configure_optimizers(self) -> Any:
        made = [torch.optim.SGD(self.parameters(), lr=0.5) for _ in range(3)]
        return self.given(made)


def _root(built: nn.Module, optimizer: Any = None) -> tuple[pl.LightningModule, tuple[str, ...]]:
    return root_module(built, task=Classification(), optimizer=optimizer or Grouped(ADAM))


def _built(module: pl.LightningModule) -> Any:
    return module.configure_optimizers()


def test_a_plain_module_gets_one_around_it() -> None:
    module, notes = _root(nn.Linear(2, 2))
    assert isinstance(module, TaskModule)
    assert not notes


def test_a_lightning_module_without_an_optimizer_gets_the_configured_one() -> None:
    own = Own()
    module, notes = _root(own, Grouped(ADAM, layer_decay=0.5))
    assert module is own
    assert not notes
    assert [group["lr"] for group in _built(module).param_groups] == [0.125, 0.25]


@pytest.mark.parametrize(
    "given",
    [
        lambda made: made[0],
        lambda made: [made[0]],
        lambda made: {"optimizer": made[0]},
        lambda made: ([made[0]], [torch.optim.lr_scheduler.StepLR(made[0], 2)]),
    ],
)
def test_its_own_optimizer_is_honoured_in_every_form(given: Any) -> None:
    module, notes = _root(WithOptimizer(given))
    assert "brings its own optimizer" in notes[0]
    assert "SGD" in str(_built(module))


def test_its_own_optimizer_is_replaced_where_that_is_said() -> None:
    module, notes = _root(WithOptimizer(lambda made: made), Grouped(ADAM, replace=True))
    assert "configure_optimizers is replaced" in notes[0]
    assert isinstance(_built(module), torch.optim.Adam)


@pytest.mark.parametrize(
    ("given", "count"),
    [
        (lambda made: made[:2], 2),
        (lambda made: (made[0], made[1]), 2),
        (lambda made: ([made[0], made[1]], []), 2),
        (lambda made: made, 3),
    ],
)
def test_other_than_one_optimizer_is_refused(given: Any, count: int) -> None:
    module, _ = _root(WithOptimizer(given))
    with pytest.raises(ConfigError, match=f"gives {count} optimizers"):
        _built(module)


@pytest.mark.parametrize("nothing", [None, [], ([], [])])
def test_an_optimizer_that_is_none_is_told_as_lightning_means_it(nothing: Any) -> None:
    module, _ = _root(WithOptimizer(lambda made: nothing))
    with pytest.raises(ConfigError, match="Lightning means that nothing is trained"):
        _built(module)


class LateManual(WithOptimizer):
    def configure_optimizers(self) -> Any:
        self.automatic_optimization = False
        return super().configure_optimizers()


class Sharded(Own):
    def configure_model(self) -> None:
        self.head = nn.Linear(2, 2)


class TakesBatches(Own):
    def training_step(self, dataloader_iter: Any) -> torch.Tensor:  # type: ignore[override]
        return super().training_step(*next(dataloader_iter)[:2])


def test_what_only_the_loop_would_do_is_refused() -> None:
    with pytest.raises(ConfigError, match="optimises by hand"):
        _built(_root(LateManual(lambda made: made[0]))[0])
    with pytest.raises(ConfigError, match="makes layers in configure_model"):
        _root(Sharded())
    with pytest.raises(ConfigError, match="takes dataloader_iter"):
        _root(TakesBatches())


def test_what_cannot_be_protected_is_refused() -> None:
    with pytest.raises(ConfigError, match="optimises by hand"):
        _root(Own(manual=True))
    with pytest.raises(ConfigError, match="without a training_step"):
        _root(pl.LightningModule())
    for settings in ({"layer_decay": 0.5}, {"groups": [{"pattern": "*", "lr": 1.0}]}):
        with pytest.raises(ConfigError, match="would be ignored"):
            _root(WithOptimizer(lambda made: made[0]), Grouped(ADAM, **settings))
