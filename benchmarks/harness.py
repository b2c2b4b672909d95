"""What the benchmarks share: interleaved timing, two models, bars, and the JSON record."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """784-400-400-10, 478,410 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10)."""
        found: Tensor = self.layers(x)
        return found


class Encoder(nn.Module):
    """Six layers of width 384 over 30,522 tokens, about 22.6 M parameters."""

    def __init__(self, *, width: int = 384, layers: int = 6, tokens: int = 30_522) -> None:
        super().__init__()
        self.tokens = nn.Embedding(tokens, width)
        self.positions = nn.Embedding(512, width)
        layer = nn.TransformerEncoderLayer(
            width, 12, dim_feedforward=4 * width, dropout=0.0, activation="gelu", batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10) of tokens (B, L)."""
        where = torch.arange(x.shape[1], device=x.device)
        h = self.encoder(self.tokens(x) + self.positions(where))
        found: Tensor = self.head(h.mean(dim=1))
        return found


def models() -> dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor], int]]:
    """Name to constructor, a function from a number of rows to inputs, and the batch size."""
    return {
        "mlp": (MLP, lambda rows: torch.randn(rows, 784), 128),
        "encoder": (Encoder, lambda rows: torch.randint(0, 30_522, (rows, 64)), 16),
    }


def replayed(*overrides: str, policy: str) -> dict[str, Any]:
    """What one policy came to in ``perennial backtest`` with overrides, on the CPU."""
    from hydra import compose, initialize_config_dir
    from rich.console import Console

    from perennial.cli import plain_config, with_settings
    from perennial.paths import CONF_DIR
    from perennial.verbs.backtest import backtest_job

    given = [f"policy='{policy}'", "trainer.accelerator=cpu", *overrides]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR.absolute())):
        config = compose("backtest", given)
    told = backtest_job(
        lambda settings: plain_config(with_settings(config, settings)), console=Console(quiet=True)
    )
    found: dict[str, Any] = next(one for one in told["policies"] if one["policy"] == policy)
    return found


def interleaved(
    work: Mapping[str, Callable[[], Any]], *, rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """CPU-seconds of each piece of work in each round, every round in another order.

    Args:
        work: Name to what is timed.
        rounds: Rounds that count.
        warm_up: Rounds before them that do not.
    """
    names = list(work)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(warm_up + rounds):
        start = turn % len(names)
        for name in (*names[start:], *names[:start]):
            began = time.process_time()
            work[name]()
            if turn >= warm_up:
                taken[name].append(time.process_time() - began)
    return taken


def ratios(taken: Mapping[str, Sequence[float]], *, to: str) -> dict[str, float]:
    """Median over rounds of each one's time over that of ``to`` in the same round."""
    return {
        name: median(a / b for a, b in zip(times, taken[to], strict=True))
        for name, times in taken.items()
    }


def bar(name: str, value: float, limit: float, *, higher: bool) -> dict[str, Any]:
    """A figure against its limit."""
    passed = value >= limit if higher else value <= limit
    return {
        "name": name,
        "value": float(value),
        "limit": limit,
        "higher_is_better": higher,
        "passed": bool(passed),
    }


def finish(
    rows: Sequence[Mapping[str, Any]], bars: Sequence[Mapping[str, Any]], path: Path | None
) -> None:
    """Print the bars, write the record, and exit 1 where a bar is missed."""
    for one in bars:
        sign = "≥" if one["higher_is_better"] else "≤"
        verdict = "passed" if one["passed"] else "MISSED"
        print(f"{verdict}  {one['name']}: {one['value']:.4g} (bar {sign} {one['limit']:g})")
    if path is not None:
        machine = {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        }
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        record = {"machine": machine, "versions": versions, "rows": list(rows), "bars": list(bars)}
        path.write_text(json.dumps(record, indent=2, default=float))
    raise SystemExit(0 if all(one["passed"] for one in bars) else 1)
