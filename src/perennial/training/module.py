"""A plain ``nn.Module`` and a task, as a LightningModule."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn
from torch.optim import Optimizer

from perennial.tasks.base import Task
from perennial.training.optimizer import OptimizerFactory, build_optimizer, learning_rate


class TaskModule(pl.LightningModule):
    """Trains a module on a task: one LightningModule among others, with no privileges.

    Args:
        model: The model of record; its parameter names are the version's.
        task: Gives loss and outputs.
        optimizer: Called with the trainable parameters (and ``lr`` where `lr` is set).
    """

    def __init__(self, *, model: nn.Module, task: Task, optimizer: OptimizerFactory) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.optimizer_factory = optimizer
        self.lr: float | None = learning_rate(optimizer)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own forward."""
        return self.model(*args, **kwargs)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Mean of the per-example losses over the batch, new and replayed rows alike.

        The logits go with it, so that a method that needs them runs no forward of its own.
        """
        outputs = self.task.outputs(self.model, batch)
        return {"loss": self.task.per_example_loss(outputs, batch).mean(), "logits": outputs}

    def configure_optimizers(self) -> Optimizer:
        """The configured optimizer over the trainable parameters."""
        return build_optimizer(self.optimizer_factory, self.model, self.lr)
