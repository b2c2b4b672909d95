"""Lightning's Trainer as a fit uses it, and what it must not be given."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger

from perennial.errors import ConfigError
from perennial.training.callbacks import DurableCheckpointIO
from perennial.training.settings import Training


def check_optimizer(module: pl.LightningModule, trainer: pl.Trainer) -> None:
    """Refuse what would be silently wrong.

    Raises:
        ConfigError: Manual optimization, several optimizers, or a fused optimizer under
            16-mixed, whose gradients Lightning does not unscale before methods see them.
    """
    name = type(module).__name__
    if not module.automatic_optimization:
        raise ConfigError(
            f"{name} optimizes manually; methods need Lightning's automatic optimization.",
            where=name,
            mend="leave automatic_optimization at True",
        )
    optimizers = module.configure_optimizers()
    if isinstance(optimizers, list | tuple) and len(optimizers) > 1:
        first = optimizers[0]
        several = len(first) > 1 if isinstance(first, list) else not isinstance(first, list)
        if several:
            raise ConfigError(
                f"{name} has several optimizers; one is supported.",
                where=f"{name}.configure_optimizers",
                mend="return one optimizer, with parameter groups where rates differ",
            )
    optimizer = optimizers.get("optimizer") if isinstance(optimizers, dict) else optimizers
    fused = any(group.get("fused") for group in getattr(optimizer, "param_groups", []))
    if fused and trainer.precision == "16-mixed":
        raise ConfigError(
            "A fused optimizer under 16-mixed keeps gradients scaled, so methods would be wrong.",
            where="optimizer.fused",
            mend="set optimizer.fused=false, or trainer.precision=bf16-mixed",
        )


def build_trainer(
    training: Training,
    *,
    folder: Path,
    logger: Logger | None,
    callbacks: list[pl.Callback],
    validates: bool = True,
) -> pl.Trainer:
    """The trainer of one fit: the callbacks given, and early stopping where it is asked for."""
    stopping: list[pl.Callback] = []
    if training.patience is not None:
        stopping.append(
            EarlyStopping(
                monitor="validation/combined",
                mode="max",
                patience=training.patience,
                check_on_train_epoch_end=False,
            )
        )
    with quiet_lightning():
        return pl.Trainer(
            accelerator=training.device().type,
            devices=1,
            precision=training.resolved_precision(),  # type: ignore[arg-type]
            max_steps=training.max_steps,
            max_epochs=-1,
            val_check_interval=training.validate_every * training.accumulate,
            check_val_every_n_epoch=None,
            limit_val_batches=1.0 if validates else 0,
            gradient_clip_val=training.gradient_clip,
            accumulate_grad_batches=training.accumulate,
            log_every_n_steps=training.log_every,
            num_sanity_val_steps=0,
            logger=logger if logger is not None else False,
            callbacks=[*callbacks, *stopping],
            plugins=[DurableCheckpointIO()],
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )


class quiet_lightning:  # noqa: N801
    """Silence Lightning's notices about what the user did not choose; they would flood a log."""

    def __enter__(self) -> None:
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=r"lightning\.")
        warnings.filterwarnings("ignore", message=r".*litlogger.*|.*LeafSpec.*")

    def __exit__(self, *_: Any) -> None:
        pass
