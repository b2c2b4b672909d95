"""What batch norm keeps of history, by how new and replayed rows go through the model.

python benchmarks/batch_norm.py --seeds 4 --json batch_norm.json
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import bar, finish
from sklearn.datasets import load_digits
from torch import Tensor, nn

from perennial.data.rows import Rows
from perennial.methods.base import Method
from perennial.methods.replay import Replay
from perennial.steps.candidate import train
from perennial.steps.learner import Constructor, Learner, build_learner
from perennial.tasks.classification import Classification
from perennial.training.settings import Training
from perennial.types import VersionView

DRIFTS: dict[str, Callable[[Any], Any]] = {
    "inverted": lambda x: 1 - x,
    "mirrored": lambda x: x[:, :, ::-1],
    "brighter by 3": lambda x: x + 3,
}
REPLAYS: dict[str, Callable[[], Method]] = {
    "joint": Replay,
    "joint, frozen": lambda: Replay(running_statistics="frozen"),
    "separate, frozen, weight 0.5": lambda: Replay(new_weight=0.5),
    "separate, mixed": lambda: Replay(forward="separate", running_statistics="mixed"),
    "separate, new": lambda: Replay(running_statistics="new"),
}


class Net(nn.Module):
    """64-100-100-10 with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 100), nn.BatchNorm1d(100), nn.ReLU(),
            nn.Linear(100, 100), nn.BatchNorm1d(100), nn.ReLU(), nn.Linear(100, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10)."""
        found: Tensor = self.layers(x)
        return found


def learner(seed: int) -> Learner:
    """A fresh model."""
    torch.manual_seed(seed)
    return build_learner(
        model=Constructor(target="Net", arguments={}, build=Net),
        task=Classification(),
        optimizer=functools.partial(torch.optim.AdamW, lr=1e-3),
        device=torch.device("cpu"),
        form="tuple",
        label="label",
    )


def fitted(seed: int, methods: list[Method], champion: VersionView | None, **rows: Any) -> Learner:
    """A learner after 300 steps at batch 64, with the best weights by validation."""
    made = learner(seed)
    with tempfile.TemporaryDirectory() as folder:
        train(
            made,
            champion=champion or VersionView(id="", weights=made.model.state_dict()),
            methods=methods,
            training=Training(
                max_steps=300, validate_every=50, batch_size=64, accelerator="cpu"
            ),
            seed=seed,
            folder=Path(folder),
            logger=None,
            show=lambda *_: None,
            warn=lambda _: None,
            **rows,
        )  # fmt: skip
    return made


def one_seed(seed: int, drift: Callable[[Any], Any]) -> dict[str, tuple[float, float]]:
    """Accuracy on history and on new holdout rows, of each way to replay."""
    digits = load_digits()
    images, label = (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)

    def rows(index: Any, change: Callable[[Any], Any] = lambda x: x) -> Rows:
        names = np.array([f"{'h' if change is not drift else 'n'}-{i}" for i in index])
        features = {"x": np.ascontiguousarray(change(images[index]))}
        return Rows(features=features, label=label[index], id=names, content=names, cluster=names)

    order = np.random.default_rng(seed).permutation(len(images))
    old, new, old_valid, new_valid, old_test, new_test = np.split(
        order, [600, 900, 1050, 1200, 1500]
    )
    founded = fitted(
        seed, [], None, new=rows(old), history=None, new_validation=rows(old_valid),
        history_validation=None,
    )  # fmt: skip
    weights = {name: value.clone() for name, value in founded.model.state_dict().items()}
    found = {}
    for title, make in REPLAYS.items():
        made = fitted(
            seed, [make()], VersionView(id="m@1", weights=weights), new=rows(new, drift),
            history=rows(old), new_validation=rows(new_valid, drift),
            history_validation=rows(old_valid),
        )  # fmt: skip
        scores = made.score({"history": rows(old_test), "new": rows(new_test, drift)})
        found[title] = (scores["history"], scores["new"])
    return found


def main() -> None:
    """Print a table and the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    table, bars = [], []
    for name, drift in DRIFTS.items():
        seeds = [one_seed(seed, drift) for seed in range(chosen.seeds)]
        means = {title: 100 * np.mean([s[title] for s in seeds], axis=0) for title in REPLAYS}
        for title, (history, new) in means.items():
            print(f"{name:14} {title:30} history {history:5.1f}  new {new:5.1f}", flush=True)
            table.append({"drift": name, "replay": title, "history": history, "new": new})
        best = max(float(value.mean()) for value in means.values())
        short = best - float(means["joint"].mean())
        bars.append(bar(f"{name}: the default below the best, points", short, 1.0, higher=False))
    finish(table, bars, chosen.json)


if __name__ == "__main__":
    main()
