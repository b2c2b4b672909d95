"""A model over rows: per-example predictions, scores and losses.

Shapes: B rows of a batch, N rows of a set, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from perennial.errors import EvaluationError
from perennial.models.undisturbed import undisturbed
from perennial.tasks.base import Task
from perennial.types import Batch, Predictions


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; see `perennial.models.undisturbed` for what comes back."""
    with undisturbed(model), torch.no_grad():
        model.eval()
        yield


def predict(
    model: nn.Module, task: Task, batches: Iterable[Batch], *, classes: int | None = None
) -> Predictions:
    """Score every row.

    Args:
        model: The model of record.
        task: Turns outputs into predictions, scores and losses.
        batches: Rows on the model's device, in order.
        classes: Width of the probabilities where rows may be of classes that the model does not
            know: it is wrong about those, at a finite loss. None takes the model's own.

    Returns:
        Predictions over all N rows, on the CPU.

    Raises:
        EvaluationError: There are no rows, or a score or loss is not finite.
    """
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor | None]] = []
    with eval_mode(model):
        for batch in batches:
            outputs = task.outputs(model, batch.data)
            if classes is not None:
                outputs = task.widened(outputs, classes)
            parts.append(
                (
                    task.predictions(outputs).cpu(),
                    task.scores(outputs, batch.data).cpu(),
                    task.per_example_loss(outputs, batch.data).cpu(),
                    _cpu(task.probabilities(outputs)),
                )
            )
    if not parts:
        raise EvaluationError("There are no rows to score.", mend="give a holdout with rows")
    probabilities = [part[3] for part in parts if part[3] is not None]
    result = Predictions(
        prediction=torch.cat([part[0] for part in parts]).numpy(),
        score=torch.cat([part[1] for part in parts]).double().numpy(),
        loss=torch.cat([part[2] for part in parts]).double().numpy(),
        probabilities=torch.cat(probabilities).numpy() if probabilities else None,
    )
    wrong = int((~np.isfinite(result.score) | ~np.isfinite(result.loss)).sum())
    if wrong:
        raise EvaluationError(
            f"{wrong} of {len(result)} rows have a score or loss that is not finite.",
            where=type(model).__name__,
            mend="training diverged or the weights are damaged: lower optimizer.lr, "
            "or check the checkpoint",
        )
    return result


def _cpu(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.cpu()
