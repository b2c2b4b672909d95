"""Rows for tests of drift."""

from __future__ import annotations

from typing import Any

import numpy as np

from perennial.data.columns import TEXT
from perennial.data.preprocess import Table
from perennial.data.rows import Rows
from perennial.monitoring.reference import Reference, sample

SCHEMA = {"a": "float32 ()", "b": "float32 ()", "city": "str ()"}
CITIES = np.array(["Bern", "Oslo", "Rome"]).astype(TEXT)


def columns(count: int, seed: int, *, shift: float = 0.0, tied: float = 0.0) -> dict[str, Any]:
    """Two normal columns, of a shift and a correlation, and one of categories."""
    generator = np.random.default_rng(seed)
    a, b = generator.normal(size=(2, count))
    return {
        "a": (a + shift).astype(np.float32),
        "b": (tied * a + np.sqrt(1 - tied**2) * b).astype(np.float32),
        "city": CITIES[generator.choice(3, count, p=[0.6, 0.3, 0.1])],
    }


def rows(features: dict[str, Any], *, time: Any = None, first: int = 0) -> Rows:
    """Rows of these columns, numbered from ``first``."""
    count = len(next(iter(features.values())))
    names = np.array([f"{number:08}" for number in range(first, first + count)])
    label = np.zeros(count, dtype=np.int64)
    return Rows(features=features, label=label, id=names, content=names, cluster=names, time=time)


def reference(given: Rows, *, held: int = 0, schema: Any = SCHEMA, **settings: Any) -> Reference:
    """What a version would carry of them, the last ones held out."""
    cut = len(given) - held
    parts = {"train": given.take(slice(0, cut)), "holdout": given.take(slice(cut, None))}
    found = sample(
        parts,
        **{"capacity": 10_000, "seed": 0, "schema": schema, "preprocess": Table(), **settings},
    )
    assert found is not None
    return found
