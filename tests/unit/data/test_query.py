"""Rows that a query names, and tombstones that keep them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perennial.data.columns import TEXT
from perennial.data.forgotten import Forgotten, hashed, without_forgotten
from perennial.data.query import Named, Query, matching
from perennial.data.rows import Rows
from perennial.data.source import SourceRows
from perennial.data.store import keep_rows, read_rows_file, row_ids, write_rows
from perennial.errors import ConfigError

ROWS = Rows(
    features={
        "age": np.array([1, 2, 3, 2], dtype=np.int8),
        "rate": np.array([0.1, 0.2, 0.1, 0.3], dtype=np.float32),
        "flag": np.array([True, False, True, False]),
        "account": np.array([2**53, 2**53 + 1, 2**53 + 2, 0], dtype=np.int64),
        "pixel": np.array([0, 44, 255, 1], dtype=np.uint8),
        "town": np.array(["a", "bb", "a", ""], dtype=TEXT),
        "image": np.zeros((4, 2, 2), dtype=np.uint8),
    },
    label=np.array([0, 1, 1, 0]),
    id=np.array(["r1", "r2", "r3", "r4"]),
    content=np.array(["c1", "c2", "c3", "c4"]),
    cluster=np.array(["u1", "u1", "u2", "u3"]),
    logits=np.arange(8, dtype=np.float16).reshape(4, 2),
    logits_version=np.array([0, 1, 1, -1], dtype=np.int32),
    slices={"plan": np.array(["x", "y", "y", "x"])},
)
NAMED = Named(id="rid", group="user", label="animal", label_names=("cat", "dog"))


def where(column: str, value: str) -> Query:
    return Query("where", column=column, value=value)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query("ids", ids=frozenset({"r2", "r9"})), [1]),
        (where("rid", "r3"), [2]),
        (where("user", "u1"), [0, 1]),
        (where("animal", "dog"), [1, 2]),
        (where("plan", "y"), [1, 2]),
        (where("age", "2"), [1, 3]),
        (where("age", "2.0"), [1, 3]),
        (where("age", "2.5"), []),
        (where("age", "1e999999999"), []),
        (where("age", "nan"), []),
        (where("account", str(2**53 + 1)), [1]),
        (where("pixel", "300"), []),
        (where("pixel", "-1"), []),
        (where("flag", "1"), [0, 2]),
        (where("flag", "2"), []),
        (where("rate", "0.1"), [0, 2]),
        (where("town", "a"), [0, 2]),
        (where("town", "b"), []),
        (where("town", ""), [3]),
    ],
)
def test_rows_are_found(query: Query, expected: list[int]) -> None:
    found = matching(ROWS, query, NAMED)
    assert found is not None
    assert np.flatnonzero(found).tolist() == expected


def test_what_is_kept_without_the_column_was_not_looked_at() -> None:
    assert matching(ROWS, where("weight", "1"), NAMED) is None
    assert NAMED.of_every_row == ["rid", "user", "animal"]
    assert Named(id=None, group=None, label="score").of_every_row == []


@pytest.mark.parametrize(("column", "words"), [("image", "not one value"), ("age", "none")])
def test_what_cannot_be_compared_is_refused(column: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        matching(ROWS, where(column, "red"), NAMED)


@pytest.mark.parametrize("keep", [[0, 2], [], [0, 1, 2, 3]])
def test_a_file_keeps_some_rows_and_all_else(tmp_path: Path, keep: list[int]) -> None:
    mask = np.isin(np.arange(4), keep)
    extra: dict[str, Any] = {"seen": np.array([1, 0, 1, 0], dtype=np.uint8)}
    write_rows(tmp_path / "a", ROWS, extra, label_names=["cat", "dog"])
    assert row_ids(tmp_path / "a").tolist() == ROWS.id.tolist()
    digest = keep_rows(tmp_path / "a", tmp_path / "b", mask)
    # as if the others had never been written, to the last bit
    taken = {name: values[mask] for name, values in extra.items()}
    direct = write_rows(tmp_path / "c", ROWS.take(mask), taken, label_names=["cat", "dog"])
    found, more = read_rows_file(tmp_path / "b", label_names=["cat", "dog"])
    assert found.id.tolist() == ROWS.id[mask].tolist()
    np.testing.assert_array_equal(found.logits, ROWS.logits[mask])
    np.testing.assert_array_equal(found.features["image"], ROWS.features["image"][mask])
    assert more["seen"].tolist() == extra["seen"][mask].tolist()
    assert (digest == direct) or len(keep) < 4


def test_tombstones_know_ids_by_salted_hashes_alone() -> None:
    salt, other = "00" * 16, "11" * 16
    forgotten = Forgotten(salt, frozenset(hashed(["r2", "r4"], salt)), 1)
    assert forgotten.mask(ROWS.id).tolist() == [False, True, False, True]
    assert not set(hashed(["r2"], salt)) & set(hashed(["r2"], other))
    assert not Forgotten().mask(ROWS.id).any()
    source = SourceRows(
        rows=ROWS,
        declared_role=np.array(["train", "test", "train", "test"]),
        time=np.arange(4),
        label_names=("cat", "dog"),
        schema={},
        fingerprint="f",
    )
    left, line = without_forgotten(source, forgotten, "new")
    assert left.rows.id.tolist() == ["r1", "r3"]
    assert left.declared_role is not None
    assert left.declared_role.tolist() == ["train", "train"]
    assert left.time is not None
    assert left.time.tolist() == [0, 2]
    assert line == "new: 2 rows left out, forgotten on request"
    assert without_forgotten(source, Forgotten(), "new") == (source, "")
