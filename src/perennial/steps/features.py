"""Features of rows: what enters the output layer.

Shapes: B rows of a batch, N rows, D features, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from perennial.data.memory import Memory
from perennial.data.rows import Rows
from perennial.errors import ConfigError, MethodError
from perennial.evaluation.predict import eval_mode
from perennial.models.head import find_head
from perennial.steps.learner import Learner
from perennial.types import Floats

_ROWS = 2


def require_selectable(memory: Memory, learner: Learner, rows: Rows) -> None:
    """Refuse a memory that selects by features where the model gives none.

    Args:
        memory: Selects what is remembered.
        learner: Model and task.
        rows: To run the model on; none where there is nothing to select.

    Raises:
        MethodError: There is no output layer, or what enters it is not one vector a row.
    """
    if not memory.needs_features("train") or not len(rows):
        return
    needed_by = f"data.memory.selection={memory.selection}"
    try:
        features(learner, rows.take(slice(0, _ROWS)))
    except (ConfigError, ValueError) as error:
        reason = error.what if isinstance(error, ConfigError) else str(error)
        raise MethodError(
            f"{needed_by} needs the capability features, what enters the model's output layer: "
            f"{reason}",
            where=needed_by,
            mend="use data.memory.selection=class_balanced or reservoir, which look at no features",
        ) from error


def features(learner: Learner, rows: Rows) -> Floats:
    """What enters the output layer (N, D), float32, with the present weights in evaluation mode.

    Args:
        learner: Model and task; see `perennial.models.head.find_head` for how the layer is found.
        rows: N rows, at least 1.

    Raises:
        ConfigError: There is no single output layer.
        ValueError: What enters it is not one vector a row.
    """
    learner.model.to(learner.device)
    probe = next(learner.batches(rows.take(slice(0, _ROWS))))

    def logits() -> Tensor:
        with eval_mode(learner.module):
            return learner.task.outputs(learner.module, probe.data)

    name = find_head(learner.model, logits).name
    if not name:
        raise ValueError("the model grows by itself, and has no layer that is its output alone.")
    met: list[Tensor] = []

    def hook(_: Any, inputs: tuple[Tensor, ...]) -> None:
        met.append(inputs[0].detach().float().cpu())

    handle = learner.model.get_submodule(name).register_forward_pre_hook(hook)
    try:
        with eval_mode(learner.module):
            for batch in learner.batches(rows):
                learner.task.outputs(learner.module, batch.data)
    finally:
        handle.remove()
    found: Floats = torch.cat(met).numpy()
    if found.ndim != 2 or len(found) != len(rows):
        raise ValueError(f"what enters {name!r} is {tuple(found.shape)} for {len(rows)} rows.")
    assert np.isfinite(found).all()
    return found
