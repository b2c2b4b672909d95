import datetime
import re

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
from PIL import Image

from perennial.data.digits import digits
from perennial.data.images import seen
from perennial.data.memory import Memory
from perennial.data.preprocess import Sequence, Table, Text
from perennial.data.rows import concatenate
from perennial.data.source import check_schema, open_source, read_rows
from perennial.data.store import read_rows_file, write_rows
from perennial.errors import ConfigError, DataError
from perennial.steps.collect import Data

TABLE = pa.table({"b": [1.5, -0.5, 3.0], "a": [1, 2, 3], "label": ["cat", "dog", "cat"]})


def read(columns, **options):
    return read_rows(datasets.Dataset.from_dict(columns), name="new", **options)


def test_every_format_gives_the_same_rows(tmp_path):
    pa.parquet.write_table(TABLE, tmp_path / "x.parquet")
    pa.csv.write_csv(TABLE, tmp_path / "x.csv")
    tabs = pa.csv.WriteOptions(delimiter="\t")
    pa.csv.write_csv(TABLE, tmp_path / "x.tsv", tabs)
    pa.feather.write_feather(TABLE, str(tmp_path / "x.feather"))
    frame = datasets.Dataset(datasets.table.InMemoryTable(TABLE))
    lines = [str(row).replace("'", '"') for row in TABLE.to_pylist()]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    (tmp_path / "x.json").write_text("[" + ",".join(lines) + "]")
    datasets.disable_progress_bars()
    frame.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "folder").mkdir()
    pa.parquet.write_table(TABLE[:2], tmp_path / "folder" / "1.parquet")
    pa.parquet.write_table(TABLE[2:], tmp_path / "folder" / "2.parquet")
    expected = read_rows(frame, name="new").fingerprint
    suffixes = ("parquet", "csv", "tsv", "feather", "jsonl", "json")
    for path in [*(f"x.{kind}" for kind in suffixes), "saved", "folder"]:
        source = read_rows(open_source(str(tmp_path / path), name="new"), name="new")
        assert source.fingerprint == expected, path
        assert source.label_names == ("cat", "dog")
        assert list(source.rows.features) == ["b", "a"]


def test_errors_of_opening(tmp_path, monkeypatch):
    (tmp_path / "weeks.csv").write_text("a,label\n")
    with pytest.raises(DataError, match=r"did you mean .*weeks\.csv"):
        open_source(tmp_path / "week.csv", name="new")
    with pytest.raises(DataError, match="no rows"):
        open_source(tmp_path / "weeks.csv", name="new")
    (tmp_path / "bad.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"cannot be read[\s\S]*data.new: .*bad.parquet") as error:
        open_source(tmp_path / "bad.parquet", name="new")
    assert error.value.exit_code == 30

    def offline(spec):
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataError, match="offline"):
        open_source("org/name", name="new")


def test_image_folder(tmp_path):
    for kind, shade in (("cat", 10), ("dog", 200)):
        (tmp_path / kind).mkdir()
        Image.new("RGB", (4, 3), (shade, 0, 1)).save(tmp_path / kind / "1.png")
    source = read_rows(open_source(tmp_path, name="new"), name="new")
    kept = source.rows.features["image"].tolist()
    assert kept == [(tmp_path / kind / "1.png").read_bytes() for kind in ("cat", "dog")]
    image = seen(source.rows)["image"]
    assert image.shape == (2, 3, 3, 4)
    assert image.dtype == np.uint8
    assert image[:, 0, 0, 0].tolist() == [10, 200]
    Image.new("RGB", (5, 3)).save(tmp_path / "dog" / "2.png")
    with pytest.raises(DataError, match="differ in shape"):
        read_rows(open_source(tmp_path, name="new"), name="new")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": [1.0, None, 2.0], "label": [0, 1, 0]}, "missing values in 1 of 3 rows.*row 1"),
        ({"x": [1.0, 2.0, float("nan")], "label": [0, 1, 0]}, "NaN.*1 of 3 rows.*row 2"),
        ({"x": [[1.0, 2.0], [float("inf"), 0.0]], "label": [0, 1]}, "infinite.*row 1"),
        ({"x": [[1, 2], [1], [3]], "label": [0, 1, 0]}, "2 in row 0 and 1 in row 1"),
        ({"x": ["a", "b"], "label": [0, 1]}, "preprocessing"),
        ({"x": [1, 2], "label": [0, -1]}, "-1 in row 1 is negative"),
        ({"x": [1, 2], "label": [0.5, 1.0]}, "not a whole number"),
        ({"x": [1, 2], "label": [0, None]}, "missing values in 1 of 2"),
        ({"x": [1, 2], "lable": [0, 1]}, r"did you mean 'lable'"),
    ],
)
def test_malformed_values(columns, message):
    with pytest.raises(DataError, match=f"(?s){message}"):
        read(columns)


