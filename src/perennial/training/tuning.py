"""Learning rate and batch size by Lightning's tuner; a resumed fit reads them back."""

from __future__ import annotations

import json
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.tuner.tuning import Tuner

from perennial import files
from perennial.data.datamodule import CycleData
from perennial.errors import ConfigError, TrainingError
from perennial.training.settings import Training
from perennial.training.trainer import build_trainer


def tune(
    module: pl.LightningModule, data: CycleData, training: Training, folder: Path
) -> dict[str, float]:
    """Lightning's tuner, before any method is attached; the data start anew afterwards."""
    found: dict[str, float] = {}
    if not (training.find_lr or training.find_batch_size):
        return found
    if training.find_lr and not hasattr(module, "lr") and not hasattr(module, "learning_rate"):
        raise ConfigError(
            f"{type(module).__name__} has no attribute lr or learning_rate to tune.",
            where="trainer.find_lr",
            mend="set self.lr in the module and use it in configure_optimizers",
        )
    folder.mkdir(parents=True, exist_ok=True)
    if training.find_batch_size:
        tuner = Tuner(build_trainer(training, folder=folder, logger=None, callbacks=[]))
        # on a CPU nothing runs out of memory: three doublings at most
        size = tuner.scale_batch_size(
            module, datamodule=data, init_val=data.batch_size, max_trials=3, steps_per_trial=2
        )
        data.batch_size = int(size or training.batch_size)
        found["batch_size"] = data.batch_size
    if training.find_lr:
        tuner = Tuner(build_trainer(training, folder=folder, logger=None, callbacks=[]))
        # below 1e-5 the curve is flat, and its steepest point would be noise
        finder = tuner.lr_find(module, datamodule=data, min_lr=1e-5, max_lr=1.0, num_training=100)
        rate = finder.suggestion() if finder else None
        if rate is None:
            raise TrainingError(
                "The tuner found no learning rate: the loss never fell.",
                where="trainer.find_lr",
                mend="set optimizer.lr yourself",
            )
        found["lr"] = float(rate)
    data.train_loader = data.build_train_loader()
    files.write_json(folder / "tuned.json", found)
    return found


def read_tuned(folder: Path, module: pl.LightningModule, data: CycleData) -> dict[str, float]:
    """Settings that were found before the interruption, put in place again."""
    found: dict[str, float] = json.loads((folder / "tuned.json").read_text())
    if "batch_size" in found:
        data.batch_size = int(found["batch_size"])
    if "lr" in found:
        name = "lr" if hasattr(module, "lr") else "learning_rate"
        setattr(module, name, found["lr"])
    return found
