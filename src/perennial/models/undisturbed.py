"""Forwards that leave a model as it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def undisturbed(model: nn.Module, *, parameters: bool = False) -> Iterator[None]:
    """Run forwards; modes, buffers and random generators are then what they were, bit by bit.

    A forward may move running statistics, count its calls or go on with a power iteration, some
    in evaluation mode too. A buffer that a version does not keep and that came out in another
    shape is a cache that grew, and stays.

    Args:
        model: Any module.
        parameters: Whether a forward may change weights too; one copy of them is then held.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    kept = {id(b): b.clone() for _, own in buffers for b in own.values() if b is not None}
    weights = [(p, p.detach().clone()) for p in model.parameters()] if parameters else []
    try:
        with same_draws():
            yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for module, own in buffers:
                _restore(module, own, kept)
            for parameter, value in weights:
                parameter.copy_(value)


def _restore(module: nn.Module, own: dict[str, Tensor | None], kept: dict[int, Tensor]) -> None:
    passing = module._non_persistent_buffers_set
    for name in [n for n in module._buffers if n not in own and n not in passing]:
        del module._buffers[name]
    for name, buffer in own.items():
        now = module._buffers.get(name)
        if name in passing and _shape(now) != _shape(buffer):
            continue
        module._buffers[name] = buffer
        if buffer is not None and not _equal(buffer, kept[id(buffer)]):
            buffer.copy_(kept[id(buffer)])


def _shape(value: Tensor | None) -> torch.Size | None:
    return None if value is None else value.shape


def _equal(a: Tensor, b: Tensor) -> bool:
    # not torch.equal, to which no NaN equals itself
    return bool(((a == b) | ((a != a) & (b != b))).all())


@contextmanager
def same_draws() -> Iterator[None]:
    """Python's, NumPy's and torch's generators are then what they were."""
    restore = _generators()
    try:
        yield
    finally:
        restore()


def _generators() -> Callable[[], None]:
    """Restores Python's, NumPy's and torch's generators to what they are now."""
    own, legacy = random.getstate(), np.random.get_state()
    on_cpu = torch.random.get_rng_state()
    on_gpu = torch.cuda.get_rng_state_all() if _cuda() else []

    def restore() -> None:
        random.setstate(own)
        np.random.set_state(legacy)
        torch.random.set_rng_state(on_cpu)
        if on_gpu:
            torch.cuda.set_rng_state_all(on_gpu)

    return restore


def _cuda() -> bool:
    # before it is initialised no tensor lies there, and nothing draws
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
