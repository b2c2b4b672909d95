"""How long and in what manner to train."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from perennial.errors import ConfigError

PRECISIONS = (
    "auto",
    "32-true",
    "bf16-mixed",
    "16-mixed",
    "bf16-true",
    "16-true",
    "64-true",
)
KEEP = ("best", "last")


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
