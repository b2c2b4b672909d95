"""Preprocessing against scikit-learn and tokenizers, and what it keeps and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

from perennial.data.columns import TEXT
from perennial.data.content import content_hashes
from perennial.data.inputs import to_columns
from perennial.data.memory import Memory
from perennial.data.preprocess import Table, Text, check_same, describe, fitted, restored
from perennial.data.rows import Rows, concatenate
from perennial.data.source import read_rows
from perennial.data.store import read_rows_file, write_rows
from perennial.errors import ConfigError, DataError, RegistryError
from perennial.steps.collect import Data


def frame(rows: int, seed: int, cities: str = "abcdef") -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    age = generator.normal(40, 10, rows)
    age[generator.random(rows) < 0.1] = np.nan
    city = generator.choice(list(cities), rows).astype(object)
    city[generator.random(rows) < 0.1] = None
    return pd.DataFrame(
        {
            "age": age,
            "city": city,
            "income": generator.lognormal(10, 1, rows).astype(np.float32),
            "zip": generator.integers(0, 5, rows),
            "label": generator.choice(["no", "yes"], rows),
        }
    )


def read(table: pd.DataFrame, preprocess: Any, **options: Any) -> Any:
    dataset = datasets.Dataset(
        datasets.table.InMemoryTable(pa.Table.from_pandas(table, preserve_index=False))
    )
    return read_rows(dataset, name="new", preprocess=preprocess, **options)


TABLE = Table(numerical=["age", "income"])


@pytest.mark.parametrize("length", [3, 15, 16, 40])
def test_long_names_are_found_as_short_ones_are(length: int) -> None:
    names = [letter * length for letter in "abcdef"]
    generator = np.random.default_rng(length)
    old, new = (
        {"city": np.array(generator.choice(names[:known], 400), dtype=TEXT)} for known in (5, 6)
    )
    own = Table(categorical=["city"])
    own.fit(old)
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    encoder.fit(np.array(old["city"].tolist())[:, None])
    expected = encoder.transform(np.array(new["city"].tolist())[:, None]) + 1
    assert np.array_equal(own.apply(new)["categorical"], expected)
    assert own.apply({"city": np.array([], dtype=TEXT)})["categorical"].shape == (0, 1)


def test_numbers_as_the_imputer_and_the_scaler_have_them() -> None:
    old, new = frame(500, 0), frame(300, 1)
    rows = read(old, TABLE).rows
    own = fitted(TABLE, rows.features)
    assert own is not None
    columns = ["age", "income"]
    fill = SimpleImputer(strategy="median").fit(old[columns])
    scale = StandardScaler().fit(old[columns])  # which leaves gaps out, as we do
    expected = scale.transform(pd.DataFrame(fill.transform(new[columns]), columns=columns))
    found = own.apply(read(new, own).rows.features)
    assert found["numerical"].dtype == np.float32
    np.testing.assert_allclose(found["numerical"], expected, rtol=1e-5, atol=1e-6)
    raw = fitted(Table(numerical=columns, standardise=False), rows.features)
    assert raw is not None
    np.testing.assert_allclose(
        raw.apply(read(new, raw).rows.features)["numerical"],
        fill.transform(new[columns]),
        rtol=1e-6,
    )


@pytest.mark.parametrize("minimum", [1, 76])
def test_categories_as_the_encoder_has_them(minimum: int) -> None:
    old, new = frame(500, 0), frame(300, 1, cities="adxyz")
    table = Table(numerical=["age", "income"], minimum_rows=minimum)
    own = fitted(table, read(old, table).rows.features)
    assert own is not None
    columns = ["city", "zip"]

    def words(part: pd.DataFrame) -> pd.DataFrame:
        return part[columns].astype(object).where(part[columns].notna(), "").astype(str)

    expected = []
    for column in columns:
        counts = words(old)[column].value_counts()
        known = sorted(set(counts[counts >= minimum].index) - {""})
        encoder = OrdinalEncoder(
            categories=[known], handle_unknown="use_encoded_value", unknown_value=-1
        )
        encoder.fit(pd.DataFrame({column: known}))
        expected.append(encoder.transform(words(new)[[column]])[:, 0] + 1)
    found = own.apply(read(new, own).rows.features)["categorical"]
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, np.stack(expected, axis=1))
    assert own.fills()["numerical"] == 2
    assert (found.max(axis=0) < own.fills()["cardinalities"]).all()


def test_unknown_categories_and_gaps_are_counted() -> None:
    old, new = frame(500, 0), frame(300, 1, cities="adxyz")
    own = fitted(TABLE, read(old, TABLE).rows.features)
    assert own is not None
    told = own.notes(read(new, own).rows.features, name="new")
    gaps, strange = int(new["age"].isna().sum()), int(new["city"].isin(list("xyz")).sum())
    nameless = int(new["city"].isna().sum())
    assert min(gaps, strange, nameless) > 0
    assert told == [
        f"new: {gaps} rows without age, filled by its median",
        f"new: {nameless} rows without city, unknown to the model",
        f"new: {strange} rows with a city never seen in founding",
    ]


def test_types_decide_where_nothing_is_named() -> None:
    rows = read(frame(50, 0), Table())
    assert rows.schema == {
        "age": "float64 ()",
        "city": "str ()",
        "income": "float32 ()",
        "zip": "float64 ()",
    }
    kinds = [Table(categorical=["zip"]).kind(name, "number") for name in ("age", "zip")]
    assert kinds == ["number", "category"]
    assert Table().kind("image", "other") == "fixed"
    both = Table(numerical=["age"], categorical=["zip"])
    assert (both.columns, both.kind("city", "text")) == (("age", "zip"), "fixed")


def test_a_file_without_gaps_gives_the_rows_of_one_with_gaps() -> None:
    """Of numbers and texts, whichever type a file has guessed for them."""
    old = read(frame(50, 0), TABLE)
    table = frame(50, 0)
    text = table.assign(zip=table["zip"].astype(str), income=table["income"].astype(np.float64))
    assert read(text, TABLE, schema=old.schema).fingerprint == old.fingerprint
    other = text[["income", "zip", "city", "age", "label"]]
    again = read(other, TABLE, schema=old.schema)
    assert list(again.rows.features) == list(old.rows.features)
    assert again.fingerprint == old.fingerprint


def test_state_travels_with_a_version() -> None:
    old, new = frame(500, 0), frame(100, 1)
    own = fitted(TABLE, read(old, TABLE).rows.features)
    assert own is not None
    described = json.loads(json.dumps(describe(own)))
    files = {f"preprocess/{name}": content for name, content in own.files().items()}
    other = restored(described, files.__getitem__, ref="shop@1")
    assert other is not None
    raw = read(new, own).rows.features
    for name, column in own.apply(raw).items():
        np.testing.assert_array_equal(other.apply(raw)[name], column)
    assert (describe(other), other.files()) == (describe(own), own.files())
    check_same(TABLE, other, ref="shop@1", where="data.preprocess")
    with pytest.raises(ConfigError, match=r"standardise=True, and now it is False"):
        check_same(
            Table(numerical=["age", "income"], standardise=False),
            other,
            ref="shop@1",
            where="data.preprocess",
        )
    with pytest.raises(ConfigError, match="without preprocessing"):
        check_same(None, other, ref="shop@1", where="data.preprocess")
    with pytest.raises(RegistryError, match="not built unless you allow it"):
        restored({**described, "target": "os.system"}, files.__getitem__, ref="shop@1")
    with pytest.raises(RegistryError, match="cannot be restored"):
        restored({**described, "arguments": {"columns": 1}}, files.__getitem__, ref="shop@1")


def test_what_cannot_be_fitted_is_refused() -> None:
    table = frame(50, 0)
    with pytest.raises(DataError, match=r"no value[\s\S]*'age'"):
        fitted(TABLE, read(table.assign(age=np.nan), TABLE).rows.features)
    with pytest.raises(DataError, match="no training rows"):
        fitted(TABLE, {"age": np.empty(0)})
    with pytest.raises(DataError, match=r"string cannot be read as numbers[\s\S]*'city'"):
        read(table, Table(categorical=["zip"]))
    with pytest.raises(DataError, match="infinite"):
        read(table.assign(age=np.inf), TABLE)
    for odd in (
        {"numerical": ["a", "a"]},
        {"numerical": [], "categorical": []},
        {"minimum_rows": 0},
    ):
        with pytest.raises(ConfigError):
            Table(**odd)  # type: ignore[arg-type]


def test_rows_keep_text_through_hash_and_file(tmp_path: Path) -> None:
    words = np.array(["a", "bé" * 3000, "", "naïve"], dtype=TEXT)
    names = np.array(["x", "y", "x", "y"])
    features = {"t": words, "n": np.arange(4.0), "gap": np.array([np.nan, 1, 2, 3])}
    content = content_hashes(features, names)
    assert len(set(content.tolist())) == 4
    other = {"gap": features["gap"].copy(), "n": np.arange(4), "t": words}
    other["gap"].view(np.uint64)[0] ^= 1  # another way to write NaN
    other = {**other, "n": other["n"].astype(np.float32)}
    np.testing.assert_array_equal(content_hashes(other, names), content)
    # a word's end is not the next one's beginning
    left = content_hashes({"a": np.array(["xy"], TEXT), "b": np.array(["z"], TEXT)}, names[:1])
    right = content_hashes({"a": np.array(["x"], TEXT), "b": np.array(["yz"], TEXT)}, names[:1])
    assert left != right
    rows = Rows(
        features=features, label=np.zeros(4, int), id=content, content=content, cluster=names
    )
    joined = concatenate([rows, rows.take(slice(0, 2))])
    write_rows(tmp_path / "rows.arrow", joined)
    back, _ = read_rows_file(tmp_path / "rows.arrow")
    assert back.features["t"].dtype == TEXT
    assert back.features["t"].tolist() == [*words.tolist(), *words[:2].tolist()]
    np.testing.assert_array_equal(back.features["gap"], joined.features["gap"])


def test_a_prediction_reads_as_the_sources_do() -> None:
    table = frame(60, 0).drop(columns="label")
    source = read(frame(60, 0), TABLE)
    for inputs in (
        table,
        pa.Table.from_pandas(table),
        table.to_dict("records"),
        table.to_dict("list"),
        table.to_numpy(dtype=object),
    ):
        found = to_columns(inputs, source.schema, preprocess=TABLE)
        assert content_hashes(found, np.full(60, "")).tolist() == (
            content_hashes(source.rows.features, np.full(60, "")).tolist()
        )
    one = to_columns(
        {"age": 1, "city": "x", "income": None, "zip": 3}, source.schema, preprocess=TABLE
    )
    assert one["city"].tolist() == ["x"]
    assert np.isnan(one["income"]).tolist() == [True]
    with pytest.raises(DataError, match="cannot be read as numbers"):
        to_columns({**table.to_dict("list"), "age": ["x"] * 60}, source.schema, preprocess=TABLE)


@pytest.mark.parametrize(
    ("written", "told", "name"),
    [
        ("1", [1, 1.0, "1", "1.0", " 1.00 "], "1"),
        ("0", [0, -0.0, "0.0", "-0.0"], "0"),
        ("01234", ["01234"], "01234"),
        ("01.0", ["01.0"], "01.0"),
        ("1.10", ["1.10"], "1.10"),
        ("12345678901234567890", ["12345678901234567890"], "12345678901234567890"),
        ("True", [True, "True", "true", "TRUE"], "true"),
        ("", [None, "", " "], ""),
    ],
)
def test_a_category_has_one_name_in_files_and_in_predictions(
    written: str, told: list[Any], name: str, tmp_path: Path
) -> None:
    table = Table(categorical=["c"], numerical=["x"])
    schema = {"c": "str ()", "x": "int64 ()"}
    path = tmp_path / "rows.csv"
    path.write_text(f"c,x,label\n{written},1,a\n{written},2,b\n")
    data = Data(memory=Memory(), preprocess=table)
    found = data.read(str(path), name="new", label_names=None).rows.features["c"]
    assert found.tolist() == [name, name]
    for one in told:
        given = to_columns({"c": [one], "x": [1]}, schema, preprocess=table)
        assert given["c"].tolist() == [name], one


@pytest.mark.parametrize("header", [True, False])
def test_csv_files_keep_what_names_or_tells_apart_as_it_is_written(
    header: bool, tmp_path: Path
) -> None:
    names = ["id", "user", "code", "x", "note", "label"]
    lines = [",".join(names)] if header else []
    lines += ["007,01,0042,05,010,1", "7,1,42,6,10,0"]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    data = Data(
        memory=Memory(),
        columns=None if header else names,
        id_column="id",
        group_column="user",
        slice_columns=["note"],
        features=["code", "x"],
        preprocess=Table(categorical=["code"]),
    )
    found = data.read(str(tmp_path / "rows.csv"), name="new", label_names=None)
    assert found.rows.id.tolist() == ["007", "7"]
    assert found.rows.cluster.tolist() == ["01", "1"]
    assert found.rows.slices["note"].tolist() == ["010", "10"]
    assert found.rows.features["code"].tolist() == ["0042", "42"]
    assert found.rows.features["x"].tolist() == [5, 6]  # a number is one, however it is written
    assert found.label_names == ("0", "1")


def test_what_the_lineage_knows_as_text_is_text_in_a_file_of_digits(tmp_path: Path) -> None:
    """By type alone, the first file's codes are text, and the next one's would be numbers."""
    (tmp_path / "a.csv").write_text("code,x,label\nB2,1,a\n012,2,b\n")
    (tmp_path / "b.csv").write_text("code,x,label\n012,1,a\n013,2,b\n")
    data = Data(memory=Memory(), preprocess=Table())
    first = data.read(str(tmp_path / "a.csv"), name="history", label_names=None)
    found = data.read(str(tmp_path / "b.csv"), name="new", label_names=None, schema=first.schema)
    assert found.schema == first.schema
    assert found.rows.features["code"].tolist() == ["012", "013"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d"]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    folder = tmp_path / "model"
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    return folder


def test_texts_are_cut_and_filled_up(tokenizer: Path) -> None:
    text = Text(column="t", tokenizer=str(tokenizer), max_length=5)
    raw = {"t": np.array(["a b", "a b c d a", "e"], TEXT), "n": np.arange(3)}
    found = text.apply(raw)
    assert found["input_ids"].tolist() == [[2, 4, 5, 3, 0], [2, 4, 5, 6, 3], [2, 1, 3, 0, 0]]
    assert found["attention_mask"].tolist() == [[1, 1, 1, 1, 0], [1] * 5, [1, 1, 1, 0, 0]]
    assert list(found) == ["input_ids", "attention_mask", "n"]
    assert text.notes(raw, name="new") == [
        "new: 1 of 3 texts are cut at 5 tokens (data.preprocess.max_length)"
    ]
    pair = Text(column="t", pair="u", tokenizer=str(tokenizer / "tokenizer.json"), max_length=7)
    both = pair.apply({"t": raw["t"][:1], "u": np.array(["c"], TEXT)})
    assert both["input_ids"].tolist() == [[2, 4, 5, 3, 6, 3, 0]]
    assert both["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 0]]
    assert text.apply({"t": raw["t"][:0]})["input_ids"].shape == (0, 5)
    assert text.fills() == {"vocabulary": 8, "padding": 0}


def test_a_tokenizer_travels_byte_for_byte(tokenizer: Path) -> None:
    text = Text(column="t", tokenizer=str(tokenizer), max_length=5)
    described, files = describe(fitted(text, {})), text.files()
    assert files["tokenizer.json"] == (tokenizer / "tokenizer.json").read_bytes()
    other = restored(described, lambda path: files[path.partition("/")[2]], ref="a@1")
    assert other is not None
    raw = {"t": np.array(["a b"], TEXT)}
    np.testing.assert_array_equal(other.apply(raw)["input_ids"], text.apply(raw)["input_ids"])
    check_same(text, other, ref="a@1", where="data.preprocess")
    check_same(Text(column="t", max_length=5), other, ref="a@1", where="data.preprocess")
    (tokenizer / "tokenizer.json").write_text(files["tokenizer.json"].decode() + " ")
    with pytest.raises(ConfigError, match=r"tokenizer\.json is not the one"):
        check_same(
            Text(column="t", tokenizer=str(tokenizer), max_length=5),
            other,
            ref="a@1",
            where="data.preprocess",
        )


def test_a_tokenizer_inside_a_package_is_found_without_importing_it(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "a_package_with_words"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    tokenizer.rename(package / "model")
    monkeypatch.syspath_prepend(str(package.parent))
    text = Text(column="t", tokenizer="package:a_package_with_words/model", max_length=5)
    kept = (package / "model" / "tokenizer.json").read_bytes()
    assert text.files() == {"tokenizer.json": kept}


def test_a_padding_token_of_the_models_own_configuration(tokenizer: Path) -> None:
    (tokenizer / "tokenizer_config.json").write_text(
        json.dumps({"pad_token": {"content": "[SEP]"}})
    )
    text = Text(column="t", tokenizer=str(tokenizer), max_length=4)
    assert text.apply({"t": np.array(["a"], TEXT)})["input_ids"].tolist() == [[2, 4, 3, 3]]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_length": 0}, "cut at 0 tokens"),
        ({"max_length": 2}, "no room for text beside 2"),
        ({"tokenizer": "nowhere"}, "no tokenizer"),
        ({"tokenizer": "package:torch/../transformers"}, "no folder"),
    ],
)
def test_texts_refuse(tokenizer: Path, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Text(**{"tokenizer": str(tokenizer), **given})


def test_other_texts_refuse(tokenizer: Path) -> None:
    (tokenizer / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot be read"):
        Text(tokenizer=str(tokenizer))
    with pytest.raises(ConfigError, match="no tokenizer is named"):
        fitted(Text(), {})
