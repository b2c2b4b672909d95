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
    cast = {"sql": "select a, 'a:b ? %s' as b, label from visits where b > 2", "url": shop}
    assert open_source(cast, name="new").to_dict() == {
        "a": [3],
        "b": ["a:b ? %s"],
        "label": ["cat"],
    }


@pytest.mark.parametrize(
    "query",
    [
        "drop table visits",
        "delete from visits returning *",
        "select 1; drop table visits",
        "-- don't\n select 1; drop table visits -- '",
        "select '\\'; drop table visits --'",
        "with x as (select 1) delete from visits returning *",
        "pragma user_version = 3",
        "attach 'other.db' as other",
        "",
    ],
)
def test_a_query_changes_nothing(
    tmp_path: Path, shop: str, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / "shop.db").read_bytes()
    with pytest.raises(DataError, match=r"one statement that reads|query failed"):
        open_source({"sql": query, "url": shop}, name="new")
    assert (tmp_path / "shop.db").read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["shop.db"]


@pytest.mark.parametrize(
    "query",
    [
        " SELECT a, label from visits ; ",
        "-- a; b\nselect a, ';' as b, label from visits /* ; */",
        "with x as (select * from visits) select * from x",
        "values (1, 'a')",
    ],
)
def test_a_query_may_be_written_as_one_likes(shop: str, query: str) -> None:
    assert len(open_source({"sql": query, "url": shop}, name="new"))


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no database .*shpo\.db"):
        open_source({"sql": "select 1", "url": f"sqlite:///{tmp_path}/shpo.db"}, name="new")
    url = f"sqlite:///file:{tmp_path}/shpo.db?uri=true"
    with pytest.raises(DataError, match="The query failed"):
        open_source({"sql": "select 1", "url": url}, name="new")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("query", ["select b::int from visits", "select :b from visits"])
def test_a_colon_is_told_to_be_a_parameter(shop: str, query: str) -> None:
    with pytest.raises(DataError, match="is a parameter, and none is given"):
        open_source({"sql": query, "url": shop}, name="new")


@pytest.mark.parametrize(
    "spec",
    [
        {"sql": "select 1", "url": "postgresql+psycopg://me:hunter2@localhost:1/shop"},
        {"sql": "select 1", "url": "postgresql+psycopg://localhost:1/d?user=me&password=hunter2"},
        {"sql": "select 1", "url": "postgresql+psycopg://localhost:1/d?sslpassword=hunter2"},
        {"sql": "select 1", "url": "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dhunter2"},
        {"sql": "select 1", "url": "no address://me:hunter2@localhost:x/shop"},
        {"SQL": "select 1", "url": "postgresql+psycopg://me:hunter2@localhost:1/shop"},
        {"SQL": "select 1", "password": "hunter2"},
        "postgresql://me:hunter2@localhost:1/shop",
    ],
    ids=str,
)
def test_a_password_is_neither_shown_nor_kept(spec: object) -> None:
    assert "hunter2" not in shown(spec)
    assert "hunter2" not in str(remembered(spec))
    with pytest.raises(DataError) as error:
        open_source(spec, name="new")
    assert "hunter2" not in str(error.value)


def test_what_is_no_query_is_remembered_or_not_without_an_error() -> None:
    for spec in (
        {"sql": "select 1"},
        {"sql": "select 1", "url": "?"},
        {"sql": "select 1", "url": 5},
    ):
        assert remembered(spec) == spec
        with pytest.raises(DataError):
            open_source(spec, name="new")


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
