"""What a caller hands over for prediction becomes the columns that the version was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image

from perennial.data.inputs import to_columns
from perennial.errors import DataError

TABLE = {"a": "float32 ()", "b": "float32 ()", "n": "int64 ()"}
FRAME = pd.DataFrame({"n": [1, 2, 3], "b": [0.5, 1.5, 2.5], "spare": "x", "a": [4.0, 5.0, 6.0]})
ROWS = np.array([[4.0, 0.5, 1], [5.0, 1.5, 2], [6.0, 2.5, 3]])


@pytest.mark.parametrize(
    "inputs",
    [
        FRAME,
        pa.Table.from_pandas(FRAME),
        FRAME.to_dict("list"),
        FRAME.to_dict("records"),
        ROWS,
        ROWS.tolist(),
        torch.from_numpy(ROWS),
    ],
    ids=["frame", "arrow", "mapping", "records", "array", "lists", "tensor"],
)
def test_a_table_by_name_or_by_position(inputs: Any) -> None:
    found = to_columns(inputs, TABLE)
    assert list(found) == ["a", "b", "n"]
    assert {name: f"{v.dtype} {v.shape[1:]}" for name, v in found.items()} == TABLE
    np.testing.assert_array_equal(np.stack(list(found.values()), axis=1), ROWS)


@pytest.mark.parametrize("one", [FRAME.iloc[1], FRAME.to_dict("records")[1], ROWS[1]])
def test_one_row(one: Any) -> None:
    found = to_columns(one, TABLE)
    assert {name: value.tolist() for name, value in found.items()} == {
        "a": [5.0],
        "b": [1.5],
        "n": [2],
    }


def test_images_are_read_as_the_training_data_were() -> None:
    schema = {"image": "uint8 (1, 4, 5)"}
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    opened = [Image.fromarray(one) for one in pixels]
    for inputs in (opened, pixels, pixels[:, None], {"image": opened}):
        np.testing.assert_array_equal(to_columns(inputs, schema)["image"], pixels[:, None])
    for inputs in (opened[0], pixels[0], pixels[:1]):
        np.testing.assert_array_equal(to_columns(inputs, schema)["image"], pixels[:1, None])
    colour = Image.fromarray(np.stack([pixels[0]] * 3, axis=2))
    assert to_columns([colour], {"image": "uint8 (3, 4, 5)"})["image"].shape == (1, 3, 4, 5)
    with pytest.raises(DataError, match="pixels are whole numbers from 0 to 255"):
        to_columns(pixels / 255, schema)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (FRAME.drop(columns=["a", "b"]), "no column 'a', nor 1 others"),
        (ROWS[:, :2], "A row has 2 values, and the version takes 3"),
        (ROWS[None], "cannot be told apart into 3 columns"),
        (np.add(ROWS, [0, 0, 0.5]), "float64, and the version takes int64"),
        (np.where(ROWS == 0.5, np.nan, ROWS), "NaN"),
        (["row.png"], "not numbers"),
        ([[1.0], [1.0, 2.0]], "no array"),
        ({"a": [1.0], "b": [1.0, 2.0], "n": [1]}, "differ in length"),
    ],
)
def test_what_does_not_fit_is_said(inputs: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        to_columns(inputs, TABLE)
