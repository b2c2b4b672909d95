"""Rows per CPU-second through the whole data path, against a DataLoader over the same rows.

python benchmarks/data_path.py --rounds 7 --json data_path.json

Rows are 784 bytes. Both sides give what a model takes, float32 in [0, 1] and int64 targets, in a
new random order each epoch: Perennial with ids, origins and replay of 80%, the DataLoader, with its
batched ``__getitems__``, without them. Memory-mapped columns lie in a file in the page cache.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from harness import MLP, bar, finish, interleaved, ratios
from torch.utils.data import DataLoader

from perennial.data.datamodule import TrainLoader
from perennial.data.mixing import draw
from perennial.data.pool import Pools
from perennial.data.rows import Rows

BATCH, NEW = 128, 26
SHAPE = (1, 28, 28)
FEW, MANY = 100_000, 100_000_000


def images(count: int, *, seed: int) -> Rows:
    """Rows of 784 bytes with ids as long as content hashes."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    ids = np.array([f"{seed}{number:031d}" for number in range(count)])
    label = generator.integers(0, 10, count)
    return Rows(features={"image": pixels}, label=label, id=ids, content=ids, cluster=ids)


def mapped(rows: Rows, path: Path) -> Rows:
    """The same rows, their pixels in a file that is memory-mapped."""
    np.save(path, rows.features["image"])
    features = {"image": np.load(path, mmap_mode="r")}
    return Rows(
        features=features, label=rows.label, id=rows.id, content=rows.content, cluster=rows.cluster
    )


def loader(new: Rows, history: Rows | None) -> TrainLoader:
    """Perennial's, with 20% of new rows where there is history."""
    fresh = BATCH if history is None else NEW
    return TrainLoader(
        pools=Pools(new, history, form="tuple", label="label"),
        new_per_batch=fresh,
        replayed_per_batch=BATCH - fresh,
        seed=0,
    )


def reference(rows: Rows, path: Path) -> DataLoader[Any]:
    """A DataLoader over a memory-mapped, formatted Dataset, which fetches a batch at once."""
    flat = pa.array(rows.features["image"].reshape(-1))
    columns = {
        "image": pa.FixedSizeListArray.from_arrays(flat, 784),
        "label": pa.array(rows.label),
    }
    datasets.Dataset(datasets.table.InMemoryTable(pa.table(columns))).save_to_disk(str(path))
    dataset = datasets.load_from_disk(str(path)).with_format("torch")
    return DataLoader(dataset, batch_size=BATCH, shuffle=True, collate_fn=_joined)


def _joined(items: list[dict[str, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.stack([item["image"] for item in items])
    labels = torch.stack([item["label"] for item in items])
    return pixels.view(-1, *SHAPE).float() / 255, labels.long()


def endless(batches: Any) -> Iterator[Any]:
    """Epoch after epoch."""
    return itertools.chain.from_iterable(itertools.repeat(batches))


def consumed(stream: Iterator[Any], steps: int) -> Callable[[], None]:
    """Takes so many batches."""

    def take() -> None:
        for _ in range(steps):
            next(stream)

    return take


def trained(stream: Iterator[Any], steps: int) -> Callable[[], None]:
    """So many AdamW steps of the 478 k MLP."""
    torch.manual_seed(0)
    model = MLP()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def train() -> None:
        for _ in range(steps):
            images, labels = next(stream)
            optimizer.zero_grad()
            F.cross_entropy(model(images.flatten(1)), labels).backward()
            optimizer.step()

    return train


def drawn(history_rows: int, steps: int) -> Callable[[], None]:
    """So many index vectors for a batch, one after another."""
    place = itertools.count()

    def sample() -> None:
        for _ in range(steps):
            draw(
                seed=0,
                epoch=0,
                batch=next(place) % (history_rows // BATCH),
                new_rows=history_rows,
                history_rows=history_rows,
                new_per_batch=NEW,
                replayed_per_batch=BATCH - NEW,
            )

    return sample


def main() -> None:
    """Print a table and the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    new, history = images(chosen.rows // 4, seed=0), images(chosen.rows, seed=1)
    steps = chosen.steps
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        new_mapped, history_mapped = (
            mapped(rows, at / f"{name}.npy") for name, rows in (("new", new), ("old", history))
        )
        mixed = loader(new, history)
        # the reference takes a tenth of the batches: it is that much slower
        paths = {
            "reference": consumed(endless(reference(history, at / "dataset")), steps // 10),
            "mapped": consumed(endless(loader(new_mapped, history_mapped)), steps),
            "resident": consumed(endless(mixed), steps),
        }
        taken = interleaved(paths, rounds=chosen.rounds)
    found = {name: 10 / ratio for name, ratio in ratios(taken, to="reference").items()}
    rates = {
        name: max((steps if name != "reference" else steps // 10) * BATCH / t for t in times)
        for name, times in taken.items()
    }
    work = {
        "plain": trained(endless(loader(history, None)), steps // 4),
        "mixed": trained(endless(loader(new, history)), steps // 4),
    }
    step = ratios(interleaved(work, rounds=2 * chosen.rounds), to="plain")["mixed"]
    sampled = interleaved(
        {"few": drawn(FEW, steps), "many": drawn(MANY, steps)}, rounds=2 * chosen.rounds
    )
    size = ratios(sampled, to="few")["many"]
    for name, rate in rates.items():
        print(f"{name:10} {rate:12,.0f} rows per CPU-second at best")
    rows = [{"path": name, "rows_per_cpu_second": rate} for name, rate in rates.items()]
    bars = [
        bar("memory-mapped over DataLoader", found["mapped"], 5, higher=True),
        bar("resident over DataLoader", found["resident"], 20, higher=True),
        bar("mixed 20/80 over plain, training step", step, 1.03, higher=False),
        bar("100 M over 100 k rows, sampling", size, 1.1, higher=False),
    ]
    finish(rows, bars, chosen.json)


if __name__ == "__main__":
    main()
