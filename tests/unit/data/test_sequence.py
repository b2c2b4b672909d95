"""Sequences of items by name, as a catalogue numbers them."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest

from perennial.data.columns import TEXT, to_sequences
from perennial.data.inputs import to_columns
from perennial.data.preprocess import Preprocessor, Sequence, Table, describe, fitted, restored
from perennial.data.source import read_rows
from perennial.errors import ConfigError, DataError

NAMES = ("", "a", "b", "c")


def known(*names: str, length: int = 3) -> Preprocessor:
    return Sequence(max_length=length).knowing(names or NAMES)


def features(*rows: str) -> dict[str, Any]:
    return {"items": np.array(rows, dtype=TEXT)}


def test_positions_are_filled_up_on_the_left_and_the_last_ones_count() -> None:
    found = known().apply(features("a|b", "", "a|b|c|a", "c"))["items"]
    assert found.tolist() == [[0, 1, 2], [0, 0, 0], [2, 3, 1], [0, 0, 3]]
    assert found.dtype == np.int64


def test_what_the_catalogue_lacks_is_passed_over() -> None:
    own = known()
    rows = features("a|x|b", "x", "a")
    assert own.apply(rows)["items"].tolist() == [[0, 1, 2], [0, 0, 0], [0, 0, 1]]
    assert own.notes(rows, name="new") == [
        "new: 2 rows with an item in items that is not known yet"
    ]
    assert own.notes(features("a", ""), name="new") == []


def test_a_longer_catalogue_keeps_old_positions_and_leaves_the_shorter_one_alone() -> None:
    short = known()
    long = short.knowing((*NAMES, "x"))
    rows = features("a|x", "c")
    assert long.apply(rows)["items"].tolist() == [[0, 1, 4], [0, 0, 3]]
    assert short.apply(rows)["items"].tolist() == [[0, 0, 1], [0, 0, 3]]
    assert (short.fills(), long.fills()) == ({"items": 4}, {"items": 5})
    table = Table(categorical=["city"])
    assert table.knowing(NAMES) is table


def test_a_version_gives_the_catalogue_back() -> None:
    given = Sequence(column="met", max_length=2)
    assert given.files() == {}, "nothing that a lineage could be held to"
    own = fitted(given, {}, ("", "ä", "b"))
    assert own is not None
    kept = describe(own)
    files = own.files()
    back = restored(kept, lambda path: files[path.removeprefix("preprocess/")], ref="shop@1")
    assert back is not None
    rows = {"met": np.array(["b|ä|b"], dtype=TEXT), "age": np.array([3.0])}
    assert back.apply(rows)["met"].tolist() == [[1, 2]]
    assert back.apply(rows)["age"].tolist() == [3.0]
    with pytest.raises(ConfigError, match="max_length"):
        Sequence(max_length=0)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([["a", "b"], [], ["c"]]),
        pa.array(["a|b", "", "c"]),
        pa.array(["a | b", "", "c"]).dictionary_encode(),
    ],
    ids=["lists", "text", "dictionary"],
)
def test_lists_and_text_read_alike(column: pa.Array) -> None:
    rows = datasets.Dataset(pa.table({"items": column, "y": ["a", "b", "c"]}))
    read = read_rows(rows, name="new", label="y", kind="item", preprocess=Sequence())
    assert read.schema == {"items": "str ()"}
    assert read.rows.features["items"].tolist() == ["a|b", "", "c"]
    assert read.label_names == NAMES


def test_numbers_and_lists_of_one_length_are_names_too() -> None:
    column = pa.array([[1, 2], [3, 4]], type=pa.list_(pa.int64(), 2))
    assert to_sequences(pa.chunked_array([column]), where="").tolist() == ["1|2", "3|4"]
    assert to_sequences(pa.chunked_array([column[1:]]), where="").tolist() == ["3|4"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([["a"], None], "missing values in 1 of 2 rows, first in row 1"),
        ([["a"], ["b", None]], "blank names in 1 of 2 rows, first in row 1"),
        ([["a", " "]], "blank names"),
        (["a||b"], "blank names"),
        ([["a|b"]], "1 names hold |"),
        ([[["a"]]], "cannot be used as names"),
    ],
)
def test_what_is_no_list_of_names_is_refused(values: list[Any], words: str) -> None:
    with pytest.raises(DataError) as caught:
        to_sequences(pa.chunked_array([pa.array(values)]), where="data.new")
    assert words in caught.value.what


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"items": [["a", "b"], []]}, ["a|b", ""]),
        ({"items": [["a"], ["b"]]}, ["a", "b"]),
        ({"items": ["a|b", ""]}, ["a|b", ""]),
        ({"items": "a|b"}, ["a|b"]),
        ({"items": np.array([["a", "b"], ["c", "d"]])}, ["a|b", "c|d"]),
        ([{"items": ["a"]}, {"items": ["b", "c"]}], ["a", "b|c"]),
    ],
)
def test_what_is_predicted_for_comes_in_any_of_these(given: Any, expected: list[str]) -> None:
    found = to_columns(given, {"items": "str ()"}, preprocess=known())
    assert found["items"].tolist() == expected
