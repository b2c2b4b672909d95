"""One fit: a module, its data and its methods in, weights out; interrupted, it goes on."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger
from lightning.pytorch.tuner.tuning import Tuner
from torch import Tensor, nn

from perennial import files
from perennial.data.datamodule import CycleData
from perennial.errors import ConfigError, TrainingError
from perennial.methods.base import Method, arrange
from perennial.models.checkpoint import not_finite, read_safetensors
from perennial.tasks.base import Task
from perennial.training.attach import MethodCallback, ValidationScores, attached
from perennial.training.callbacks import (
    RESUME,
    DurableCheckpointIO,
    KeptWeights,
    Progress,
    ResumePoint,
)
from perennial.types import Show, show_nothing

FINISHED = "fit.json"
PRECISIONS = (
    "auto",
    "32-true",
    "bf16-mixed",
    "16-mixed",
    "bf16-true",
    "16-true",
    "64-true",
)
STATES = "methods.ckpt"
KEEP = ("best", "last")


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


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long and in what manner to train.

    Args:
        max_steps: Optimizer steps, the same for every method.
        batch_size: Rows of a batch, new and replayed together.
        validate_every: Optimizer steps between validations, at least 2.
        patience: Validations without a better combined score before stopping; None never stops.
        precision: ``auto`` (bf16-mixed on CUDA where supported, else 32-true) or Lightning's name.
        gradient_clip: Largest gradient norm; None does not clip.
        accumulate: Batches per optimizer step.
        accelerator: ``auto``, ``cpu`` or ``cuda``.
        find_lr: Let Lightning's tuner choose the learning rate first.
        find_batch_size: Let Lightning's tuner choose the batch size first.
        resume_seconds: Least time between two points to resume from, in seconds.
        log_every: Optimizer steps between logged values.
        keep: ``best`` keeps the weights with the best combined validation score; ``last`` those
            after the last step, and needs no validation rows.
    """

    max_steps: int = 1000
    batch_size: int = 64
    validate_every: int = 50
    patience: int | None = None
    precision: str = "auto"
    gradient_clip: float | None = 1.0
    accumulate: int = 1
    accelerator: str = "auto"
    find_lr: bool = False
    find_batch_size: bool = False
    resume_seconds: float = 30.0
    log_every: int = 50
    keep: str = "best"

    def __post_init__(self) -> None:
        least: dict[str, float] = {
            "max_steps": 1,
            "batch_size": 1,
            "validate_every": 2,
            "accumulate": 1,
            "log_every": 1,
            "resume_seconds": 0,
            "patience": 1,
            "gradient_clip": 1e-12,
        }
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and not value >= bound:
                raise ConfigError(
                    f"trainer.{name} is {value}; it must be at least {bound:g}.",
                    where=f"trainer.{name}",
                    mend=f"give a number from {bound:g} upward",
                )
        if self.keep not in KEEP:
            raise ConfigError(
                f"trainer.keep is {self.keep!r}.",
                where="trainer.keep",
                mend=f"use {' or '.join(KEEP)}",
            )

        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"trainer.precision is {self.precision!r}.",
                where="trainer.precision",
                mend=f"use {', '.join(PRECISIONS)}",
            )

    def device(self) -> torch.device:
        """The device to train on.

        Raises:
            ConfigError: CUDA was asked for and there is none.
        """
        if self.accelerator not in ("auto", "cpu", "cuda", "gpu"):
            raise ConfigError(
                f"trainer.accelerator is {self.accelerator!r}.",
                where="trainer.accelerator",
                mend="use auto, cpu or cuda",
            )
        available = torch.cuda.is_available()
        if self.accelerator in ("cuda", "gpu") and not available:
            raise ConfigError(
                "There is no CUDA device here.",
                where="trainer.accelerator",
                mend="use trainer.accelerator=auto, or check the driver with nvidia-smi",
            )
        return torch.device("cuda" if available and self.accelerator != "cpu" else "cpu")

    def resolved_precision(self) -> str:
        """Lightning's name of the precision in use."""
        if self.precision != "auto":
            return self.precision
        on_cuda = self.device().type == "cuda" and torch.cuda.is_bf16_supported()
        return "bf16-mixed" if on_cuda else "32-true"


def fit(
    *,
    module: pl.LightningModule,
    model: nn.Module,
    task: Task,
    data: CycleData,
    methods: Sequence[Method],
    training: Training,
    folder: Path,
    prepare: Callable[[], None] = lambda: None,
    start_scores: Mapping[str, float] | None = None,
    memory_gradients: Callable[[int, int], Mapping[str, Tensor]] | None = None,
    logger: Logger | None = None,
    show: Show = show_nothing,
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
        prepare: Called before a fit that starts from the beginning, not before one that resumes.
        start_scores: Validation scores before the first step, the start of the curve.
        memory_gradients: Step and number of rows to gradients on remembered rows, where there are
            any.
        logger: Lightning's, or None.
        show: Shows how far training is.

    Returns:
        See `FitResult`.

    Raises:
        ConfigError: Something needs validation rows, and there are none.
        TrainingError: Training diverged, or a stored file is damaged.
    """
    methods = arrange(methods)
    _require_validation(training, data)
    if done := _finished(folder):
        _load(model, folder / done.kept, done.sha256)
        _restore(methods, folder / STATES, done.states_sha256, device=training.device())
        return done
    checkpoint = _resume_from(folder)
    tuned: dict[str, float] = {}
    if checkpoint is None:
        tuned = _tune(module, data, training, folder)
        prepare()
    elif training.find_lr or training.find_batch_size:
        tuned = _read_tuned(folder, module, data)
    loader = data.train_dataloader()
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
    trainer = _trainer(
        training,
        folder=folder,
        logger=logger,
        callbacks=[callback, scores, kept, point, Progress(show=show, scores=scores)],
        validates=len(data.validation_loader) > 0,
    )
    check_optimizer(module, trainer)
    started = time.monotonic()
    with attached(module, task=task, methods=callback, scores=scores):
        try:
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
    )
    kept.prune()
    files.write_json(folder / FINISHED, asdict(result))
    _load(model, folder / result.kept, result.sha256)
    return result


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


def _require_validation(training: Training, data: CycleData) -> None:
    if len(data.validation_loader) or (training.keep == "last" and training.patience is None):
        return
    raise ConfigError(
        "There are no validation rows to choose the weights by.",
        where="data.validation_fraction",
        mend="raise it, or set trainer.keep=last and trainer.patience=null",
    )


def _trainer(
    training: Training,
    *,
    folder: Path,
    logger: Logger | None,
    callbacks: list[pl.Callback],
    validates: bool = True,
) -> pl.Trainer:
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


def _tune(
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
        tuner = Tuner(_trainer(training, folder=folder, logger=None, callbacks=[]))
        # on a CPU nothing runs out of memory: three doublings at most
        size = tuner.scale_batch_size(
            module, datamodule=data, init_val=data.batch_size, max_trials=3, steps_per_trial=2
        )
        data.batch_size = int(size or training.batch_size)
        found["batch_size"] = data.batch_size
    if training.find_lr:
        tuner = Tuner(_trainer(training, folder=folder, logger=None, callbacks=[]))
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


def _read_tuned(folder: Path, module: pl.LightningModule, data: CycleData) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "tuned.json").read_text())
    if "batch_size" in found:
        data.batch_size = int(found["batch_size"])
    if "lr" in found:
        name = "lr" if hasattr(module, "lr") else "learning_rate"
        setattr(module, name, found["lr"])
    return found


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
