"""What a module's own optimizer, schedule and loss must be for methods to protect it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from perennial.errors import ConfigError, first_line
from perennial.training.settings import Training


class OptimizerCheck(pl.Callback):
    """Refuses what would be silently wrong, once Lightning has set up the optimizer.

    Not before: a ``configure_optimizers`` may use the trainer, which it has only then.

    Args:
        training: How a fit trains.
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        self._built: frozenset[str] = frozenset()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Note what there is before the module's own ``setup``."""
        self._built = frozenset(pl_module.state_dict())

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse.

        Raises:
            ConfigError: Manual optimization, an optimizer that is fused under 16-mixed, whose
                gradients Lightning does not unscale before methods see them, a schedule that would
                read a validation before there is any, or layers that are made in ``setup``.
        """
        name = type(pl_module).__name__
        self._refuse_new(pl_module)
        refuse_manual(pl_module)
        fused = any(group.get("fused") for group in trainer.optimizers[0].param_groups)
        if fused and trainer.precision == "16-mixed":
            raise ConfigError(
                "A fused optimizer under 16-mixed keeps gradients scaled, so methods would be "
                "wrong.",
                where="optimizer.fused",
                mend="set optimizer.fused=false, or trainer.precision=bf16-mixed",
            )
        self._refuse_early(trainer, name)

    def _refuse_early(self, trainer: pl.Trainer, name: str) -> None:
        """A schedule on a plateau, by epochs, where an epoch ends before the first validation."""
        own = self.training.validate_every
        for schedule in trainer.lr_scheduler_configs:
            batches = trainer.num_training_batches * schedule.frequency
            by_epoch = schedule.reduce_on_plateau and schedule.interval == "epoch"
            if by_epoch and batches < own * self.training.accumulate:
                steps = max(int(batches) // self.training.accumulate, 2)
                raise ConfigError(
                    f"{name} lowers its rate by {schedule.monitor!r} every {steps} steps, at the "
                    f"end of an epoch, and validation comes every {own}.",
                    where=f"{name}.configure_optimizers, trainer.validate_every",
                    mend=f"set trainer.validate_every={steps}, or give the schedule "
                    f"interval='step' and frequency={own}",
                )

    def _refuse_new(self, pl_module: pl.LightningModule) -> None:
        """Layers that a hook made: what stores and serves the model does not call it."""
        if new := [name for name in pl_module.state_dict() if name not in self._built]:
            raise ConfigError(
                f"{type(pl_module).__name__} makes {new[0]!r} in setup; a checkpoint, a version "
                "and perennial.load build it by its constructor alone.",
                where="model (setup)",
                mend="make the layers in __init__",
            )


def refuse_manual(module: pl.LightningModule) -> None:
    """Refuse a module that optimizes by hand.

    Raises:
        ConfigError: It does.
    """
    if not module.automatic_optimization:
        raise ConfigError(
            f"{type(module).__name__} optimises by hand (automatic_optimization is False), so that "
            "nothing could be added to its gradients or counted as its step.",
            where="model",
            mend="return the loss from training_step and leave backward and step to Lightning",
        )


def require_loss(result: Any, *, name: str) -> None:
    """Refuse what a training step returned, if nothing can be learned from it.

    Args:
        result: A tensor, a mapping with one as ``loss``, or None, which skips the batch.
        name: The module's.

    Raises:
        ConfigError: It is not one number, or no gradient comes of it.
    """
    loss = result.get("loss") if isinstance(result, Mapping) else result
    if result is None or (isinstance(loss, Tensor) and loss.numel() == 1 and loss.requires_grad):
        return
    if not isinstance(loss, Tensor):
        told = f"a {type(loss).__name__}" if loss is not None else "no loss"
    elif loss.numel() != 1:
        told = f"a loss of shape {tuple(loss.shape)}"
    else:
        told = "a loss without a gradient"
    raise ConfigError(
        f"{name}.training_step returns {told}.",
        where=f"{name}.training_step",
        mend="return one number that depends on the parameters, as loss.mean() does without "
        "detach(), alone or as 'loss' of a dict",
    )


@contextmanager
def told_plainly(module: pl.LightningModule) -> Iterator[None]:
    """Say what Lightning refuses in a module as a setting that is wrong.

    Raises:
        ConfigError: In Lightning's words.
    """
    try:
        yield
    except MisconfigurationException as error:
        raise ConfigError(
            f"Lightning refuses {type(module).__name__}: {first_line(error)}",
            where=f"model ({type(module).__name__})",
            mend="change the hook, callback or schedule that this speaks of; values that one of "
            "them monitors have to be logged by training_step or validation_step before it reads "
            "them, and a callback for a logger needs tracking=wandb",
        ) from error
