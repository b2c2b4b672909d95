"""A version's stored predictions without some of its rows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perennial.data.store import read_rows_file, write_rows
from perennial.promotion import best, predictions
from perennial.steps.judge import distinct
from perennial.steps.rewrite import Rewriter
from support.learners import rows


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


def test_an_empty_index_of_a_cycle_stays_and_an_empty_holdout_does_not(tmp_path: Path) -> None:
    index, holdout = "rows/cycle-1.arrow", "holdout/cycle-1.arrow"
    files = {path: tmp_path / path.replace("/", "-") for path in (index, holdout)}
    known = {
        index: write_rows(files[index], rows(4), {"role": np.array(["holdout"] * 4)}),
        holdout: write_rows(files[holdout], rows(4)),
    }
    staged: list[int] = []

    def stage(path: Path) -> str:
        staged.append(len(read_rows_file(path)[0]))
        return "new"

    version: Any = SimpleNamespace(id="a@1", files=known, open=files.__getitem__)
    (tmp_path / "new").mkdir()
    rewriter = Rewriter(frozenset("0123"), frozenset(), tmp_path / "new", stage)
    assert rewriter.version(version) == {index: "new"}
    assert staged == [0]
    assert rewriter.holdouts(version) == {"cycle-1": (4, 0)}
    assert rewriter.roles([version]) == {"train": 0, "validation": 0, "holdout": 4}
