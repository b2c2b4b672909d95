"""Lists of unequal length, from a source through memory and replay to a prediction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import perennial
from perennial.data.columns import to_lists
from perennial.data.preprocess import Lists
from perennial.data.source import open_source, read_rows
from perennial.errors import DataError
from perennial.promotion.registry import Registry
from support.remembered import stored

LISTS = (
    "data.preprocess={_target_: perennial.data.preprocess.Lists, column: tokens, max_length: 12}"
)


def source(path: Path, seed: int, *, dtype: str = "int64") -> str:
    """600 lists of 0 to 14 numbers, those of a class among numbers of its own."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 3, 600)
    lists = [(generator.integers(1, 10, size) + 10 * one).astype(dtype).tolist()
             for one, size in zip(label, generator.integers(0, 15, 600), strict=True)]  # fmt: skip
    pd.DataFrame({"tokens": lists, "label": label}).to_parquet(path)
    return str(path)


def test_lists_are_kept_as_they_came_and_replayed_and_predicted(
    run: Callable[..., dict[str, Any]], home: Path, tmp_path: Path
) -> None:
    old, new = source(tmp_path / "0.parquet", 0), source(tmp_path / "1.parquet", 1, dtype="float64")
    result = run(
        "data=files", LISTS, "model=custom", "model._target_=support.nets.Bag",
        "+model.vocabulary=40", "+model.classes=3", "model_name=lists", "trainer.max_steps=6",
        "trainer.validate_every=3", "method=replay", "gate.retention=waived", "history=memory",
        f"data.history={old}", f"data.new={new}",
    )  # fmt: skip
    assert result["error"] is None
    assert result["cost"]["replayed_rows"] > 0
    first = Registry(url=f"sqlite:///{home / 'registry.db'}").version("lists@1")
    assert first.manifest["schema"] == {"tokens": "list int64 ()"}
    given = {tuple(one.tolist()) for one in pd.read_parquet(old)["tokens"]}
    kept = stored(first).features["tokens"].tolist()
    assert {len(one) for one in kept} == set(range(15))
    assert {tuple(one.tolist()) for one in kept} <= given
    assert {one.dtype for one in kept} == {np.dtype(np.int64)}
    predictor = perennial.load("lists@2", allow=["support.nets.Bag"])
    asked = [[1, 2, 3], [], [21, 22]]
    frame = pd.DataFrame({"tokens": asked})
    assert predictor.predict(frame) == predictor.predict([{"tokens": one} for one in asked])
    assert len(predictor.predict(frame)) == 3


def test_a_row_is_the_same_however_its_numbers_are_written(tmp_path: Path) -> None:
    lists = Lists(column="tokens", max_length=12)
    read = [
        read_rows(
            open_source(source(tmp_path / f"{dtype}.parquet", 0, dtype=dtype), name="new"),
            name="new", preprocess=lists, schema={"tokens": "list int64 ()"},
        ).rows
        for dtype in ("int64", "float64", "int16")
    ]  # fmt: skip
    for other in read[1:]:
        assert other.content.tolist() == read[0].content.tolist()
    full = {tuple(one.tolist()) for one in read[0].features["tokens"]}
    assert len(full) <= len(set(read[0].content.tolist()))
    applied = lists.apply(read[0].features)
    for one, values, mask in zip(
        read[0].features["tokens"], applied["tokens"], applied["attention_mask"], strict=True
    ):
        assert values.tolist() == [*one[:12].tolist(), *[0] * (12 - len(one))]
        assert mask.tolist() == [int(place < len(one)) for place in range(12)]
    (note,) = lists.notes(read[0].features, name="new")
    assert note.startswith(
        f"new: {sum(len(one) > 12 for one in read[0].features['tokens'])} of 600"
    )


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([[1, 2], None], "missing values in 1 of 2 rows"),
        ([[1.0], [2.0, None]], "missing or infinite values in 1 of 2 rows, first in row 1"),
        ([[1.0], [float("inf")]], "missing or infinite values in 1 of 2 rows"),
        ([["a"], ["b"]], "no lists of numbers"),
        ([1, 2], "no lists of numbers"),
        ([[[1]], [[2]]], "no lists of numbers"),
    ],
)
def test_lists_that_cannot_be_trained_on_are_refused(values: Any, told: str) -> None:
    import pyarrow as pa

    with pytest.raises(DataError, match=told):
        to_lists(pa.chunked_array([pa.array(values)]), where="data.new, column 'tokens'")
