"""Columns larger than memory: the same values from a file, of which only what is drawn is read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest

from perennial.data import spill
from perennial.data.pool import Pools
from perennial.data.rows import Rows, concatenate
from perennial.data.source import open_source, read_rows
from perennial.errors import DataError


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "SMALL", 100)
    monkeypatch.setattr(spill, "PART", 1000)
    monkeypatch.setattr(spill, "free_bytes", lambda device: 4000)


def rows(count: int, seed: int) -> Rows:
    generator = np.random.default_rng(seed)
    ids = np.array([f"{seed}-{i}" for i in range(count)])
    features = {
        "x": generator.integers(0, 256, (count, 2, 5), np.uint8),
        "y": generator.random((count, 3)),
        "small": np.arange(count, dtype=np.int16),
    }
    return Rows(features=features, label=np.arange(count), id=ids, content=ids, cluster=ids)


def same(one: Rows, other: Rows) -> None:
    for name, column in other.features.items():
        assert one.features[name].dtype == column.dtype
        assert np.array_equal(one.features[name], column)
    assert one.id.tolist() == other.id.tolist()


@pytest.mark.usefixtures("tight")
def test_what_does_not_fit_is_mapped_and_has_the_same_values() -> None:
    whole = rows(400, 0)
    mask = np.arange(400) % 3 > 0
    found = whole.take(mask)
    assert isinstance(found.features["x"], np.memmap)
    assert not isinstance(found.features["small"], np.memmap)
    for name, column in whole.features.items():
        assert np.array_equal(found.features[name], column[mask])
    order = np.random.default_rng(1).permutation(len(found))
    again = found.take(order)
    assert np.array_equal(again.features["y"], whole.features["y"][mask][order])
    parts = [found, rows(300, 1)]
    both = concatenate(parts)
    assert isinstance(both.features["x"], np.memmap)
    for name in whole.features:
        expected = np.concatenate([part.features[name] for part in parts])
        assert np.array_equal(both.features[name], expected)


@pytest.mark.usefixtures("tight")
def test_columns_of_unlike_dtypes_are_mapped_in_one_that_holds_both() -> None:
    narrow, wide = np.arange(900, dtype=np.int8) % 100, np.arange(900) * 1000
    both = spill.joined([narrow, wide, np.empty(0, dtype=np.float64)])
    assert isinstance(both, np.memmap)
    assert both.dtype == np.int64
    assert both.tolist() == [*narrow.tolist(), *wide.tolist()]


@pytest.mark.usefixtures("tight")
def test_a_column_that_comes_in_parts_is_mapped_where_it_does_not_fit() -> None:
    for size, mapped in ((10, False), (400, True)):
        parts = [np.full((size // 2, 3), number, dtype=np.float32) for number in (1, 2)]
        found = spill.filled(iter(parts), (size, 3), np.dtype(np.float32))
        assert isinstance(found, np.memmap) == mapped
        assert np.array_equal(found, np.concatenate(parts))


@pytest.mark.usefixtures("tight")
def test_batches_of_mapped_rows_are_those_of_rows_in_memory() -> None:
    new, history = rows(300, 0), rows(350, 1)
    every = [part.take(np.ones(len(part), dtype=bool)) for part in (new, history)]
    assert isinstance(every[1].features["y"], np.memmap)
    at, old = np.array([5, 1, 299]), np.array([0, 349, 7, 7])
    found = Pools(*every, form="dict", label="l").batch(at, old)
    expected = Pools(new, history, form="dict", label="l").batch(at, old)
    assert all(expected.data[name].equal(column) for name, column in found.data.items())


@pytest.mark.usefixtures("tight")
def test_no_room_for_a_column_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> Any:
        return open("/dev/full", "wb", buffering=0)

    own = SimpleNamespace(TemporaryFile=full, gettempdir=lambda: "/dev")
    monkeypatch.setattr(spill, "tempfile", own)
    with pytest.raises(DataError, match=r"No space left(?s:.*)set TMPDIR"):
        rows(400, 0).take(np.ones(400, dtype=bool))


def test_a_source_that_shrinks_after_its_split_changes_no_batch(tmp_path: Path) -> None:
    path = tmp_path / "new.feather"
    values = np.random.default_rng(0).random((5000, 4))
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 4)
    table = pa.table({"x": lists, "label": pa.array(np.arange(5000) % 2)})
    pyarrow.feather.write_feather(table, str(path), compression="uncompressed")
    source = read_rows(open_source(path, name="new"), name="new")
    kept = np.flatnonzero(np.arange(5000) % 3)
    pools = Pools(source.rows.take(kept), None, form="tuple", label="label")
    del source, table
    os.truncate(path, 100)
    at = np.array([3000, 0, 17])
    inputs, targets = pools.batch(at, at[:0]).data
    assert np.array_equal(inputs.numpy(), values[kept[at]].astype(np.float32))
    assert targets.tolist() == (kept[at] % 2).tolist()


LARGE = """
import resource, sys
import numpy as np
from perennial.data.datamodule import TrainLoader
from perennial.data.pool import Pools
from perennial.data.rows import Rows

def column(name, dtype, *shape):
    path = f"{sys.argv[1]}/{name}"
    with open(path, "wb") as file:
        file.truncate(10**8 * np.dtype(dtype).itemsize * int(np.prod(shape)))
    return np.memmap(path, dtype=dtype, mode="r", shape=(10**8, *shape))

ids = column("ids", "<U32")
label = column("label", np.int64)
history = Rows(features={"x": column("x", np.uint8, 784)}, label=label,
               id=ids, content=ids, cluster=ids)
few = Rows(features={"x": np.zeros((500, 784), np.uint8)}, label=np.zeros(500, np.int64),
           id=ids[:500], content=ids[:500], cluster=ids[:500])
own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_DATA, ((own << 10) + (128 << 20),) * 2)
loader = TrainLoader(pools=Pools(few, history, form="tuple", label="label"),
                     new_per_batch=10, replayed_per_batch=40, seed=0)
rows = [loader.current.is_new.sum() for epoch in range(2) for _ in loader]
assert rows == [10] * 100
drawn = np.concatenate([loader.rows(0, n)[1] for n in range(50)])
assert len(np.unique(drawn)) == 2000 and drawn.max() > 9 * 10**7
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - own
assert grown << 10 < 128 << 20, grown
"""


def test_a_hundred_million_rows_are_sampled_without_being_read(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) > 90 * 10**9
