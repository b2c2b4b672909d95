"""The diagonal of the Fisher information, exactly and layer by layer.

For each parameter the mean over rows of the *squared per-example* gradient of log p(y|x), formed
from a layer's inputs and the gradient at its output, so that no per-example gradient of the whole
model is ever stored. What no layer's rule accounts for goes through the model as a whole, for those
parameters only.

Shapes: B rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from perennial.errors import ConfigError, MethodError
from perennial.methods.layers import mixes_rows
from perennial.methods.recording import recording
from perennial.methods.squares import Squares
from perennial.models.undisturbed import undisturbed
from perennial.tasks.likelihood import Categorical
from perennial.types import Batch, Floats, Likelihood

KINDS = ("sampled", "true", "empirical")


def diagonal_fisher(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    logits: Callable[[Any], Tensor],
    likelihood: Likelihood | None = None,
    kind: str = "sampled",
    seed: int = 0,
    max_classes: int = 100,
    targets: Callable[[Any], Tensor] | None = None,
    weight: Floats | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Tensor], int]:
    """Mean over rows of per-example squared gradients of log p(y|x).

    Linear, convolution, embedding, layer, batch, group and RMS norm layers and self-attention go
    layer by layer, at the cost of about one plain epoch, and two more backward passes where the
    graph can choose rows, to check that a layer's rows are the batch's; parameters shared between
    them are summed before squaring. Parameters that are used in any other way go by per-example
    gradients of the whole model, in chunks of rows, or row by row where the model refuses chunks,
    which costs about as much as training on single rows.

    Estimated in evaluation mode; modes, buffers, generators, gradients and requirements of
    gradients are left as they were.

    Args:
        model: Rows come first in its inputs.
        batches: Rows on the model's device: each a `Batch`, or what ``logits`` takes as it is, a
            tensor or a tuple or dict of tensors (B, ...). Their rows are then numbered in order,
            and the draws go by number.
        logits: Batch data to the parameters of the density, logits (B, C) or what else
            ``likelihood`` takes, through ``model``.
        likelihood: Density of the targets; None is categorical, by the softmax of the logits.
        kind: ``sampled`` draws the target from the model's own density by hash(seed, row id),
            whatever the order, batch size or rank; ``true`` takes the exact expectation, over all
            classes or output dimensions; ``empirical`` the observed target.
        seed: Of the draws.
        max_classes: Largest number of classes or output dimensions for ``true``.
        targets: Batch data to observed targets (B, ...), for ``empirical``, and for any kind where
            a row has targets of several values, which say which of them there are.
        weight: How much each row (N,) counts in the mean, in the order of the batches, at least 0;
            None is all alike.
        warn: Told which parameters go through the whole model, and how.

    Returns:
        Float32 tensors by parameter name, and the number of rows.

    Raises:
        ConfigError: The kind is unknown, or ``true`` with more classes than ``max_classes``.
        MethodError: There are no rows, a row has no gradient of its own, a trainable parameter has
            no part in the output, or a value is not finite.
    """
    if kind not in KINDS:
        raise ConfigError(
            f"{kind!r} is no kind of Fisher.",
            where="method.ewc.fisher",
            mend=f"use {', '.join(KINDS)}",
        )
    _refuse_mixed_rows(model)
    density = Categorical() if likelihood is None else likelihood
    sums = Squares(model, logits, warn)
    count = 0
    with undisturbed(model):
        model.eval()
        for given in batches:
            batch = given if isinstance(given, Batch) else _numbered(given, count)
            if count == 0:
                sums.probe(batch)
            with (
                torch.enable_grad(),
                recording(model, sums.layered, shared=sums.shared, rows=len(batch)) as calls,
            ):
                # a copy, for a forward that changes its input in place
                outputs = logits(_copied(batch.data)).float()
            sums.settle(batch, outputs, calls)
            counting = None if weight is None else weight[count : count + len(batch)]
            for direction in _directions(outputs, batch, density, kind, seed, max_classes, targets):
                if counting is not None:
                    direction = _scaled(direction, counting)
                sums.add_layers(outputs, calls, direction)
                sums.add_rows(batch.data, direction)
            count += len(batch)
    if count == 0:
        raise MethodError(
            "The Fisher needs rows, and there are none.",
            where="method.ewc",
            mend="give data.history=PATH, or leave ewc out",
        )
    total = count if weight is None else float(weight.sum())
    return {name: value / total for name, value in sums.finished().items()}, count


def _scaled(direction: Tensor, weight: Floats) -> Tensor:
    """A direction (B, ...) whose squares are the weights (B,) times what they were."""
    root = torch.from_numpy(np.sqrt(weight)).to(direction)
    return direction * root.view(-1, *[1] * (direction.ndim - 1))


def _numbered(data: Any, before: int) -> Batch:
    """Plain tensors as a batch, with running numbers for ids."""
    leaves = [leaf for leaf in tree_leaves(data) if isinstance(leaf, Tensor)]
    rows = len(leaves[0]) if leaves else 0
    ids = np.arange(before, before + rows).astype(np.str_)
    return Batch(data=data, ids=ids, is_new=np.ones(rows, dtype=bool))


def _copied(data: Any) -> Any:
    return tree_map(lambda v: v.clone() if isinstance(v, Tensor) else v, data)


def _refuse_mixed_rows(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if mixes_rows(module):
            raise MethodError(
                f"Batch norm {name!r} has no running statistics and mixes rows, so a row has no "
                "gradient of its own.",
                where=type(model).__name__,
                mend="build it with track_running_stats=True, or leave ewc out (method=replay)",
            )


def _directions(
    outputs: Tensor,
    batch: Batch,
    likelihood: Likelihood,
    kind: str,
    seed: int,
    max_classes: int,
    targets: Callable[[Any], Tensor] | None,
) -> Iterator[Tensor]:
    """Gradients at the outputs, in their shape, whose per-example squares are to be summed."""
    fixed = outputs.detach()
    observed = None if targets is None else targets(batch.data)
    if kind == "empirical":
        if observed is None:
            raise MethodError(
                "The empirical Fisher needs observed labels, and none are given.",
                where="method.ewc.fisher",
                mend="use method.ewc.fisher=sampled",
            )
        yield likelihood.gradient(fixed, observed)
    elif kind == "sampled":
        yield likelihood.gradient(fixed, likelihood.draw(fixed, batch.ids, seed, observed))
    else:
        terms = likelihood.terms(fixed)
        if terms > max_classes:
            raise ConfigError(
                f"The true Fisher goes over all {terms} outputs; the limit is {max_classes}.",
                where="method.ewc.max_classes",
                mend="use method.ewc.fisher=sampled, or raise the limit",
            )
        yield from likelihood.expectation(fixed, observed)
