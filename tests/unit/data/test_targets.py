from __future__ import annotations

import datetime
from typing import Any

import datasets
import numpy as np
import pytest

from perennial.data.rows import Rows, concatenate
from perennial.data.source import read_rows
from perennial.data.targets import target_text
from perennial.errors import DataError


def read(values: list[Any], kind: str, *, feature: Any = None, **options: Any) -> Any:
    columns = {"x": [float(i) for i in range(len(values))], "y": values}
    dataset = datasets.Dataset.from_dict(columns)
    if feature is not None:
        dataset = dataset.cast_column("y", feature)
    return read_rows(dataset, name="new", label="y", kind=kind, **options)


def test_numbers_are_float32_and_hash_by_value() -> None:
    whole, parts = read([1, 2, 0], "number"), read([1.0, 2.0, -0.0], "number")
    assert whole.rows.label.dtype == np.float32
    assert whole.rows.label.tolist() == [1.0, 2.0, 0.0]
    assert whole.rows.content.tolist() == parts.rows.content.tolist()
    assert read([1.0, 2.5, 0.0], "number").rows.content[1] != whole.rows.content[1]
    assert whole.label_names == ()


NAMES = datasets.List(datasets.ClassLabel(names=["red", "round", "sweet"]))
ON = [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("values", "feature", "labels"),
    [
        ([["sweet", "red"], [], ["round"]], None, None),
        (["sweet | red", "", "round"], None, None),
        ([["sweet", " red "], [" "], ["round "]], None, None),
        ([[2, 0], [], [1]], NAMES, None),
        (ON, None, ["red", "round", "sweet"]),
    ],
)
def test_several_labels_are_read_alike_from_every_form(
    values: list[Any], feature: Any, labels: list[str] | None
) -> None:
    found = read(values, "classes", feature=feature, label_names=labels)
    assert found.label_names == ("red", "round", "sweet")
    assert found.rows.label.dtype == np.int8
    assert found.rows.label.tolist() == ON
    like = read([["red", "sweet"], [], ["round"]], "classes")
    assert found.rows.content.tolist() == like.rows.content.tolist()
    other = read(values, "classes", feature=feature, label_names=["sweet", "round", "red"])
    if labels is None:  # lists of 0 and 1 have no names but those that are given
        assert other.rows.label[0].tolist() == [1, 0, 1]
        assert other.rows.content.tolist() == found.rows.content.tolist()


def test_positions_are_filled_up_and_parts_are_joined_at_the_widest() -> None:
    short = read([["O", "PER"], ["O"]], "tokens")
    assert short.label_names == ("O", "PER")
    assert short.rows.label.tolist() == [[0, 1], [0, -100]]
    long = read([["O", "PER"], ["O", "O", "PER"]], "tokens")
    # how long other rows are is no part of a row
    assert long.rows.content[0] == short.rows.content[0]
    numbers = read([[0, 1, -100], [0, 0, 1]], "tokens")
    assert (numbers.label_names, numbers.numbered) == (("0", "1"), True)
    assert numbers.rows.label.tolist() == [[0, 1, -100], [0, 0, 1]]
    joined: Rows = concatenate([short.rows, long.rows])
    assert joined.label.tolist() == [[0, 1, -100], [0, -100, -100], [0, 1, -100], [0, 0, 1]]
    back = read([["PER", "O"], ["O", "O"]], "tokens", label_names=["PER", "O"])
    assert back.rows.label.tolist() == [[0, 1], [1, 1]]


def test_items_are_positions_and_rows_without_a_target_need_no_column() -> None:
    assert read([3, 0, 7], "item").rows.label.tolist() == [3, 0, 7]
    assert read([3, 0, 7], "item").label_names == ()
    dataset = datasets.Dataset.from_dict({"ids": [[1, 2], [3, 4]]})
    found = read_rows(dataset, name="new", label=None, kind="none")
    assert found.rows.label.tolist() == [0, 0]
    assert list(found.rows.features) == ["ids"]
    assert len(set(found.rows.content.tolist())) == 2


def test_a_class_hashes_by_its_name() -> None:
    assert target_text(np.array([1, 0]), ("cat", "dog"), "class").tolist() == ["dog", "cat"]


@pytest.mark.parametrize(
    ("kind", "values", "labels", "words"),
    [
        ("number", ["a", "b"], None, "is text"),
        ("number", [[1.0, 2.0], [3.0, 4.0]], None, "one number per row"),
        ("number", [1.0, None], None, "missing values"),
        ("number", [1.0, float("nan")], None, "NaN"),
        ("item", ["a", "b"], [], "founded with numbers"),
        ("item", ["a", "c"], ["", "a", "b"], "'c' in row 1 is unknown"),
        ("item", ["a", " "], None, "blank"),
        ("item", [1, 2], ["", "a", "b"], "items are numbers"),
        ("item", [1, -1], None, "negative"),
        ("classes", [1, 2], None, "takes a list"),
        ("classes", [[0, 1], [0, 2]], None, "row 1 is .0, 2."),
        ("classes", [[0, 1], [0]], None, "row 1 is .0., not 2 values"),
        ("classes", [[0, 1], [1, 1]], ["a", "b", "c"], "there are 3 labels"),
        ("classes", [["a"], ["z"]], ["a", "b"], "'z' in row 1 is unknown"),
        ("classes", [["a"], None], None, "row 1 is missing"),
        ("classes", ["a", None], None, "missing values"),
        ("tokens", ["a", "b"], None, "a label for each position"),
        ("tokens", [[0, 1], [0, -3]], None, "-3 in row 1"),
        ("tokens", [["O"], ["Z"]], ["O"], "'Z' in row 1 is unknown"),
        ("tokens", [[0, 5]], ["O", "PER"], "'0' in row 0 is unknown"),
        ("tokens", [[0.0], [float("nan")]], None, "nan in row 1 is no whole number"),
        ("tokens", [[0], [10**9]], None, "1000000000 in row 1 is no class"),
        ("tokens", [[[0]], [[1]]], None, r"a list of List|a list of list"),
        ("tokens", [[datetime.date(2026, 11, 1)], []], None, "a list of date"),
        ("classes", [[1.0], [float("inf")]], None, "inf in row 1 is no whole number"),
        ("classes", [[datetime.date(2026, 11, 1)], []], None, "a list of date"),
        ("tokens", [["O", None]], None, "row 0 is missing"),
        ("tokens", [[], []], None, "No position has a label"),
    ],
)
def test_what_is_of_another_kind_is_refused_with_its_row(
    kind: str, values: list[Any], labels: list[str] | None, words: str
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read(values, kind, label_names=labels)
    assert caught.value.where == "data.new, column 'y'"
    assert caught.value.mend


def test_items_by_name_are_a_catalogue_whose_first_is_none_and_which_grows_at_its_end() -> None:
    first = read(["b", "a", "b"], "item")
    assert first.label_names == ("", "a", "b")
    assert first.rows.label.tolist() == [2, 1, 2]
    assert first.sorted_names
    grown = read(["Z", "b", "0"], "item", label_names=first.label_names, new_classes="grow")
    assert grown.label_names == ("", "a", "b", "0", "Z")
    assert grown.rows.label.tolist() == [4, 2, 3]
    with pytest.raises(DataError, match="items are numbers") as caught:
        read([3], "item", label_names=(), new_classes="grow")
    assert "as text" in caught.value.mend
    old, new = (target_text(one.rows.label, one.label_names, "item") for one in (first, grown))
    assert old[0] == new[1] == "b", "a row hashes alike in a longer catalogue"
