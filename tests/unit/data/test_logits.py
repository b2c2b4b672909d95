"""Logits that rows are kept with: by id, by class name, and never made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perennial.data.datamodule import TrainLoader
from perennial.data.logits import aligned, lacking, put, recalled, widened, without_logits
from perennial.data.memory import Memory
from perennial.data.pool import Pools
from perennial.data.rows import OWN, UNKNOWN, Rows, concatenate
from perennial.data.store import read_rows_file, write_rows
from support.remembered import shown


def rows(*names: str, logits: Any = None, version: Any = None) -> Rows:
    ids = np.array(names)
    return Rows(
        features={"x": np.arange(len(ids), dtype=np.float32)[:, None]},
        label=np.zeros(len(ids), dtype=np.int64),
        id=ids,
        content=ids,
        cluster=ids,
        logits=None if logits is None else np.asarray(logits),
        logits_version=None if version is None else np.asarray(version, dtype=np.int32),
    )


def same(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(found, np.asarray(expected, dtype=found.dtype))


NAN = np.nan
KNOWN = rows("a", "b", "c", logits=[[1.0, 2.0], [NAN, NAN], [5.0, 6.0]], version=[4, UNKNOWN, OWN])


def test_columns_are_matched_by_name() -> None:
    logits = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, NAN]], dtype=np.float16)
    found = aligned(logits, ["cat", "dog", "eel"], ["eel", "fox", "cat"])
    assert found.dtype == np.float16
    same(found, [[3.0, NAN, 1.0], [NAN, NAN, 4.0]])
    assert aligned(logits, ["cat", "dog", "eel"], ("cat", "dog", "eel")) is logits


def test_rows_are_recalled_by_id_and_keep_their_own() -> None:
    source = rows("c", "x", "a", "b", "c")
    found = recalled(source, KNOWN)
    same(found.logits, [[5, 6], [NAN, NAN], [1, 2], [NAN, NAN], [5, 6]])
    same(found.logits_version, [OWN, UNKNOWN, 4, UNKNOWN, OWN])
    assert lacking(found).tolist() == [False, True, False, True, False]
    own = rows("a", "c", logits=[[8.0, 9.0], [NAN, NAN]], version=[7, UNKNOWN])
    again = recalled(own, KNOWN)
    same(again.logits, [[8, 9], [5, 6]])
    same(own.logits, [[8, 9], [NAN, NAN]])
    for none in (rows("a", "b"), rows(), KNOWN.take(slice(1, 2))):
        assert recalled(source, none) is source


def test_rows_with_and_without_logits_go_together() -> None:
    found = concatenate([rows("x", "y"), KNOWN, rows("z")])
    same(found.logits, [[NAN, NAN]] * 2 + KNOWN.logits.tolist() + [[NAN, NAN]])
    same(found.logits_version, [-1, -1, 4, -1, 0, -1])
    assert found.logits_version.dtype == np.int32
    assert found.take(np.array([4])).logits.tolist() == [[5, 6]]
    assert concatenate([rows("x"), rows("y")]).logits is None
    assert without_logits(found).logits is None


def test_putting_logits_copies_and_classes_are_appended() -> None:
    found = put(KNOWN, lacking(KNOWN), np.array([[3.0, 4.0]]), 9)
    same(found.logits, [[1, 2], [3, 4], [5, 6]])
    same(found.logits_version, [4, 9, 0])
    assert np.isnan(KNOWN.logits[1]).all()
    same(widened(KNOWN.logits, 3), [[1, 2, NAN], [NAN, NAN, NAN], [5, 6, NAN]])


def test_memory_keeps_the_logits_that_a_row_was_remembered_with() -> None:
    later = rows("a", "d", logits=[[7.0, 7.0], [8.0, 8.0]], version=[9, 9])
    found = shown(Memory(capacity=10), KNOWN, later)
    by_id = dict(zip(found.id.tolist(), found.logits.tolist(), strict=True))
    assert by_id["a"] == [1, 2]
    assert by_id["d"] == [8, 8]
    bare = shown(Memory(capacity=10), KNOWN, rows("d"))
    assert lacking(bare)[bare.id == "d"].all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_file_names_the_columns(tmp_path: Path, dtype: str) -> None:
    before = replace(KNOWN, logits=KNOWN.logits.astype(dtype))
    path = tmp_path / "memory.arrow"
    digest = write_rows(path, before, label_names=["no", "yes"])
    assert write_rows(tmp_path / "again.arrow", before, label_names=["no", "yes"]) == digest
    assert write_rows(tmp_path / "other.arrow", before, label_names=["yes", "no"]) != digest
    found, extra = read_rows_file(path, label_names=["no", "yes"])
    assert extra == {}
    assert found.logits.dtype == dtype
    same(found.logits, before.logits)
    same(found.logits_version, before.logits_version)
    turned, _ = read_rows_file(path, label_names=["new", "yes", "no"])
    same(turned.logits, [[NAN, 2, 1], [NAN, NAN, NAN], [NAN, 6, 5]])
    assert read_rows_file(path)[0].logits is None
    write_rows(path, rows("a"))
    assert read_rows_file(path, label_names=["no", "yes"])[0].logits is None


def test_replayed_rows_of_a_batch_bring_theirs() -> None:
    history = put(KNOWN, lacking(KNOWN), np.array([[3.0, 4.0]]), 9)
    loader = TrainLoader(
        pools=Pools(rows("x", "y"), history, form="tuple", label="label"),
        new_per_batch=2, replayed_per_batch=3, seed=0,
    )  # fmt: skip
    batch = loader.batch(0, 0)
    assert batch.logits is not None
    table = dict(zip(history.id.tolist(), history.logits.tolist(), strict=True))
    expected = [table.get(name, [NAN, NAN]) for name in batch.ids.tolist()]
    same(batch.logits.numpy(), expected)
    assert np.isnan(batch.logits.numpy()[batch.is_new]).all()
