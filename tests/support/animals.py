"""A lineage of animals, whose users may ask to be forgotten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

NAMES = ("cat", "dog", "eel")
COMMON = (
    "data=files", "data.label=animal", "model_name=animals", "model.inputs=4", "model.classes=3",
    "data.features=[x0,x1,x2,x3]", "data.id_column=rid", "data.group_column=user",
    "trainer.max_steps=6", "trainer.validate_every=3", "data.memory.capacity=200", "method=der",
    "data.reference_rows=100", "gate.retention.margin=0.5", "gate.retention.total=0.5",
)  # fmt: skip


def frame(rows: int, *, seed: int, users: int = 60) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 3, size=rows)
    values = generator.normal(size=(rows, 4)).astype(np.float32)
    values[:, 0] += 4 * label
    return pd.DataFrame(
        {
            **{f"x{i}": values[:, i] for i in range(4)},
            "animal": np.array(NAMES)[label],
            "rid": [f"row-{seed}-{i:05}-" for i in range(rows)],
            "user": [f"user-{number:03}-" for number in generator.integers(0, users, size=rows)],
        }
    )


def traces(home: Path, words: list[str]) -> list[str]:
    """Files of a registry that hold any of the words, Parquet files decoded."""
    found = []
    for path in [path for path in home.rglob("*") if path.is_file()]:
        content = path.read_bytes()
        if content[:4] == b"PAR1":
            content = str(pq.read_table(path).to_pylist()).encode()
        if any(word.encode() in content for word in words):
            found.append(str(path))
    return found
