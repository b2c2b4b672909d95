from __future__ import annotations

import bz2
import gzip
from pathlib import Path
from typing import Any

import pytest

from perennial.data.memory import Memory
from perennial.data.tables import Csv, read_table
from perennial.errors import ConfigError, DataError
from perennial.steps.collect import Data

NAMES = ("x", "n", "label")
ROWS = [{"x": i / 2, "n": i, "label": "ab"[i % 2]} for i in range(30)]


def write(path: Path, *, between: str = ",", header: bool = False) -> Path:
    lines = [between.join(NAMES)] if header else []
    lines += [between.join(map(str, row.values())) for row in ROWS]
    content = ("\n".join(lines) + "\n").encode()
    packed = {".gz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix, lambda plain: plain)
    path.write_bytes(packed(content))
    return path


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("end", ["csv", "csv.gz", "csv.bz2"])
@pytest.mark.parametrize("between", [",", ";", "\t", "|"])
def test_delimiters_are_seen_and_columns_named(
    between: str, end: str, header: bool, tmp_path: Path
) -> None:
    path = write(tmp_path / f"rows.{end}", between=between, header=header)
    csv = Csv(columns=None if header else NAMES)
    assert read_table(path, where="data.new", csv=csv).to_pylist() == ROWS


@pytest.mark.parametrize(
    ("text", "csv", "expected"),
    [
        ('"a;b",c\n"1;2",3\n', Csv(), {"a;b": ["1;2"], "c": [3]}),
        ('"last, first";age\n"B, A";3\n', Csv(), {"last, first": ["B, A"], "age": [3]}),
        ("a;b\n1,5;2\n", Csv(), {"a": ["1,5"], "b": [2]}),
        ("a b\n1 2\n", Csv(delimiter=" "), {"a": [1], "b": [2]}),
        ("a,b;c\n1,2;3\n", Csv(delimiter=";"), {"a,b": ["1,2"], "c": [3]}),
        ("a\n1\n2\n", Csv(), {"a": [1, 2]}),
        ("1\n2\n", Csv(columns=("a",)), {"a": [1, 2]}),
    ],
)
def test_what_is_quoted_or_inside_a_number_separates_nothing(
    text: str, csv: Csv, expected: dict[str, list[Any]], tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text(text)
    assert read_table(tmp_path / "rows.csv", where="data.new", csv=csv).to_pydict() == expected


def test_tabs_separate_tsv_files_alone(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("1,5\t2\n")
    found = read_table(tmp_path / "rows.tsv", where="data.new", csv=Csv(columns=("a", "b")))
    assert found.to_pydict() == {"a": ["1,5"], "b": [2]}


@pytest.mark.parametrize(
    ("header", "csv", "words"),
    [
        (False, Csv(columns=("x", "n")), "rows.csv has 3 columns between ',', and data.columns"),
        (False, Csv(columns=(*NAMES, "more")), "names 4"),
        (False, Csv(columns=NAMES, delimiter=";"), "has 1 columns between ';'"),
        (True, Csv(columns=NAMES), "begins with the names of its columns"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    header: bool, csv: Csv, words: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "rows.csv", header=header)
    with pytest.raises(DataError, match=words):
        read_table(path, where="data.new", csv=csv)


@pytest.mark.parametrize(
    "options",
    [{"columns": ()}, {"columns": ("a", "a")}, {"columns": ("a", " ")}, {"delimiter": ""},
     {"delimiter": "::"}, {"delimiter": "·"}],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"data\.(columns|delimiter)"):
        Data(memory=Memory(), **options)
    with pytest.raises(ConfigError, match="no column tells the time"):
        Data(memory=Memory(), gap="7d")


@pytest.mark.parametrize("how", ["file", "folder", "partitions"])
def test_every_csv_source_is_read_the_same_way(how: str, tmp_path: Path) -> None:
    spec = {"file": "rows.csv", "folder": "rows", "partitions": "days"}[how]
    inside = {"file": "rows.csv", "folder": "rows/a.csv", "partitions": "days/2026-11-01.csv"}[how]
    (tmp_path / inside).parent.mkdir(exist_ok=True)
    write(tmp_path / inside, between=";")
    data = Data(memory=Memory(), columns=list(NAMES))
    read = data.read(str(tmp_path / spec), name="new", label_names=None)
    assert read.rows.features["x"].tolist() == [row["x"] for row in ROWS]
    assert read.label_names == ("a", "b")
