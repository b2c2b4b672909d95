"""Text files, queries, dated partitions and compressed files give the rows they should."""

from __future__ import annotations

import bz2
import gzip
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from perennial.data.opening import open_source, remembered, shown
from perennial.data.partitions import covers, is_exhausted, is_partitioned, resolved
from perennial.data.source import read_rows
from perennial.errors import DataError

FRAME = pd.DataFrame({"a": [1.5, -0.5, 3.0], "b": [1, 2, 3], "label": ["cat", "dog", "cat"]})


def fingerprint(spec: object) -> str:
    return read_rows(open_source(spec, name="new"), name="new").fingerprint


@pytest.mark.parametrize("opener", [gzip.open, bz2.open], ids=["gz", "bz2"])
def test_compressed_files(tmp_path: Path, opener: object) -> None:
    FRAME.to_csv(tmp_path / "x.csv", index=False)
    FRAME.to_csv(tmp_path / "x.tsv", index=False, sep="\t")
    FRAME.to_json(tmp_path / "x.jsonl", orient="records", lines=True)
    FRAME.to_json(tmp_path / "x.json", orient="records")
    expected = fingerprint(tmp_path / "x.csv")
    end = "gz" if opener is gzip.open else "bz2"
    for name in ("x.csv", "x.tsv", "x.jsonl", "x.json"):
        with opener(tmp_path / f"{name}.{end}", "wb") as file:  # type: ignore[operator]
            file.write((tmp_path / name).read_bytes())
        assert fingerprint(tmp_path / f"{name}.{end}") == expected, name


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters(tmp_path: Path, delimiter: str) -> None:
    FRAME.to_csv(tmp_path / "x.csv", index=False)
    FRAME.to_csv(tmp_path / "y.csv", index=False, sep=delimiter)
    assert fingerprint(tmp_path / "y.csv") == fingerprint(tmp_path / "x.csv")


def test_lines_of_text(tmp_path: Path) -> None:
    for name, text in {
        "cat.txt": "purrs\n\nsleeps a lot\n",
        "dog.txt": "\ufeffbarks\r\n",
    }.items():
        (tmp_path / "one").mkdir(exist_ok=True)
        (tmp_path / "one" / name).write_bytes(text.encode())
        folder = tmp_path / "two" / "train" / name.partition(".")[0]
        folder.mkdir(parents=True)
        (folder / "part.txt").write_bytes(text.encode())
    expected = {"text": ["purrs", "sleeps a lot", "barks"], "label": ["cat", "cat", "dog"]}
    assert open_source(tmp_path / "one", name="new").to_dict() == expected
    two = open_source(tmp_path / "two", name="new").to_dict()
    assert two == {**expected, "split": ["train"] * 3}
    assert open_source(tmp_path / "one" / "dog.txt", name="new").to_dict() == {"text": ["barks"]}


@pytest.fixture
def shop(tmp_path: Path) -> str:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        FRAME.to_sql("visits", connection, index=False)
    return f"sqlite:///{path}"


def test_a_query(tmp_path: Path, shop: str) -> None:
    FRAME.to_csv(tmp_path / "x.csv", index=False)
    spec = {"sql": "select * from visits", "url": shop}
    assert fingerprint(spec) == fingerprint(tmp_path / "x.csv")
    assert remembered(spec) == spec
    few = open_source({"sql": "select a, label from visits where b > 1", "url": shop}, name="new")
    assert few.to_dict() == {"a": [-0.5, 3.0], "label": ["dog", "cat"]}
    open_source({"sql": "delete from visits returning *", "url": shop}, name="new")
    assert fingerprint(spec) == fingerprint(tmp_path / "x.csv")  # nothing was changed


def test_a_password_is_neither_shown_nor_kept(shop: str) -> None:
    spec = {"sql": "select 1", "url": "postgresql://me:secret@localhost:1/shop"}
    assert "secret" not in shown(spec)
    assert remembered(spec) is None
    with pytest.raises(DataError, match="The query failed") as error:
        open_source(spec, name="new")
    assert "secret" not in str(error.value)


@pytest.fixture
def days(tmp_path: Path) -> Path:
    folder = tmp_path / "days"
    for day in (1, 2, 3):
        one = folder / f"dt=2026-11-0{day}"
        one.mkdir(parents=True)
        FRAME.assign(a=float(day)).to_parquet(one / "part.parquet", index=False)
    return folder


def values(spec: object) -> list[float]:
    return sorted(set(open_source(spec, name="new")["a"]))


def test_partitions_in_range(days: Path, tmp_path: Path) -> None:
    assert is_partitioned(days)
    assert values(days) == [1, 2, 3]
    assert values({"partitions": str(days), "after": "2026-11-01"}) == [2, 3]
    assert values({"partitions": str(days), "until": "2026-11-01"}) == [1]
    dated = open_source({"partitions": str(days), "column": "day"}, name="new")
    assert sorted(set(dated["day"])) == ["2026-11-01", "2026-11-02", "2026-11-03"]
    flat = tmp_path / "flat"
    flat.mkdir()
    for hour in (5, 6):
        FRAME.assign(a=float(hour)).to_csv(flat / f"2026-11-01T0{hour}.csv.gz", index=False)
    assert values({"partitions": str(flat), "after": "2026-11-01T05"}) == [6]
    (flat / "notes.csv").write_text("a\n1\n")
    assert not is_partitioned(flat)


def test_new_is_what_came_after_the_last_partition(days: Path) -> None:
    folder = str(days)
    history = resolved({"partitions": folder, "until": "2026-11-02"}, [], new=False)
    assert history == {"partitions": folder, "until": "2026-11-02"}
    new = resolved(days, ["elsewhere.csv", history], new=True)
    assert new == {"partitions": folder, "after": "2026-11-02", "until": "2026-11-03"}
    assert values(new) == [3]
    assert not is_exhausted(new)
    known = [history, new]
    assert is_exhausted(resolved(days, known, new=True))
    (days / "dt=2026-11-04").mkdir()
    FRAME.assign(a=4.0).to_parquet(days / "dt=2026-11-04" / "x.parquet", index=False)
    assert values(resolved(folder, known, new=True)) == [4]
    assert resolved(folder, known, new=False)["until"] == "2026-11-03"
    assert resolved("week.csv", known, new=True) == "week.csv"


def test_one_source_may_stand_for_several_cycles(days: Path) -> None:
    folder = str(days)
    whole = {"partitions": folder, "until": "2026-11-03"}
    assert covers(whole, {"partitions": folder, "after": "2026-11-01", "until": "2026-11-03"})
    assert not covers(
        {**whole, "after": "2026-11-01"}, {"partitions": folder, "until": "2026-11-02"}
    )
    assert not covers(whole, {"partitions": folder, "until": "2026-11-04"})
    assert not covers(whole, {"partitions": folder + "2", "until": "2026-11-01"})
    assert covers("a.csv", "a.csv")
    assert not covers("a.csv", whole)
