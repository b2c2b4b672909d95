"""Callbacks that only watch: the best weights, the point to resume from, progress for a person."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import nn

from perennial import files
from perennial.models.checkpoint import write_safetensors
from perennial.notation import level
from perennial.sweeping.pruning import Limits, Pruned, verdict
from perennial.training.attach import ValidationScores
from perennial.types import Show

RESUME = "resume.json"


class DurableCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, written beside their target and synced before they are renamed."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Save; the SHA-256 is kept by `ResumePoint`."""
        files.write(Path(path), lambda file: torch.save(checkpoint, file))


class KeptWeights(pl.Callback):
    """Keeps in a file the weights with the highest combined validation score, or the last ones.

    Earlier files stay until `prune`, since a resumed run may still need the one its state names.
    """

    def __init__(
        self, *, model: nn.Module, folder: Path, scores: ValidationScores, keep: str = "best"
    ) -> None:
        self.model, self.folder, self.scores = model, folder, scores
        self.keep = keep
        self.score = float("-inf")
        self.file: str | None = None
        self.sha256: str | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights if they are the best so far; the earlier of two equals stays."""
        last = self.scores.curve[-1]
        if self.keep == "best" and last["combined"] > self.score:
            self.score = last["combined"]
            self._write(int(last["step"]))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the last weights, where these are wanted."""
        if self.keep == "last":
            self._write(trainer.global_step)

    def prune(self) -> None:
        """Remove all but the file in use."""
        for path in self.folder.glob("kept-*.safetensors"):
            if path.name != self.file:
                path.unlink()

    def state_dict(self) -> dict[str, Any]:
        """Which file it is."""
        return {"score": self.score, "file": self.file, "sha256": self.sha256}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a file."""
        self.score = state_dict["score"]
        self.file, self.sha256 = state_dict["file"], state_dict["sha256"]

    def _write(self, step: int) -> None:
        self.file = f"kept-{step:09d}.safetensors"
        self.sha256 = write_safetensors(self.folder / self.file, self.model.state_dict())


class ResumePoint(pl.Callback):
    """Saves everything to go on from, every so many seconds, between two optimizer steps.

    A step with a validation behind it is passed over: the checkpoint would lie before the
    validation, and a resumed run would miss it.

    Args:
        folder: The cycle's work folder.
        seconds: Least time between two points; 0 saves at every step that it can.
        validate_every: Optimizer steps between validations.
        kept: Pruned once the point that names its file is on disk.
    """

    def __init__(
        self, *, folder: Path, seconds: float, validate_every: int, kept: KeptWeights
    ) -> None:
        self.folder, self.seconds = folder, seconds
        self.validate_every, self.kept = validate_every, kept
        self._rng: dict[str, Any] | None = None
        self._last = time.monotonic()
        self._step = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the generators last, after everything that setting up may have drawn."""
        self._step = trainer.global_step
        if self._rng is not None:
            set_rng_state(self._rng)
            self._rng = None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save if it is time and a step was just taken."""
        step = trainer.global_step
        taken, self._step = step != self._step, step
        due = time.monotonic() - self._last >= self.seconds
        if taken and due and step % self.validate_every and step < trainer.max_steps:
            self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Write the checkpoint, then the pointer to it, then remove the one before."""
        path = self.folder / f"step-{trainer.global_step:09d}.ckpt"
        trainer.save_checkpoint(path)
        digest = files.hash_file(path)
        files.write_json(self.folder / RESUME, {"file": path.name, "sha256": digest})
        for old in self.folder.glob("step-*.ckpt"):
            if old != path:
                old.unlink()
        self.kept.prune()
        self._last = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """The generators' states."""
        return {"rng": rng_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states for `on_train_start`."""
        self._rng = state_dict["rng"]


class Pruning(pl.Callback):
    """Stops a trial of a sweep that its limits rule out."""

    def __init__(self, *, limits: Limits, scores: ValidationScores) -> None:
        self.limits, self.scores = limits, scores

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare; raises `perennial.sweeping.pruning.Pruned`."""
        if reason := verdict(self.scores.curve, self.limits):
            raise Pruned(reason, curve=self.scores.curve)


class Progress(pl.Callback):
    """Tells a person how far training is, through a function that shows it.

    The last step is told of once it has been validated: never with the scores of an earlier one.
    """

    def __init__(self, *, show: Show, scores: ValidationScores, unit: str = "points") -> None:
        self.show, self.scores, self.unit = show, scores, unit

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Report the step and the last validation scores."""
        if trainer.global_step < trainer.max_steps:
            self._report(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report again: the scores have changed."""
        self._report(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report where training stopped, unless its last step is still to be validated."""
        curve = self.scores.curve
        if not curve or curve[-1]["step"] == trainer.global_step:
            self._report(trainer, last=True)

    def _report(self, trainer: pl.Trainer, *, last: bool = False) -> None:
        step, steps = trainer.global_step, trainer.max_steps
        found = self.scores.curve[-1] if self.scores.curve else {}
        words = [
            f"{name} {level(found[name], self.unit)}"
            for name in ("new", "history")
            if name in found
        ]
        if last and step < steps:
            self.show(step, steps, ", ".join(words), stopped=True)
        else:
            self.show(step, steps, ", ".join(words))


def rng_state() -> dict[str, Any]:
    """States of Python's, NumPy's and torch's generators as plain containers and tensors."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [kind, [int(key) for key in keys], *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what `rng_state` gave."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([item.cpu() for item in state["cuda"]])
