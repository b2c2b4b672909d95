"""The LightningModule at the root: the user's own, unchanged, or one around a plain module."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn
from torch.optim import Optimizer

from perennial.errors import ConfigError
from perennial.tasks.base import Task
from perennial.training.module import TaskModule
from perennial.training.optimization import refuse_manual
from perennial.training.optimizer import Grouped, OptimizerFactory, build_optimizer, learning_rate


def root_module(
    built: nn.Module, *, task: Task, optimizer: OptimizerFactory
) -> tuple[pl.LightningModule, tuple[str, ...]]:
    """What Lightning trains, and lines for the user about the optimizer.

    A LightningModule stays as it is: its ``training_step`` is the loss and its hooks run. Its own
    ``configure_optimizers`` is honoured, or replaced where the configuration says so.

    Args:
        built: The model of record.
        task: For a plain module.
        optimizer: The configured one.

    Raises:
        ConfigError: The module optimises by hand, has no ``training_step`` or one that takes the
            batches itself, makes layers in ``configure_model``, or settings under optimizer would
            be ignored.
    """
    if not isinstance(built, pl.LightningModule):
        return TaskModule(model=built, task=task, optimizer=optimizer), ()
    name = type(built).__name__
    refuse_manual(built)
    if not is_overridden("training_step", built):
        raise ConfigError(
            f"{name} is a LightningModule without a training_step, so that there is no loss.",
            where="model",
            mend="write training_step, or name the plain torch.nn.Module inside it",
        )
    _refuse_late(built)
    if getattr(task, "pack", None) is not None:
        raise ConfigError(
            f"{name} brings its own training_step, which packs documents or does not.",
            where="task.pack",
            mend="set task.pack=null",
        )
    if not is_overridden("configure_optimizers", built):
        _give(built, optimizer)
        return built, ()
    if isinstance(optimizer, Grouped) and optimizer.replace:
        _give(built, optimizer)
        line = f"{name}: its configure_optimizers is replaced by the settings under optimizer"
        return built, (line,)
    if isinstance(optimizer, Grouped) and optimizer.by_parameter:
        raise ConfigError(
            f"{name} brings its own optimizer, so that rates by parameter would be ignored.",
            where="optimizer.layer_decay, optimizer.groups",
            mend="set optimizer.replace=true, or give the rates in its configure_optimizers",
        )
    built.configure_optimizers = _single(built)  # type: ignore[method-assign]
    line = f"{name} brings its own optimizer; the settings under optimizer are not used"
    return built, (f"{line} (optimizer.replace=true would use them)",)


def _give(module: pl.LightningModule, factory: OptimizerFactory) -> None:
    module.lr = learning_rate(factory)  # type: ignore[assignment]

    def configure_optimizers() -> Optimizer:
        return build_optimizer(factory, module, module.lr)  # type: ignore[arg-type]

    module.configure_optimizers = configure_optimizers  # type: ignore[method-assign]


def _single(module: pl.LightningModule) -> Callable[[], Any]:
    """The module's own ``configure_optimizers``, refused where it gives other than one."""
    own, name = module.configure_optimizers, type(module).__name__

    @functools.wraps(own)
    def configure_optimizers() -> Any:
        given = own()
        refuse_manual(module)
        count = _count(given)
        if count != 1:
            raise ConfigError(
                f"{name} gives {count} optimizers, and methods protect the steps of one."
                if count
                else f"{name}'s configure_optimizers returns None or an empty list, by which "
                "Lightning means that nothing is trained.",
                where="model (configure_optimizers)",
                mend="give one optimizer with several parameter groups, or set "
                "optimizer.replace=true",
            )
        return given

    return configure_optimizers


def _refuse_late(module: pl.LightningModule) -> None:
    """Refuse what only Lightning's own loop would do, or undo.

    Raises:
        ConfigError: Layers are made by a hook, or training_step takes the batches itself.
    """
    name = type(module).__name__
    if is_overridden("configure_model", module):
        raise ConfigError(
            f"{name} makes layers in configure_model, which is for models that are sharded over "
            "devices; a checkpoint, a version and perennial.load build it by its constructor "
            "alone.",
            where="model (configure_model)",
            mend="make the layers in __init__",
        )
    if "dataloader_iter" in inspect.signature(module.training_step).parameters:
        raise ConfigError(
            f"{name}.training_step takes dataloader_iter, so that nobody else sees the batch.",
            where="model (training_step)",
            mend="write training_step(self, batch, batch_idx)",
        )


def _count(given: Any) -> int:
    """Optimizers in any of the forms that Lightning takes."""
    if given is None:
        return 0
    if isinstance(given, list | tuple):
        # ([optimizers], [schedulers]) beside a plain list of them
        pair = len(given) == 2 and all(isinstance(one, list | tuple) for one in given)
        return len(given[0]) if pair else len(given)
    return 1
