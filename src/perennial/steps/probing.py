"""What a module gives to methods, found out by running it on a few rows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from perennial.data.rows import Rows
from perennial.evaluation.predict import eval_mode
from perennial.methods.base import Method
from perennial.models.undisturbed import undisturbed
from perennial.steps.learner import Learner

# what draws, or depends on the batch, by design and not by a change of the row
_BY_CHANCE = (
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._NormBase,
    nn.MultiheadAttention,
    nn.RReLU,
    nn.RNNBase,
)
_DRAWS = 32
_ROWS = 16
# far above what the order of a sum does on a GPU, far below what a changed row does
_NOISE = 1e-5


def capabilities(
    learner: Learner, rows: Rows, methods: Sequence[Method], *, augmented: bool = False
) -> dict[str, str]:
    """Find out on a few rows what the module gives; it is then what it was, bit by bit.

    Args:
        learner: Model and task.
        rows: At least one row.
        methods: Those that may require something. Whether stored logits can be compared costs up
            to 32 forwards in training mode, so it is found out only where one of them does.
        augmented: Whether ``data.augment`` changes training batches.

    Returns:
        Capability to the reason why it is missing; empty where nothing is.
    """
    batch = next(learner.batches(rows.take(slice(0, _ROWS))))
    missing = {"features": "no task of this release names a layer that gives them"}
    try:
        with eval_mode(learner.module):
            outputs = learner.task.outputs(learner.module, _copied(batch.data))
            learner.task.per_example_loss(outputs, batch.data)
        if learner.task.target_kind not in ("class", "item"):
            missing["softmax"] = (
                f"a target of the kind {learner.task.target_kind!r} is not one class by a softmax "
                "over its row's outputs"
            )
        if any("stored_logits" in method.requires for method in methods):
            reason = _no_stored_logits(learner, outputs, len(batch))
            if augmented:
                reason = "data.augment changes batches, so that stored logits are of another input"
            if reason is None and _draws(learner, batch.data):
                reason = "its forward changes rows at random in training (augmentation, noise)"
            if reason:
                missing["stored_logits"] = reason
    except Exception as error:
        # the module is foreign code: whatever it raises is the reason
        reason = f"its forward failed on a batch ({type(error).__name__}: {error})"
        missing |= dict.fromkeys(("logits", "per_example_loss", "stored_logits"), reason)
    return missing


def _draws(learner: Learner, data: Any) -> bool:
    """Whether a training forward depends on chance, dropout and batch norm apart."""
    first = _training_outputs(learner, data, seed=0)
    most = _NOISE * float(first[first.isfinite()].abs().max()) if first.isfinite().any() else 0.0
    return any(
        not torch.allclose(
            first, _training_outputs(learner, data, seed=seed), rtol=0, atol=most, equal_nan=True
        )
        for seed in range(1, _DRAWS)
    )


def _training_outputs(learner: Learner, data: Any, *, seed: int) -> Tensor:
    """Outputs of a forward as in training, from the same state whenever it is called."""
    module = learner.module
    with undisturbed(module, parameters=True), torch.no_grad():
        for part in module.modules():
            part.training = not isinstance(part, _BY_CHANCE)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        return learner.task.outputs(module, _copied(data)).float()


def _copied(data: Any) -> Any:
    """For a forward that changes its input in place."""
    return tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, data)


def _no_stored_logits(learner: Learner, outputs: Tensor, rows: int) -> str | None:
    """Why a row's logits could not be compared with the ones it was stored with."""
    module = learner.module
    for hook in ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"):
        if is_overridden(hook, module):
            return f"its {hook} may change batches, so that stored logits are of another input"
    if learner.task.target_kind not in ("class", "classes"):
        return "its outputs are no classes with names, by which stored ones are kept"
    if outputs.ndim != 2 or len(outputs) != rows:
        return f"its outputs {tuple(outputs.shape)} for {rows} rows are not one vector per row"
    return None
