"""What serving a model costs, champion and candidate side by side on one device.

A machine's speed drifts within seconds, by clock, cache and neighbours. So both take turns, in an
order drawn anew for each round, and what disturbs a round disturbs both.

Shapes: R rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import numpy as np
import torch
from torch import nn

from perennial.evaluation.predict import eval_mode
from perennial.types import Serving

ROUNDS = 60
_LEAST_ROUNDS = 5
_WARM_UP_ROUNDS = 5
_WARM_UP_SHARE = 0.2


def serving(
    models: Mapping[str, nn.Module],
    forward: Callable[[str], object],
    *,
    device: torch.device,
    seed: int,
    seconds: float = 1.0,
) -> dict[str, Serving]:
    """Parameters, bytes and latency of each model.

    Modes, buffers and every generator are as before when it returns.

    Args:
        models: Name to model, on ``device``.
        forward: Runs the named model on one batch, the same for all.
        device: Where they lie; it is waited for before each clock reading.
        seed: Of the order in each round.
        seconds: For warming up and all rounds: after it no further round begins, but for the five
            that are always measured. At most `ROUNDS` are.
    """
    latency: dict[str, list[float]] = {name: [] for name in models}
    generator = np.random.default_rng(seed)
    names = list(models)
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(eval_mode(model))
        start = time.perf_counter()
        for done in range(_WARM_UP_ROUNDS):
            if done and time.perf_counter() - start > _WARM_UP_SHARE * seconds:
                break
            for name in names:
                _timed(forward, name, device)
        for done in range(ROUNDS):
            if done >= _LEAST_ROUNDS and time.perf_counter() - start > seconds:
                break
            for position in generator.permutation(len(names)):
                name = names[position]
                latency[name].append(_timed(forward, name, device))
    return {
        name: Serving(
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            bytes=sum(
                value.numel() * value.element_size() for value in model.state_dict().values()
            ),
            latency=np.array(latency[name]),
        )
        for name, model in models.items()
    }


def summary(cost: Serving) -> dict[str, float]:
    """``parameters``, ``bytes``, and median and 95% quantile of the latency in milliseconds."""
    p50, p95 = np.quantile(1000 * cost.latency, (0.5, 0.95)).tolist()
    return {
        "parameters": cost.parameters,
        "bytes": cost.bytes,
        "latency_p50_ms": p50,
        "latency_p95_ms": p95,
    }


def _timed(forward: Callable[[str], object], name: str, device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    forward(name)
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
