"""A version's stored predictions without some of its rows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perennial.promotion import best, predictions
from perennial.steps.judge import distinct
from perennial.steps.rewrite import Rewriter


def test_copies_of_a_row_without_an_id_of_its_own_go_with_it(tmp_path: Path) -> None:
    gone, kept = "a" * 32, "b" * 32
    ids = distinct(np.array([gone, kept, gone, kept, gone]))
    files = {}
    for number, path in enumerate((predictions.ROWS, best.FILE)):
        files[path] = tmp_path / path.replace("/", "-")
        pq.write_table(
            pa.table({"row_id": ids.tolist(), "score": [number] * len(ids)}), files[path]
        )
    staged: dict[str, list[str]] = {}

    def stage(path: Path) -> str:
        staged[name := f"new {len(staged)}"] = pq.read_table(path)["row_id"].to_pylist()
        return name

    version: Any = SimpleNamespace(
        id="a@1",
        files={path: f"sha-{number}" for number, path in enumerate(files)},
        open=files.__getitem__,
    )
    (tmp_path / "new").mkdir()
    rewriter = Rewriter(frozenset({gone}), frozenset(), tmp_path / "new", stage)
    assert rewriter.version(version) == {predictions.ROWS: "new 0", best.FILE: "new 1"}
    assert staged == {name: [kept, f"{kept}#2"] for name in ("new 0", "new 1")}
