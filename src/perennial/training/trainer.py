"""Lightning's Trainer as a fit uses it."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger

from perennial.training.callbacks import DurableCheckpointIO
from perennial.training.optimization import OptimizerCheck
from perennial.training.settings import Training


def build_trainer(
    training: Training,
    *,
    folder: Path,
    logger: Logger | None,
    callbacks: list[pl.Callback],
    validates: bool = True,
) -> pl.Trainer:
    """The trainer of one fit: the callbacks given, and early stopping where it is asked for.

    Before the first step it refuses optimizers that methods cannot protect, see `OptimizerCheck`.
    """
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
            callbacks=[OptimizerCheck(training), *callbacks, *stopping],
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
