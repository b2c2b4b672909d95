"""A window that goes by in pieces, against the same rows in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perennial.data import streaming
from perennial.data.preprocess import Text
from perennial.errors import DataError
from perennial.monitoring.reference import Reference
from perennial.monitoring.window import Sampler, Window
from support.drifting import columns, reference, rows

REFERENCE = reference(rows(columns(300, 0)))


def table(features: dict[str, Any]) -> pa.Table:
    return pa.table(
        {
            "label": pa.array(["secret"] * len(features["a"])),
            "a": features["a"].astype(np.float64),
            "b": features["b"].astype(np.float64),
            "city": pa.array(features["city"].tolist()).dictionary_encode(),
        }
    )


def met(window: Window) -> tuple[Any, ...]:
    numbers, cities, sampler = [], {}, Sampler(50, 3)
    for chunk in window:
        numbers.append(chunk.numbers("a"))
        for name, count in chunk.counts("city").items():
            cities[name] = cities.get(name, 0) + count
        sampler.add(chunk)
    kept = sampler.features(20)
    return np.concatenate(numbers), cities, kept["b"].tolist(), kept["city"].tolist()


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_pieces_are_the_whole(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "PIECE", 77)
    features = columns(400, 1)
    path = tmp_path / f"week.{suffix}"
    if suffix == "parquet":
        pq.write_table(table(features), path)
    else:
        pa.csv.write_csv(
            table(features).cast(
                pa.schema([*[*table(features).schema][:3], ("city", pa.string())])
            ),
            path,
        )
    expected = met(Window.of(features, REFERENCE))
    opened = Window.open(path, REFERENCE)
    assert len(list(opened)) == 6
    found = met(opened)
    assert (found[0] == expected[0]).all()
    assert found[1:] == expected[1:]


def test_a_sample_is_uniform_and_does_not_depend_on_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    class Numbered:
        def __init__(self, first: int, count: int) -> None:
            self.values = np.arange(first, first + count)

        def __len__(self) -> int:
            return len(self.values)

        def features(self, index: Any) -> dict[str, Any]:
            return {"x": self.values[index]}

    def sampled(pieces: list[int], seed: int) -> list[int]:
        sampler, first = Sampler(10, seed), 0
        for count in pieces:
            sampler.add(Numbered(first, count))  # type: ignore[arg-type]
            first += count
        found: list[int] = sampler.features(10)["x"].tolist()
        return found

    assert sampled([100], 0) == sampled([7, 1, 50, 42], 0) == sampled([1] * 100, 0)
    drawn = np.concatenate([sampled([30, 70], seed) for seed in range(400)])
    counts = np.bincount(drawn, minlength=100)
    assert len(drawn) == 4000
    assert np.square(counts - 40).sum() / 40 < 160, "a chi-square of 99 degrees, far below"


def test_numbers_are_read_in_the_dtype_of_the_reference() -> None:
    features = columns(50, 1)
    features["a"] = np.full(50, 0.1)
    (chunk,) = Window.of(features, REFERENCE)
    assert (chunk.numbers("a") == np.float64(np.float32(0.1))).all()


def change(features: dict[str, Any], kind: str) -> dict[str, Any]:
    if kind == "vanished":
        return {name: values for name, values in features.items() if name != "b"}
    if kind == "text":
        return {**features, "b": features["city"]}
    return {**features, "b": np.stack([features["b"]] * 2, axis=1)}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("vanished", "no column 'b', which the reference"),
        ("text", "Column 'b' is str \\(\\) in the window and float32 \\(\\)"),
        ("wide", "Column 'b' is float32 \\(2,\\) in the window"),
    ],
)
def test_another_schema_is_refused(kind: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Window.of(change(columns(50, 1), kind), REFERENCE)


def test_a_file_with_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "week.parquet"
    whole = table(columns(50, 1))
    pq.write_table(whole.drop_columns(["b"]), path)
    with pytest.raises(DataError, match="no column 'b'"):
        list(Window.open(path, REFERENCE))
    pq.write_table(whole.set_column(2, "b", pa.array(["x"] * 50)), path)
    (chunk,) = Window.open(path, REFERENCE)
    with pytest.raises(DataError, match="cannot be read as numbers"):
        chunk.numbers("b")
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be read"):
        list(Window.open(path, REFERENCE))


def test_a_reference_of_texts_is_met_by_their_lengths(tmp_path: Path) -> None:
    words = np.array(["äb", "abcd", ""] * 50).astype(np.dtypes.StringDType())
    whole: Reference = reference(
        rows({"text": words}), schema={"text": "str ()"}, preprocess=Text(column="text")
    )
    path = tmp_path / "week.parquet"
    pq.write_table(pa.table({"text": words.tolist()}), path)
    (chunk,) = Window.open(path, whole)
    assert chunk.numbers("text").tolist() == [2, 4, 0] * 50
