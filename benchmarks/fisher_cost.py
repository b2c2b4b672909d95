"""What a Fisher costs, in plain training epochs over the same rows, and how exact it is.

python benchmarks/fisher_cost.py --rounds 9 --json fisher_cost.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from harness import MLP, bar, finish, interleaved, models, ratios
from torch import Tensor, nn

from perennial.methods import per_example
from perennial.methods.fisher import diagonal_fisher
from perennial.tasks.likelihood import uniform_by_id
from perennial.types import Batch

ROWS = {"mlp": 1000, "encoder": 64}
LOOPED = {"mlp": 64, "encoder": 16}


def batches(x: Tensor, y: Tensor, size: int) -> Iterator[Batch]:
    """Rows in order."""
    for start in range(0, len(x), size):
        part = slice(start, start + size)
        ids = np.array([f"row-{i}" for i in range(start, start + len(x[part]))])
        yield Batch(data=(x[part], y[part]), ids=ids, is_new=np.ones(len(ids), dtype=bool))


def estimate(model: nn.Module, x: Tensor, y: Tensor, size: int, kind: str) -> dict[str, Tensor]:
    """Layer by layer."""
    found, _ = diagonal_fisher(
        model,
        batches(x, y, size),
        logits=lambda data: model(data[0]),
        kind=kind,
        targets=lambda data: data[1],
    )
    return found


def by_loop(model: nn.Module, x: Tensor, y: Tensor, kind: str) -> dict[str, Tensor]:
    """One row at a time."""
    model.eval()
    parameters = dict(model.named_parameters())
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    uniform = uniform_by_id(np.array([f"row-{i}" for i in range(len(x))]), 0)
    for row in range(len(x)):
        log_p = F.log_softmax(model(x[row : row + 1]), dim=1)[0]
        label = int(y[row])
        if kind == "sampled":
            p = log_p.detach().double().exp()
            edges = (p / p.sum()).cumsum(dim=0)
            label = min(int(torch.searchsorted(edges, uniform[row, 0], right=True)), len(p) - 1)
        for name, gradient in zip(
            parameters, torch.autograd.grad(log_p[label], list(parameters.values())), strict=True
        ):
            sums[name] += gradient.square()
    return {name: value / len(x) for name, value in sums.items()}


def epoch(model: nn.Module, x: Tensor, y: Tensor, size: int) -> Callable[[], None]:
    """A plain pass of AdamW over the rows."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def work() -> None:
        model.train()
        for start in range(0, len(x), size):
            part = slice(start, start + size)
            optimizer.zero_grad()
            F.cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()

    return work


class ScaledMLP(MLP):
    """With a parameter that no layer owns, so that it goes through the whole model."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(784))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10)."""
        return super().forward(x * self.scale)


def by_single_rows(work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The same estimate without chunks."""
    before = per_example.CHUNK
    per_example.CHUNK = {"other": 0}
    try:
        return work()
    finally:
        per_example.CHUNK = before


def outside_of_layers(rounds: int) -> tuple[dict[str, float], float]:
    """Plain epochs that a parameter outside of layers costs, both ways; the largest error."""
    torch.manual_seed(0)
    model, x, y = ScaledMLP(), torch.randn(1000, 784), torch.randint(0, 10, (1000,))
    chunked = partial(estimate, model, x, y, 128, "sampled")
    work: dict[str, Callable[[], Any]] = {
        "plain epoch": epoch(ScaledMLP(), x, y, 128),
        "in chunks": chunked,
        "row by row": partial(by_single_rows, chunked),
    }
    error = largest_error(
        estimate(model, x[:64], y[:64], 32, "sampled"), by_loop(model, x[:64], y[:64], "sampled")
    )
    return ratios(interleaved(work, rounds=rounds), to="plain epoch"), error


def largest_error(found: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    """Largest difference, relative to the largest value of the same parameter."""
    return max(
        float((found[n] - value).abs().max() / value.abs().max().clamp(min=1e-30))
        for n, value in exact.items()
    )


def main() -> None:
    """Print a table and the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--models", nargs="*", default=list(models()))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    bars = []
    for name in chosen.models:
        build, inputs, size = models()[name]
        torch.manual_seed(0)
        model, trained = build(), build()
        x = inputs(ROWS[name])
        y = torch.randint(0, 10, (len(x),))
        some = slice(0, LOOPED[name])
        work: dict[str, Callable[[], Any]] = {"plain epoch": epoch(trained, x, y, size)}
        for kind in ("sampled", "empirical"):
            work[kind] = partial(estimate, model, x, y, size, kind)
        found = ratios(interleaved(work, rounds=chosen.rounds), to="plain epoch")
        part = {
            "plain epoch": epoch(trained, x[some], y[some], size),
            "loop": partial(by_loop, model, x[some], y[some], "empirical"),
        }
        found["per-example loop"] = ratios(interleaved(part, rounds=3), to="plain epoch")["loop"]
        for title, ratio in found.items():
            print(f"{name:8} {title:18} {ratio:.2f}")
            rows.append({"model": name, "kind": title, "ratio": ratio})
        for kind in ("sampled", "empirical"):
            error = largest_error(
                estimate(model, x[some], y[some], size, kind),
                by_loop(model, x[some], y[some], kind),
            )
            bars += [
                bar(f"{name}: {kind}, epochs", found[kind], 1.3, higher=False),
                bar(f"{name}: {kind}, largest error", error, 1e-5, higher=False),
            ]
    found, error = outside_of_layers(chosen.rounds)
    for title, ratio in found.items():
        print(f"{'outside':8} {title:18} {ratio:.2f}")
        rows.append({"model": "mlp, a parameter outside of layers", "kind": title, "ratio": ratio})
    bars.append(bar("outside of layers: largest error", error, 1e-5, higher=False))
    finish(rows, bars, chosen.json)


if __name__ == "__main__":
    main()