def test_labels_match_by_name():
    source = read({"x": [1, 2], "label": ["b", "c"]}, label_names=["c", "a", "b"])
    assert source.rows.label.tolist() == [2, 0]
    with pytest.raises(DataError, match="'d' in row 1 is unknown"):
        read({"x": [1, 2], "label": ["b", "d"]}, label_names=["c", "a", "b"])
    whole = read({"x": [1, 2], "label": [0.0, 2.0]})
    assert whole.label_names == ("0", "1", "2")


def test_content_is_canonical():
    a = read({"x": np.array([1, 0], np.int32), "y": [0.0, 1.0], "label": ["b", "a"]})
    b = read({"y": [-0.0, 1.0], "x": [1, 0], "label": ["b", "a"]}, label_names=["b", "a"])
    assert a.rows.content.tolist() == b.rows.content.tolist()
    assert len(set(a.rows.content.tolist())) == 2
    c = read({"x": [1, 0], "y": [0.0, 1.0], "label": ["a", "a"]})
    assert (a.rows.content == c.rows.content).tolist() == [False, True]


def test_ids_and_groups():
    columns = {"x": [1, 2], "i": [7, 8], "g": ["u", "u"], "label": [0, 1]}
    source = read(columns, id_column="i", group_column="g")
    assert source.rows.id.tolist() == ["7", "8"]
    assert source.rows.cluster.tolist() == ["u", "u"]
    with pytest.raises(DataError, match="'u', first in row 0, occurs 2 times"):
        read(columns, id_column="g", group_column="i")


def test_schema():
    a = read({"x": [1, 2], "label": [0, 1]})
    b = read({"x": [1.0, 2.0], "label": [0, 1]})
    check_schema(a.schema, a.schema, "history", "new")
    with pytest.raises(DataError, match=r"int64.*history.*float64"):
        check_schema(a.schema, b.schema, "history", "new")
    with pytest.raises(DataError, match="did you mean 'amounts'"):
        check_schema({"amount": "i ()"}, {"amounts": "i ()"}, "history", "new")
    with pytest.raises(DataError, match=r"data\.features=\[x,y\]"):
        check_schema({"x": "i ()", "y": "i ()"}, {"y": "i ()", "x": "i ()"}, "history", "new")


def test_digits():
    clean, inverted = (
        read_rows(digits(part=p, inverted=i), name=p, group_column="group", split_column="split")
        for p, i in (("history", False), ("new", True))
    )
    assert (len(clean.rows), len(inverted.rows)) == (1397, 1000)
    assert clean.schema == {"image": "float32 (8, 8)"}
    held = [s.rows.take(s.declared_role == "holdout") for s in (clean, inverted)]
    assert held[0].cluster.tolist() == held[1].cluster.tolist()
    assert np.array_equal(held[0].features["image"], 1 - held[1].features["image"])
    train = [s.rows.take(s.declared_role == "train").cluster for s in (clean, inverted)]
    assert len(np.unique(np.concatenate([*train, held[0].cluster]))) == 1797


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_index_that_pandas_wrote_is_no_feature(tmp_path, suffix):
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "label": [0, 1, 0]})[lambda f: f.x > 1]
    getattr(frame, f"to_{suffix}")(tmp_path / f"rows.{suffix}")
    opened = open_source(str(tmp_path / f"rows.{suffix}"), name="new")
    assert opened.column_names == ["x", "label"]


@pytest.mark.parametrize(
    ("values", "given", "guessed"),
    [
        (["b", "a"], None, True),
        (["b", "a"], ["b", "a"], False),
        ([1, 0], None, False),
    ],
)
def test_text_labels_have_only_the_alphabets_order(values, given, guessed):
    rows = datasets.Dataset.from_dict({"x": [1.0, 2.0], "label": values})
    assert read_rows(rows, name="new", label_names=given).sorted_names is guessed


@pytest.mark.parametrize(
    ("given", "lineage", "result"),
    [
        ([1, 2], "float32 ()", "float32 ()"),  # a text file whose numbers happen to be whole
        ([1.0, 2.0], "int64 ()", "int64 ()"),
        ([0.1, 0.2], "float32 ()", "float32 ()"),
        ([0.5, 2.0], "int64 ()", "float64 ()"),  # would lose the half
        ([300, 2], "uint8 ()", "int64 ()"),
        ([2**53 + 1, 2], "float64 ()", "int64 ()"),
        ([1, 2], "float32 (3,)", "int64 ()"),
    ],
)
def test_numbers_take_the_lineages_dtype_where_they_keep_their_value(given, lineage, result):
    source = read({"x": given, "label": [0, 1]}, schema={"x": lineage})
    assert source.schema == {"x": result}
    same = read({"x": np.array(given, dtype=result.split()[0]), "label": [0, 1]})
    assert source.rows.content.tolist() == same.rows.content.tolist()


