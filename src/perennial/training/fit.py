"""One fit: a module, its data and its methods in, weights out; interrupted, it goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn

from perennial import files
from perennial.data.datamodule import CycleData
from perennial.errors import ConfigError, TrainingError
from perennial.methods.base import Method, arrange
from perennial.models.checkpoint import read_safetensors
from perennial.models.conversion import not_finite
from perennial.stopwatch import Stopwatch
from perennial.sweeping.pruning import Limits
from perennial.tasks.base import Task
from perennial.training.attach import MethodCallback, ValidationScores, attached
from perennial.training.callbacks import (
    RESUME,
    KeptWeights,
    Progress,
    Pruning,
    ResumePoint,
)
from perennial.training.optimization import refuse_manual, told_plainly
from perennial.training.ranks import SameConfiguration, refuse_a_launcher
from perennial.training.settings import Training
from perennial.training.trainer import build_trainer
from perennial.training.tuning import read_tuned, tune
from perennial.types import Show, show_nothing

FINISHED = "fit.json"
STATES = "methods.ckpt"
# steps on a GPU of which one is timed, by waiting for it
READ_EVERY = 50


@dataclass
class FitResult:
    """What a fit leaves.

    Attributes:
        kept: File of the weights in the work folder.
        sha256: Its hash.
        states_sha256: Hash of the file with the methods' states at the end, of which a cycle that
            was interrupted between training and its record still has to make what they leave.
        curve: Validation scores by step: ``step``, ``new``, ``history`` (where there is any),
            ``combined``; empty without validation rows.
        optimizer_steps: Steps taken in all, over interruptions.
        train_rows: Rows trained on, replayed ones included, with repetition.
        replayed_rows: Of these, replayed.
        device_seconds: Time in fit on the device, this process only.
        tuned: Settings that the tuner found.
        profile: Share of each phase in the time of the training steps, this process only; see
            `perennial.stopwatch`.
        padding: Share of the texts' positions that only filled up batches; None without texts.
    """

    kept: str
    sha256: str
    states_sha256: str
    curve: list[dict[str, float]]
    optimizer_steps: int
    train_rows: int
    replayed_rows: int
    device_seconds: float
    tuned: dict[str, float] = field(default_factory=dict)
    profile: dict[str, float] = field(default_factory=dict)
    padding: float | None = None

    @property
    def kept_point(self) -> dict[str, float] | None:
        """The point of the curve that the kept weights stand at; None where none was validated."""
        step = int(self.kept.removesuffix(".safetensors").rpartition("-")[2])
        return next((point for point in self.curve if point["step"] == step), None)


def fit(
    *,
    module: pl.LightningModule,
    model: nn.Module,
    task: Task,
    data: CycleData,
    methods: Sequence[Method],
    training: Training,
    folder: Path,
    configuration: Mapping[str, Any] | None = None,
    prepare: Callable[[], None] = lambda: None,
    start_scores: Mapping[str, float] | None = None,
    memory_gradients: Callable[[int, int], Mapping[str, Tensor]] | None = None,
    logger: Logger | None = None,
    show: Show = show_nothing,
    limits: Limits | None = None,
) -> FitResult:
    """Train, keep the best weights or the last, and load them into the model.

    Args:
        module: The LightningModule at the root.
        model: The model of record: ``module`` itself or a part of it.
        task: Scores validation rows.
        data: The loaders.
        methods: Attached from outside.
        training: See `Training`.
        folder: The cycle's work folder; a fit that was interrupted there goes on.
        configuration: What every rank must have been given alike, resolved and without secrets;
            None compares ``training`` alone.
        prepare: Called before a fit that starts from the beginning, not before one that resumes.
        start_scores: Validation scores before the first step, the start of the curve.
        memory_gradients: Step and number of rows to gradients on remembered rows, where there are
            any.
        logger: Lightning's, or None.
        show: Shows how far training is.
        limits: Of a trial of a sweep: validation scores below which it is pruned.

    Returns:
        See `FitResult`.

    Raises:
        ConfigError: Something needs validation rows, and there are none; or the module's optimizer,
            schedule or loss is none that can be trained with, see `OptimizerCheck`; or ranks were
            given different settings, or a launcher started others than train together here.
        TrainingError: Training diverged, or a stored file is damaged.
        Pruned: The limits rule the trial out.
    """
    methods = arrange(methods)
    refuse_manual(module)
    _require_validation(training, data)
    if done := _finished(folder):
        _load(model, folder / done.kept, done.sha256)
        _restore(methods, folder / STATES, done.states_sha256, device=training.device())
        return done
    checkpoint = _resume_from(folder)
    tuned: dict[str, float] = {}
    if checkpoint is None:
        with told_plainly(module):
            tuned = tune(module, data, training, folder)
        prepare()
    elif training.find_lr or training.find_batch_size:
        tuned = read_tuned(folder, module, data)
    loader = data.train_dataloader()
    loader.watch = _stopwatch(training)
    scores = ValidationScores(loader=data.validation_loader)
    if start_scores:
        scores.curve.append({"step": 0, **start_scores})
    callback = MethodCallback(
        methods=methods,
        model=model,
        loader=loader,
        log_every=training.log_every,
        logits_of=task.outputs,
        memory_gradients=memory_gradients,
    )
    kept = KeptWeights(model=model, folder=folder, scores=scores, keep=training.keep)
    point = ResumePoint(
        folder=folder,
        seconds=training.resume_seconds,
        validate_every=training.validate_every,
        kept=kept,
    )
    trainer = build_trainer(
        training,
        folder=folder,
        logger=logger,
        callbacks=[
            SameConfiguration(asdict(training) if configuration is None else configuration),
            callback,
            scores,
            kept,
            point,
            Progress(show=show, scores=scores, unit=task.score_unit),
            *([Pruning(limits=limits, scores=scores)] if limits else []),
        ],
        validates=len(data.validation_loader) > 0,
    )
    refuse_a_launcher(ranks=trainer.world_size)
    device = trainer.strategy.root_device
    data.settle(device, rank=trainer.global_rank, ranks=trainer.world_size)
    started = time.monotonic()
    augmented = partial(data.augmented, rank=trainer.global_rank)
    with attached(
        module, task=task, methods=callback, scores=scores, augmented=augmented, logger=logger
    ):
        try:
            with told_plainly(module):
                trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except SystemExit as stopped:
            # Lightning turns Ctrl-C and SIGTERM into an exit of its own; the cycle says more
            raise KeyboardInterrupt from stopped
        if scores.curve and scores.curve[-1]["step"] != trainer.global_step:
            trainer.validate(module, datamodule=data, verbose=False)
    if kept.file is None or kept.sha256 is None:
        raise TrainingError(
            "No validation score was a number: training diverged.",
            where="training",
            mend="lower optimizer.lr, or set trainer.gradient_clip",
        )
    result = FitResult(
        kept=kept.file,
        sha256=kept.sha256,
        states_sha256=files.write(
            folder / STATES, lambda file: torch.save(callback.state_dict(), file)
        ),
        curve=scores.curve,
        optimizer_steps=trainer.global_step,
        train_rows=trainer.global_step * training.accumulate * data.batch_size,
        replayed_rows=loader.replayed,
        device_seconds=time.monotonic() - started,
        tuned=tuned,
        profile=loader.watch.shares(),
        padding=data.pools.padding(),
    )
    kept.prune()
    files.write_json(folder / FINISHED, asdict(result))
    _load(model, folder / result.kept, result.sha256)
    return result


def _stopwatch(training: Training) -> Stopwatch:
    """One for the device: what runs beside the CPU is only waited for in some steps."""
    if training.device().type == "cpu":
        return Stopwatch()
    return Stopwatch(wait=torch.cuda.synchronize, every=READ_EVERY)


def _require_validation(training: Training, data: CycleData) -> None:
    if len(data.validation_loader) or (training.keep == "last" and training.patience is None):
        return
    raise ConfigError(
        "There are no validation rows to choose the weights by.",
        where="data.validation_fraction",
        mend="raise it, or set trainer.keep=last and trainer.patience=null",
    )


def _finished(folder: Path) -> FitResult | None:
    path = folder / FINISHED
    return FitResult(**json.loads(path.read_text())) if path.exists() else None


def _resume_from(folder: Path) -> Path | None:
    pointer = folder / RESUME
    if not pointer.exists():
        return None
    stored = json.loads(pointer.read_text())
    path = folder / str(stored["file"])
    _verify(path, stored["sha256"])
    return path


def _load(model: nn.Module, path: Path, sha256: str) -> None:
    _verify(path, sha256)
    weights: Mapping[str, Tensor] = read_safetensors(path)
    if wrong := not_finite(weights):
        raise TrainingError(
            f"The trained weights are not finite: {', '.join(wrong[:3])}.",
            where="training",
            mend="lower optimizer.lr, or set trainer.gradient_clip",
        )
    model.load_state_dict(dict(weights))


def _restore(methods: Sequence[Method], path: Path, sha256: str, *, device: torch.device) -> None:
    _verify(path, sha256)
    states = torch.load(path, map_location=device, weights_only=True)
    for method in methods:
        method.load_state_dict(states[method.name])


def _verify(path: Path, sha256: str) -> None:
    if not path.exists() or files.hash_file(path) != sha256:
        raise TrainingError(
            "A file of the interrupted cycle is missing or damaged.",
            where=str(path),
            mend=f"remove {path.parent} to train this cycle from its beginning",
        )
