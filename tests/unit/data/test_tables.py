from __future__ import annotations

import bz2
import gzip
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perennial.data.memory import Memory
from perennial.data.opening import open_source
from perennial.data.source import read_rows
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


@pytest.mark.parametrize("end", ["json", "jsonl"])
def test_values_nested_without_end_are_refused(end: str, tmp_path: Path) -> None:
    """Arrow's own reader ends the process on them."""
    deep = "[" * 100_000 + "]" * 100_000
    for name, value in {"lists": deep, "maps": '{"x":' * 1000 + "1" + "}" * 1000}.items():
        record = f'{{"x": {value}, "label": 0}}'
        path = tmp_path / f"{name}.{end}"
        path.write_text(f"[{record}]" if end == "json" else record + "\n")
        with pytest.raises(DataError, match=r"nested .* deep, and 100 is the most"):
            open_source(path, name="new")
    path.write_text('{"x": "' + "[{" * 1000 + '\\\\", "label": 0}\n')
    assert open_source(path, name="new")["label"] == [0]


def test_a_number_that_no_column_holds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(f'[{{"x": {10**30}, "label": 0}}]')
    with pytest.raises(DataError, match="too large"):
        open_source(tmp_path / "rows.json", name="new")


@pytest.mark.parametrize("lists", [[[], []], [[[], []], [[], []]], [[[]], [[]]]])
def test_lists_of_nothing_are_refused(lists: list[Any], tmp_path: Path) -> None:
    kind = pa.list_(pa.list_(pa.float32())) if lists[0] else pa.list_(pa.float32())
    table = pa.table({"x": pa.array(lists, kind), "label": [0, 1]})
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="lists are empty"):
        read_rows(open_source(tmp_path / "rows.parquet", name="new"), name="new")


def test_other_encodings_are_named(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes("drink,label\ncafé,1\n".encode("latin1"))
    with pytest.raises(DataError, match=r"'drink' of rows.csv is not UTF-8.*\n.*\n.*iconv"):
        open_source(tmp_path / "rows.csv", name="new")


def put(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_what_is_written_about_the_data_is_none_of_them(tmp_path: Path) -> None:
    folder = put(tmp_path / "a", README__txt="of the shop", rows__csv="x,label\n1,0\n")
    assert open_source(folder, name="new").to_dict() == {"x": [1], "label": [0]}
    texts = put(tmp_path / "b", notes__txt="a note", README__txt="a text")
    assert sorted(open_source(texts, name="new")["label"]) == ["README", "notes"]
    with pytest.raises(DataError, match="2 kinds"):
        open_source(put(tmp_path / "c", more__txt="?", rows__csv="x,label\n1,0\n"), name="new")


def test_files_of_a_folder_have_the_same_columns(tmp_path: Path) -> None:
    one, more = "x,label\n1,0\n", "x,y,label\n1,2,0\n"
    for name, (first, second) in {"a": (one, more), "b": (more, one)}.items():
        folder = put(tmp_path / name, one__csv=first, two__csv=second)
        has = "two" if first is one else "one"
        with pytest.raises(DataError, match=f"other columns: 'y' is in {has}.csv alone"):
            open_source(folder, name="new")
    moved = put(tmp_path / "c", one__csv=one, two__csv="label,x\n0,1\n")
    assert open_source(moved, name="new").to_dict() == {"x": [1, 1], "label": [0, 0]}
    records = put(tmp_path / "d", one__jsonl='{"x": 1, "label": 0}', two__jsonl='{"label": 0}')
    assert open_source(records, name="new")["x"] == [1, None]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["2026-13-45"], "There is no date 2026-13-45"),
        (["2026-11-01", "2026-11"], "several forms: 2026-11 and 2026-11-01"),
        (["2026-11-01T05", "2026-11-01T25"], "no date 2026-11-01T25"),
        (["2026-11-01", "dt=2026-11-01"], "2026-11-01 is there 2 times"),
    ],
)
def test_dates_that_order_nothing_are_refused(names: list[str], words: str, tmp_path: Path) -> None:
    folder = tmp_path / "days"
    put(folder, **{f"{name}__csv": "x,label\n1,0\n" for name in names})
    for spec in (folder, {"partitions": str(folder)}):
        with pytest.raises(DataError, match=words):
            open_source(spec, name="new")


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.csv")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        open_source(tmp_path / "rows.csv", name="new")
    for blank in ("", " "):
        with pytest.raises(DataError, match="No source is named"):
            open_source(blank, name="new")


@pytest.mark.parametrize("how", ["file", "folder"])
@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("01", "2", "10"), ["01", "10", "2"]),
        (("1", "2", "0"), ["0", "1", "2"]),
        (("0.5", "1", "2"), None),
        (("-07", "1", "2"), ["-07", "1", "2"]),
    ],
)
def test_labels_keep_their_leading_zeros(
    labels: tuple[str, ...], expected: list[str] | None, how: str, tmp_path: Path
) -> None:
    """Whole numbers without any stay numbers; one file of a folder speaks for all."""
    rows = [f"{number},{label}\n" for number, label in enumerate(labels)]
    (tmp_path / "rows").mkdir()
    for place, part in enumerate([rows] if how == "file" else [rows[:1], rows[1:]]):
        (tmp_path / "rows" / f"{place}.csv").write_text("x,label\n" + "".join(part))
    spec = str(tmp_path / "rows" / "0.csv") if how == "file" else str(tmp_path / "rows")
    data = Data(memory=Memory(), new=spec)
    if expected is None:
        with pytest.raises(DataError, match="not a whole number"):
            data.read(spec, name="new", label_names=None)
        return
    found = data.read(spec, name="new", label_names=None)
    assert list(found.label_names) == expected
    assert [found.label_names[one] for one in found.rows.label] == list(labels)
    assert found.numbered == (labels[0] == "1")


def test_features_and_targets_that_are_numbers_stay_numbers(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("x,label\n007,01\n8,2\n")
    data = Data(memory=Memory())
    object.__setattr__(data, "kind", "number")
    found = data.read(str(tmp_path / "rows.csv"), name="new", label_names=None)
    assert found.rows.features["x"].tolist() == [7, 8]
    assert found.rows.label.tolist() == [1, 2]
