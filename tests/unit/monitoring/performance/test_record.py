"""Predictions that wait for their labels: kept to the last bit, joined by id, bounded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perennial.data.forgotten import Forgotten, hashed
from perennial.data.selection import priorities
from perennial.errors import DataError
from perennial.monitoring.performance import (
    Record,
    join,
    read,
    recorded,
    refuse_backwards,
    to_bytes,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
TEXT = np.dtypes.StringDType()


def names(rows: int, prefix: str = "r") -> Any:
    return np.array([f"{prefix}{row}" for row in range(rows)])


def made(rows: int = 40, prefix: str = "r", **changes: Any) -> Record:
    settings: dict[str, Any] = {
        "confidence": np.linspace(0.5, 1, rows), "time": np.arange(rows), "now": NOW,
        "where": "data.new",
    }  # fmt: skip
    return recorded(names(rows, prefix), np.arange(rows) % 3, **(settings | changes))


@pytest.mark.parametrize(
    "time",
    [
        None,
        np.arange(6) / 2,
        np.arange("2026-01-01", "2026-01-07", dtype="datetime64[D]"),
        np.array(["a", "b", "c", "d", "e", "ä"], dtype=TEXT),
    ],
)
@pytest.mark.parametrize("predicted", [np.arange(6), np.ones((6, 3), np.int8)])
def test_a_file_gives_back_what_was_recorded(time: Any, predicted: Any, tmp_path: Path) -> None:
    record = recorded(
        names(6), predicted, confidence=None, time=time, now=NOW, where="data.new", bound=4
    )
    record = join({"w": record}, record.id[:2], np.array([0.5, 1]), now=NOW, where="l").changed["w"]
    (tmp_path / "file").write_bytes(to_bytes(record))
    found = read(tmp_path / "file")
    assert to_bytes(found) == to_bytes(record)
    for name in ("id", "predicted", "confidence", "score", "scored_at", "time"):
        one, other = getattr(found, name), getattr(record, name)
        assert (one is None and other is None) or one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert (found.recorded_at, found.rows, found.cutoff) == (NOW, 6, record.cutoff)


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    content = to_bytes(made())
    for damaged in (b"", content[: len(content) // 2], b"x" * 100):
        (tmp_path / "file").write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read"):
            read(tmp_path / "file")


def test_labels_are_joined_by_id_whenever_they_come() -> None:
    records = {"a": made(), "b": made(prefix="s", now=NOW + DAY)}
    ids = np.array(["s3", "r7", "r1"])
    first = join(records, ids, np.array([0.0, 1.0, 0.0]), now=NOW + DAY, where="labels")
    assert (first.scored, first.again, first.passed) == (3, 0, 0)
    assert set(first.changed) == {"a", "b"}
    assert first.changed["a"].score[[7, 1]].tolist() == [1.0, 0.0]
    assert first.changed["b"].score[3] == 0.0
    assert np.isnan(first.changed["a"].score).sum() == 38
    assert str(first.changed["a"].scored_at[7]) == "2026-03-02T12:00:00.000000"
    assert np.isnan(records["a"].score).all(), "a record is a value"
    # again: nothing changes
    later = {**records, **first.changed}
    second = join(later, ids, np.array([0.0, 1.0, 0.0]), now=NOW + 2 * DAY, where="labels")
    assert second.changed == {}
    assert (second.scored, second.again) == (0, 3)
    # corrected: the score is new, and when the row was first scored is not
    third = join(later, ids[1:2], np.array([0.25]), now=NOW + 3 * DAY, where="labels")
    assert third.changed["a"].score[7] == 0.25
    assert third.changed["a"].scored_at[7] == first.changed["a"].scored_at[7]


def test_labels_of_rows_never_predicted_are_counted_and_named() -> None:
    records = {"a": made()}
    with pytest.raises(DataError, match=r"2 of 3 labels .* for: 'x', 'y'") as error:
        join(records, np.array(["x", "r1", "y"]), np.ones(3), now=NOW, where="labels.csv")
    assert "labels.csv" in str(error.value)
    assert "data.id_column" in str(error.value)
    with pytest.raises(DataError, match=r"'x0', 'x1', 'x2', 'x3', 'x4', …"):
        join(records, names(9, "x"), np.ones(9), now=NOW, where="labels.csv")
    with pytest.raises(DataError, match="1 of 1"):
        join({}, np.array(["r1"]), np.ones(1), now=NOW, where="labels.csv")


def test_a_large_window_is_sampled_and_its_labels_are_not_called_unknown() -> None:
    record = made(5000, bound=500)
    assert (len(record), record.rows) == (500, 5000)
    assert set(record.id) < set(names(5000))
    positions = np.array([int(one[1:]) for one in record.id])
    assert (np.diff(positions) > 0).all(), "in their order"
    assert positions.mean() == pytest.approx(2500, abs=4 * 5000 / np.sqrt(12 * 500))
    np.testing.assert_array_equal(record.predicted, positions % 3)
    found = join({"w": record}, names(5000), np.ones(5000), now=NOW, where="labels")
    assert (found.scored, found.passed) == (500, 4500)
    # of rows that would have been kept it is sure
    with pytest.raises(DataError, match="labels are of rows that no recorded window"):
        join({"w": record}, names(200, "other"), np.ones(200), now=NOW, where="labels")


def test_forgotten_rows_are_neither_recorded_nor_scored() -> None:
    forgotten = Forgotten("00" * 16, frozenset(hashed(["r1", "gone"], "00" * 16)), 1)
    record = made(forgotten=forgotten)
    assert len(record) == 39
    assert "r1" not in record.id
    found = join(
        {"w": record}, np.array(["r1", "r2", "gone"]), np.ones(3), now=NOW, where="labels",
        forgotten=forgotten,
    )  # fmt: skip
    assert (found.scored, found.passed) == (1, 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"confidence": np.full(40, 1.5)}, "not between 0 and 1"),
        ({"confidence": np.full(40, np.nan)}, "not between 0 and 1"),
        ({"time": np.full(40, np.nan)}, "40 of 40 rows have no time"),
        ({"time": np.full(40, "NaT", dtype="datetime64[s]")}, "40 of 40 rows have no time"),
    ],
)
def test_a_window_that_cannot_be_recorded_is_said(changes: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        made(**changes)


def test_ids_that_are_there_twice_and_no_rows_are_said() -> None:
    with pytest.raises(DataError, match=r"1 row ids of the window .* first 'a'"):
        recorded(np.array(["a", "a", "b"]), np.arange(3), now=NOW, where="data.new")
    with pytest.raises(DataError, match="no rows"):
        recorded(np.array([], dtype=str), np.arange(0), now=NOW, where="data.new")
    with pytest.raises(DataError, match="1 row ids of the labels"):
        join({"w": made()}, np.array(["r1", "r1"]), np.ones(2), now=NOW, where="labels")
    with pytest.raises(DataError, match="1 of 2 scores are not finite"):
        join({"w": made()}, names(2), np.array([1, np.nan]), now=NOW, where="labels")


def test_neither_the_clock_nor_the_rows_go_backwards() -> None:
    earlier = [made(time=np.arange(100, 140))]
    refuse_backwards([], made(), where="data.new")
    refuse_backwards(earlier, made(time=np.arange(120, 160), now=NOW + DAY), where="data.new")
    with pytest.raises(DataError, match="The clock reads 2026-02-28 12:00:00"):
        refuse_backwards(earlier, made(time=np.arange(200, 240), now=NOW - DAY), where="data.new")
    with pytest.raises(DataError, match="ends at 39, and rows up to 139"):
        refuse_backwards(earlier, made(now=NOW + DAY), where="data.new")
    for time in (None, np.array(["a"] * 40, dtype=TEXT)):
        with pytest.raises(DataError, match="those recorded before have times as numbers"):
            refuse_backwards(earlier, made(time=time, now=NOW + DAY), where="data.new")


def test_a_label_of_a_sampled_window_is_passed_over_beside_a_whole_one() -> None:
    sampled, whole = made(1000, bound=100), made(40, "other")
    left_out = np.setdiff1d(names(1000), sampled.id)
    ids = np.array([whole.id[0], sorted(left_out, key=priority)[-1]])
    for records in ({"a": sampled, "b": whole}, {"b": whole, "a": sampled}):
        found = join(records, ids, np.ones(2), now=NOW, where="labels")
        assert (found.scored, found.passed) == (1, 1)


def priority(row: str) -> int:
    return int(priorities(np.array([row]), seed=0)[0])
