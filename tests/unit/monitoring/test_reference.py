"""What a version carries: a sample that does not depend on order, and what is known of all rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from perennial.data.columns import TEXT
from perennial.data.images import encoded_as
from perennial.data.preprocess import Text
from perennial.data.selection import reservoir
from perennial.errors import ConfigError, RegistryError
from perennial.monitoring import reference as module
from perennial.monitoring.reference import FACTS, ROWS, check_capacity, column_kind, read, write
from support.drifting import columns, reference, rows


def test_the_sample_is_the_lowest_priorities_whatever_the_order() -> None:
    given = rows(columns(500, 0))
    found = reference(given, held=100, capacity=120)
    lowest = given.id[reservoir(given.id, seed=0)[:120]]
    assert found.rows.id.tolist() == lowest.tolist()
    assert found.total == {"train": 400, "holdout": 100}
    assert ((found.role == "holdout") == (found.rows.id >= "00000400")).all()
    again = reference(given.take(np.arange(500)[::-1]), capacity=120)
    assert again.rows.id.tolist() == lowest.tolist()
    assert not found.has_time


def test_what_is_known_is_of_all_rows() -> None:
    features = columns(500, 0)
    features["a"][:50] = np.nan
    features["city"][7] = "Ulm"
    found = reference(rows(features), capacity=100)
    assert found.known["city"]["Ulm"] == 1
    assert sum(found.known["city"].values()) == 500
    assert found.moments["a"]["missing"] == 50
    assert found.moments["a"]["mean"] == pytest.approx(np.nanmean(features["a"]), rel=1e-5)
    assert found.moments["b"]["deviation"] == pytest.approx(features["b"].std(), rel=1e-5)


def test_rows_keep_their_place_in_time() -> None:
    time = np.array("2026-01-01", dtype="M8[s]") + np.random.default_rng(0).permutation(500)
    found = reference(rows(columns(500, 0), time=time), capacity=200)
    assert found.has_time
    assert found.time == (str(time.min()), str(time.max()))
    place = np.argsort(np.argsort(time))
    assert (found.order == place[found.rows.id.astype(int)]).all()


def test_rows_that_take_much_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reference(rows(columns(500, 0)))
    monkeypatch.setattr(module, "MOST_BYTES", 12_000)
    found = reference(rows(columns(500, 0)))
    assert 10 < len(found) < 300
    assert found.rows.id.tolist() == whole.rows.id[: len(found)].tolist()


def test_written_and_read(tmp_path: Path) -> None:
    time = np.arange(300)
    found = reference(rows(columns(300, 0), time=time), held=50)
    files = write(found, tmp_path)
    facts = tmp_path / "facts.json"
    facts.write_bytes(files[FACTS])  # type: ignore[arg-type]
    again = read(Path(str(files[ROWS])), facts, version="m@1")
    assert again.version == "m@1"
    for name in ("role", "order"):
        assert (getattr(again, name) == getattr(found, name)).all()
    for name in ("reads", "schema", "total", "known", "moments", "time", "cycle"):
        assert getattr(again, name) == getattr(found, name), name
    assert all((again.rows.features[n] == found.rows.features[n]).all() for n in found.columns)
    for broken in ({}, {**json.loads(files[FACTS]), "schema": {"a": "float32 ()"}}):  # type: ignore[arg-type]
        facts.write_text(json.dumps(broken))
        with pytest.raises(RegistryError, match="m@1 is malformed"):
            read(Path(str(files[ROWS])), facts, version="m@1")


def test_what_is_compared_of_a_column() -> None:
    assert column_kind("str ()", "text") == column_kind("str ()", "sequence") == "length"
    assert column_kind("str ()", "category") == "category"
    assert column_kind("int64 ()", "fixed") == "number"
    assert column_kind("uint8 (1, 8, 8)", "fixed") == "mean"
    texts = {"text": np.array(["ab", "abcd"] * 100).astype(TEXT)}
    found = reference(rows(texts), schema={"text": "str ()"}, preprocess=Text(column="text"))
    assert set(found.numbers("text").tolist()) == {2.0, 4.0}
    pixels = {"image": np.arange(200 * 4, dtype=np.uint8).reshape(200, 2, 2)}
    images = reference(rows(pixels), schema={"image": "uint8 (2, 2)"}, preprocess=None)
    assert sorted(images.numbers("image")) == sorted(pixels["image"].mean(axis=(1, 2)))


@pytest.mark.parametrize("capacity", [99, 0, -1, 200.0, True])
def test_a_sample_that_says_nothing_is_refused(capacity: int) -> None:
    with pytest.raises(ConfigError, match="from 100 up"):
        check_capacity(capacity)


def test_encoded_images_and_lists_are_one_number_a_row() -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (1500, 1, 4, 5), dtype=np.uint8)
    encoded = encoded_as(pixels)
    np.testing.assert_allclose(
        module.as_numbers(encoded, "mean"), pixels.reshape(1500, -1).mean(axis=1), rtol=1e-12
    )
    lists = np.empty(3, dtype=object)
    lists[:] = [np.arange(2), np.arange(0), np.arange(7)]
    assert module.as_numbers(lists, "length").tolist() == [2, 0, 7]
    assert module.as_numbers(encoded[:0], "mean").shape == (0,)
