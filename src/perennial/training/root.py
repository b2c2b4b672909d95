"""The LightningModule at the root: the user's own, unchanged, or one around a plain module."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn
from torch.optim import Optimizer

from perennial.errors import ConfigError
from perennial.tasks.base import Task
from perennial.training.module import TaskModule
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
        ConfigError: The module optimises by hand or has no ``training_step``, or settings under
            optimizer would be ignored.
    """
    if not isinstance(built, pl.LightningModule):
        return TaskModule(model=built, task=task, optimizer=optimizer), ()
    name = type(built).__name__
    if not built.automatic_optimization:
        raise ConfigError(
            f"{name} optimises by hand (automatic_optimization is False), so that nothing could be "
            "added to its gradients or counted as its step.",
            where="model",
            mend="return the loss from training_step and leave backward and step to Lightning",
        )
    if not is_overridden("training_step", built):
        raise ConfigError(
            f"{name} is a LightningModule without a training_step, so that there is no loss.",
            where="model",
            mend="write training_step, or name the plain torch.nn.Module inside it",
        )
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
    built.configure_optimizers = _single(built.configure_optimizers, name)  # type: ignore[method-assign]
    line = f"{name} brings its own optimizer; the settings under optimizer are not used"
    return built, (f"{line} (optimizer.replace=true would use them)",)


def _give(module: pl.LightningModule, factory: OptimizerFactory) -> None:
    module.lr = learning_rate(factory)  # type: ignore[assignment]

    def configure_optimizers() -> Optimizer:
        return build_optimizer(factory, module, module.lr)  # type: ignore[arg-type]

    module.configure_optimizers = configure_optimizers  # type: ignore[method-assign]


def _single(own: Callable[[], Any], name: str) -> Callable[[], Any]:
    """The module's own ``configure_optimizers``, refused where it gives other than one."""

    @functools.wraps(own)
    def configure_optimizers() -> Any:
        given = own()
        count = _count(given)
        if count != 1:
            raise ConfigError(
                f"{name} gives {count} optimizers, and methods protect the steps of one.",
                where="model (configure_optimizers)",
                mend="give one optimizer with several parameter groups, or set "
                "optimizer.replace=true",
            )
        return given

    return configure_optimizers


def _count(given: Any) -> int:
    """Optimizers in any of the forms that Lightning takes."""
    if given is None:
        return 0
    if isinstance(given, list | tuple):
        # ([optimizers], [schedulers]) beside a plain list of them
        pair = len(given) == 2 and all(isinstance(one, list | tuple) for one in given)
        return len(given[0]) if pair else len(given)
    return 1