SLICED = {"x": [1.0, 2.0, 3.0], "country": ["de", None, " fr "], "year": [2024, 2025, 2025]}


def test_slice_columns_are_text_beside_the_features():
    columns = {**SLICED, "label": [0, 1, 0]}
    source = read(columns, slice_columns=["country", "year"])
    assert list(source.rows.features) == ["x"]
    assert source.rows.slices["country"].tolist() == ["de", "", "fr"]
    assert source.rows.slices["year"].tolist() == ["2024", "2025", "2025"]
    assert source.fingerprint == read(columns, features=["x"]).fingerprint
    both = read(columns, slice_columns=["country", "year"], features=["x", "year"])
    assert list(both.rows.features) == ["x", "year"]
    assert list(both.rows.slices) == ["country", "year"]


def test_a_slice_column_that_is_absent_or_no_text_is_refused():
    columns = {**SLICED, "label": [0, 1, 0]}
    with pytest.raises(DataError, match="did you mean 'country'") as error:
        read(columns, slice_columns=["county"])
    assert error.value.where == "data.new, data.slice_columns"
    with pytest.raises(DataError, match="cannot be used as slices"):
        read({**columns, "list": [[1], [2], [3]]}, slice_columns=["list"], features=["x"])


def test_slices_are_taken_and_joined_with_their_rows(tmp_path):
    first = read({**SLICED, "label": [0, 1, 0]}, slice_columns=["country"], features=["x"]).rows
    second = read({"x": [4.0], "plan": ["free"], "label": [1]}, slice_columns=["plan"]).rows
    joined = concatenate([first.take(np.array([2, 0])), second])
    assert {name: values.tolist() for name, values in joined.slices.items()} == {
        "country": ["fr", "de", ""],
        "plan": ["", "", "free"],
    }
    write_rows(tmp_path / "a.arrow", joined)
    again, extra = read_rows_file(tmp_path / "a.arrow")
    assert not extra
    assert list(again.slices) == ["country", "plan"]
    for name, values in joined.slices.items():
        assert again.slices[name].tolist() == values.tolist()


def test_equal_rows_of_two_users_are_two_events_of_a_ranking_and_copies_elsewhere():
    columns = {
        "items": ["a|b", "a|b", "a|b", "a"],
        "user": ["u", "v", "u", "u"],
        "next": ["c", "c", "c", "c"],
    }
    given = {"label": "next", "group_column": "user", "preprocess": Sequence()}
    content = read(columns, kind="item", **given).rows.content
    assert content[0] == content[2]
    assert len(set(content.tolist())) == 3
    assert len(set(read(columns, kind="class", **given).rows.content.tolist())) == 2
    alone = read(columns, kind="item", label="next", features=["items"], preprocess=Sequence())
    assert len(set(alone.rows.content.tolist())) == 2


@pytest.mark.parametrize(
    ("preprocess", "mend"),
    [
        (Text(), "set data.preprocess.column=body;"),
        (Text(column="boody"), "set data.preprocess.column=body;"),
        (Text(column="body", pair="text"), "set data.preprocess.pair=NAME;"),
        (
            Table(numerical=["size"], categorical=["text"]),
            r"data\.preprocess\.categorical=\[\.\.\.\]",
        ),
    ],
)
def test_a_column_that_is_preprocessed_is_mended_where_it_is_named(preprocess, mend):
    columns = {"body": ["a", "b"], "size": [1, 2], "label": ["x", "y"]}
    if preprocess.columns[0] == "body":
        columns |= {"title": ["c", "d"]}
    with pytest.raises(DataError) as caught:
        read(columns, preprocess=preprocess)
    assert re.search(mend, caught.value.mend), caught.value
    assert "data.preprocess." in caught.value.where


def test_features_beside_what_is_preprocessed_name_the_setting():
    with pytest.raises(ConfigError, match=r"set data\.preprocess\.column=body"):
        Data(memory=Memory(), features=["body"], preprocess=Text())
    Data(memory=Memory(), features=["body"], preprocess=Text(column="body"))


@pytest.mark.parametrize(
    ("values", "mend"),
    [
        (["north", "south"], r"set data\.slice_columns=\[branch\].*data=table"),
        ([datetime.date(2026, 1, 1)] * 2, r"set data\.time_column=branch"),
    ],
)
def test_what_a_column_may_be_for_is_said_first(values, mend):
    columns = {"size": [1.0, 2.0], "branch": values, "label": [0, 1]}
    # a table takes texts as categories, and dates as little as anyone
    preprocess = None if isinstance(values[0], str) else Table()
    with pytest.raises(DataError) as caught:
        read(columns, preprocess=preprocess)
    assert re.search(mend, caught.value.mend), caught.value.mend
    assert "declare data.preprocess" not in caught.value.mend
