"""Batch norms of a model, and what a forward does with their statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

BatchNorm = _BatchNorm


def batch_norms(model: nn.Module) -> list[BatchNorm]:
    """Layers that normalise by the rows of a batch, of any dimension, across ranks or not.

    Those that the model itself keeps in evaluation mode are left out.
    """
    return [layer for layer in model.modules() if isinstance(layer, BatchNorm) and layer.training]


@contextmanager
def statistics(norms: Sequence[BatchNorm], manner: str) -> Iterator[None]:
    """Run forwards while the context is open; modes and flags are then what they were.

    Args:
        norms: As `batch_norms` gives them.
        manner: ``update``, ``batch`` or ``running``; see `perennial.types.Part`.
    """
    assert manner in ("update", "batch", "running")
    before = [(norm, norm.training, norm.track_running_stats) for norm in norms]
    for norm in norms:
        if manner == "batch":
            norm.track_running_stats = False
        elif manner == "running":
            norm.eval()
    try:
        yield
    finally:
        for norm, training, tracking in before:
            norm.training, norm.track_running_stats = training, tracking
