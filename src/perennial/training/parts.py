"""A training step over parts of a batch: any module's own step, once per part, joined again.

Shapes: B rows of a batch, b rows of a part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from perennial.errors import MethodError
from perennial.methods.batch_norm import batch_norms, statistics
from perennial.types import Booleans, Part


def step_in_parts(
    training_step: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    module: pl.LightningModule,
    model: nn.Module,
    parts: Sequence[Part],
) -> Any:
    """What ``training_step`` returns, its losses weighed and its rows in the order of the batch.

    Args:
        training_step: The module's own.
        args: As Lightning gives them; the batch first, or by name.
        kwargs: Likewise.
        module: Its ``self.log`` takes one value per name, weighed as the losses are.
        model: Whose batch norms follow the parts.
        parts: At least one.

    Raises:
        MethodError: The batch, or what the step returned, cannot be divided or joined by rows.
    """

    def own(batch: Any) -> Any:
        if args:
            return training_step(batch, *args[1:], **kwargs)
        return training_step(**{**kwargs, "batch": batch})

    with _logging_once(module, parts) as turn:
        found = over_parts(own, args[0] if args else kwargs["batch"], model, parts, turn)
    return joined(found, parts)


def over_parts(
    function: Callable[[Any], Any],
    data: Any,
    model: nn.Module,
    parts: Sequence[Part],
    turn: Callable[[int], None] = lambda part: None,
) -> list[Any]:
    """A function of batch data over each part, in order, told to ``turn`` before."""
    norms = batch_norms(model)
    found = []
    for number, part in enumerate(parts):
        turn(number)
        with statistics(norms, part.statistics):
            found.append(function(take(data, part.rows)))
    return found


def take(data: Any, rows: Booleans) -> Any:
    """The rows of a batch in its own form: of every tensor (B, ...) in it.

    Raises:
        MethodError: A tensor has another leading size, or there is none.
    """
    index = np.flatnonzero(rows)
    if len(index) == len(rows):
        return data
    contiguous = int(index[-1]) - int(index[0]) + 1 == len(index)
    leaves, form = tree_flatten(data)
    sizes = {len(leaf) for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim}
    if sizes != {len(rows)}:
        raise MethodError(
            f"A batch of {len(rows)} rows cannot be divided: its tensors have leading sizes "
            f"{sorted(sizes)}.",
            where="training_step",
            mend="let every tensor of the batch have one entry per row, or set forward=joint on "
            "the method that replays",
        )

    def part(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.ndim:
            return leaf
        if contiguous:
            return leaf[int(index[0]) : int(index[-1]) + 1]
        return leaf[torch.from_numpy(index).to(leaf.device)]

    return tree_unflatten([part(leaf) for leaf in leaves], form)


def joined(found: Sequence[Any], parts: Sequence[Part]) -> Any:
    """Results of parts as one: the loss weighed, tensors (b, ...) in the order of the batch.

    Other numbers are weighed as the loss is; what is neither is kept as a list, one of each part.
    None of any part, which skips a step, skips it all.

    Raises:
        MethodError: The parts returned different things.
    """
    if any(result is None for result in found):
        return None
    if not all(isinstance(result, Mapping) for result in found):
        return weighed(list(found), parts)
    if any(set(result) != set(found[0]) for result in found):
        raise MethodError(
            "training_step returned other keys for new rows than for replayed ones.",
            where="training_step",
            mend="return the same keys for every batch, or set forward=joint on the method that "
            "replays",
        )
    return {key: _joined_value(key, [r[key] for r in found], parts) for key in found[0]}


def in_order(values: Sequence[Tensor], parts: Sequence[Part]) -> Tensor:
    """Tensors (b, ...) of the parts as one (B, ...)."""
    together = torch.cat(list(values))
    place = np.concatenate([np.flatnonzero(part.rows) for part in parts])
    if (np.diff(place) > 0).all():
        return together
    return together[torch.from_numpy(np.argsort(place)).to(together.device)]


def weighed(values: Sequence[Any], parts: Sequence[Part]) -> Any:
    """Σ weight · value, over the parts."""
    total = values[0] * parts[0].weight
    for value, part in zip(values[1:], parts[1:], strict=True):
        total = total + value * part.weight
    return total


def _joined_value(key: str, values: list[Any], parts: Sequence[Part]) -> Any:
    if all(_is_number(value) for value in values):
        return weighed(values, parts)
    sizes = [int(part.rows.sum()) for part in parts]
    tensors = all(isinstance(value, Tensor) and value.ndim for value in values)
    if tensors and [len(value) for value in values] == sizes:
        return in_order(values, parts)
    assert key != "loss", "Lightning takes a scalar"
    return values


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.ndim
    return isinstance(value, int | float) and not isinstance(value, bool)


@contextmanager
def _logging_once(
    module: pl.LightningModule, parts: Sequence[Part]
) -> Iterator[Callable[[int], None]]:
    """Hold back what the module logs in each part, and log it once; else the last part would win.

    A name that not every part logged has the weights of those that did.
    """
    own, now = module.log, 0
    kept: dict[str, dict[int, Any]] = {}
    options: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def log(name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        if not _is_number(value):
            own(name, value, *args, **kwargs)
            return
        kept.setdefault(name, {})[now] = value.detach() if isinstance(value, Tensor) else value
        options[name] = (args, kwargs)

    def turn(part: int) -> None:
        nonlocal now
        now = part

    module.log = log  # type: ignore[method-assign]
    try:
        yield turn
    finally:
        del module.log
    for name, values in kept.items():
        told = [parts[number] for number in values]
        total = sum(part.weight for part in told)
        args, kwargs = options[name]
        own(name, weighed(list(values.values()), told) / total, *args, **kwargs)
