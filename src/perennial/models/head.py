"""The output layer: found by what it does, and given rows for new classes.

Shapes: B rows of a batch, C classes before growing, D inputs of the layer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn

from perennial.errors import ConfigError


@dataclass(frozen=True)
class Head:
    """An output layer as a version's manifest keeps it.

    Attributes:
        name: Of the layer within the model of record; empty where the model grows itself, see
            `Growing`.
        outputs: Its width.
    """

    name: str
    outputs: int


@runtime_checkable
class Growing(Protocol):
    """A model that grows by itself, such as one whose output and input share a matrix."""

    def grow_outputs(self, outputs: int, *, generator: torch.Generator) -> None:
        """Widen the model in place; old rows of its parameters stay bit-equal.

        Args:
            outputs: Width of the output to have, more than now.
            generator: On the CPU, for what is new.
        """
        ...

    @property
    def outputs(self) -> int:
        """Present width of the output."""
        ...


def grown(old: Tensor, rows: Tensor) -> Tensor:
    """A tensor with rows added after its own, which stay bit-equal.

    Args:
        old: (C, ...).
        rows: (R, ...), converted to ``old``'s device and dtype.
    """
    return torch.cat([old, rows.to(old)])


def grow(model: nn.Module, head: Head, *, seed: int) -> None:
    """Widen an output layer in place; one that is as wide already stays as it is.

    Old rows of weight and bias stay bit-equal. New ones are drawn from U(-1/√D, 1/√D), as
    ``nn.Linear`` draws them, on the CPU, from the seed and the old width alone: no other generator
    moves, and a resumed run draws the same. Device, dtype and requirement of gradients are kept.

    Args:
        model: The model of record.
        head: The layer and the width that it gets.
        seed: Of the run.

    Raises:
        ConfigError: The model has no such layer, or a wider one.
    """
    if not head.name and isinstance(model, Growing):
        if model.outputs > head.outputs:
            raise _misfit(model, head, f"{model.outputs} outputs")
        if model.outputs < head.outputs:
            drawn = _generator(seed, model.outputs)
            model.grow_outputs(head.outputs, generator=drawn)
        return
    layer = dict(model.named_modules()).get(head.name)
    if not _is_plain(layer):
        raise _misfit(model, head, "no such torch.nn.Linear")
    if layer.out_features > head.outputs:
        raise _misfit(model, head, f"one of {layer.out_features} outputs")
    _widen(layer, head.outputs, fresh_rows(layer, head.outputs, seed=seed))


def fresh_rows(layer: nn.Linear, outputs: int, *, seed: int) -> dict[str, Tensor]:
    """Random rows (outputs - C, ...) of weight and bias, float32 on the CPU."""
    generator = _generator(seed, layer.out_features)
    bound = 1 / math.sqrt(layer.in_features) if layer.in_features else 0.0
    count = outputs - layer.out_features
    return {
        name: torch.empty(count, *old.shape[1:]).uniform_(-bound, bound, generator=generator)
        for name, old in _parameters(layer).items()
    }


def _generator(seed: int, width: int) -> torch.Generator:
    key = hashlib.blake2b(f"perennial-head\0{seed}\0{width}".encode(), digest_size=8)
    return torch.Generator().manual_seed(int.from_bytes(key.digest(), "big") >> 1)


def trains(model: nn.Module, head: Head) -> bool:
    """Whether the layer that grows can learn what is new."""
    if not head.name:
        return any(parameter.requires_grad for parameter in model.parameters())
    return bool(model.get_submodule(head.name).weight.requires_grad)


def find_head(model: nn.Module, logits: Callable[[], Tensor]) -> Head:
    """The layer that decides how many classes a model has.

    Found by trial: of the linear layers that run in a forward and are as wide as the logits, it is
    the one that, given one more row, gives the logits one more column and leaves the odds of the
    old classes as they were. So it may be called anything, and what follows it may select,
    convert, scale or normalise, but not depend on the number of classes. A `Growing` model is its
    own answer.

    Args:
        model: The model of record, left as it was.
        logits: Runs a forward in evaluation mode and without gradients; gives (B, C).

    Raises:
        ConfigError: There is no such layer, there are several, or its weights are shared.
    """
    before = logits()
    width = before.shape[1]
    if isinstance(model, Growing):
        return Head(name="", outputs=width)
    found = [
        name
        for name, layer in _called(model, logits).items()
        if layer.out_features == width and _decides(layer, logits, before)
    ]
    if len(found) != 1:
        several = f"several ({', '.join(found)})" if found else "none"
        raise ConfigError(
            f"{type(model).__name__} should have one torch.nn.Linear that gives its {width} "
            f"logits; it has {several}.",
            where="model, data.new_classes",
            mend=_MEND,
        )
    _refuse_tied(model, found[0])
    return Head(name=found[0], outputs=width)


_MEND = (
    "let the model end in a torch.nn.Linear with one output per class, or found a lineage with all "
    "classes under another model_name"
)


def _called(model: nn.Module, logits: Callable[[], Tensor]) -> dict[str, nn.Linear]:
    """Linear layers that run in a forward, by name."""
    met: list[nn.Module] = []
    layers = {name: layer for name, layer in model.named_modules() if _is_plain(layer)}
    handles = [
        layer.register_forward_hook(lambda layer, *_: met.append(layer))
        for layer in layers.values()
    ]
    try:
        logits()
    finally:
        for handle in handles:
            handle.remove()
    return {name: layer for name, layer in layers.items() if layer in met}


def _is_plain(layer: nn.Module | None) -> TypeGuard[nn.Linear]:
    """Whether a layer is linear with a weight of its own, not one that is computed from others."""
    return isinstance(layer, nn.Linear) and isinstance(layer._parameters.get("weight"), Tensor)


def _parameters(layer: nn.Linear) -> dict[str, nn.Parameter]:
    """Weight, and bias where there is one."""
    both = {name: layer._parameters.get(name) for name in ("weight", "bias")}
    return {name: parameter for name, parameter in both.items() if parameter is not None}


def _decides(layer: nn.Linear, logits: Callable[[], Tensor], before: Tensor) -> bool:
    """Whether the logits get a column where the layer gets a row."""
    with _one_row_more(layer):
        try:
            after = logits()
        # what the layer's output goes into is foreign code: whatever it raises, it wants this width
        except Exception:
            return False
    old = before.shape[1]
    if after.shape != (len(before), old + 1):
        return False
    coarsest = max(torch.finfo(one.dtype).eps for one in (before, layer.weight))
    tolerance = math.sqrt(max(coarsest, torch.finfo(torch.float32).eps))
    a, b = (torch.log_softmax(one.float(), dim=1) for one in (before, after[:, :old]))
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


@contextmanager
def _one_row_more(layer: nn.Linear) -> Iterator[None]:
    kept = dict(layer._parameters)
    width = layer.out_features
    rows = {name: torch.zeros(1, *old.shape[1:]) for name, old in _parameters(layer).items()}
    _widen(layer, width + 1, rows)
    try:
        yield
    finally:
        layer._parameters.update(kept)
        layer.out_features = width


def _widen(layer: nn.Linear, outputs: int, rows: dict[str, Tensor]) -> None:
    """Put wider parameters in the place of a layer's own."""
    if outputs == layer.out_features:
        return
    for name, old in _parameters(layer).items():
        wider = grown(old.detach(), rows[name])
        setattr(layer, name, nn.Parameter(wider, requires_grad=old.requires_grad))
    layer.out_features = outputs


def _refuse_tied(model: nn.Module, name: str) -> None:
    layer = model.get_submodule(name)
    own = {id(parameter) for parameter in layer.parameters()}
    for other, module in model.named_modules():
        shared = module is not layer and own & {id(p) for p in module._parameters.values()}
        if shared:
            raise ConfigError(
                f"The output layer {name!r} shares its weights with {other or 'the model'!r}, "
                "which would have to grow with it.",
                where="model, data.new_classes",
                mend=_MEND,
            )


def _misfit(model: nn.Module, head: Head, instead: str) -> ConfigError:
    return ConfigError(
        f"The champion's output layer {head.name!r} has {head.outputs} outputs, and "
        f"{type(model).__name__} has {instead}.",
        where="model",
        mend="configure the model that the lineage was founded with; its output layer grows by "
        "itself",
    )
