from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from perennial.data.memory import Memory
from perennial.data.rows import Rows, concatenate
from perennial.data.selection import class_balanced, reservoir
from perennial.data.store import read_rows_file, write_rows
from perennial.errors import ConfigError, DataError


def rows(numbers):
    ids = np.array([f"{n:04}" for n in numbers], dtype="<U32")
    x = np.array(list(numbers), dtype=np.float32)
    image = np.stack([x, x + 1, x + 2, x + 3], axis=1).astype(np.uint8).reshape(len(ids), 2, 2)
    features = {"x": x, "image": image, "flag": x > 2}
    return Rows(features=features, label=x.astype(np.int64), id=ids, content=ids, cluster=ids)


def test_inclusion_is_uniform():
    ids = rows(range(40)).id
    counts = np.zeros(40)
    for seed in range(2000):
        kept = reservoir(ids, 10, seed)
        assert len(np.unique(kept)) == 10
        counts[kept] += 1
    # without replacement the variance is np(1-p), so the statistic is rescaled by 1/(1-p)
    statistic = ((counts - 500) ** 2 / 500).sum() / 0.75 * 39 / 40
    assert 0.001 < stats.chi2.sf(statistic, 39) < 0.999
    assert abs(counts[:10].sum() / 20000 - 0.25) < 0.01


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(30)), st.integers(1, 40), st.integers(1, 29))
def test_memory_does_not_depend_on_order_or_batches(order, capacity, cut):
    memory = Memory(capacity=capacity, seed=3)
    whole = memory.update(None, rows(range(30)))
    parts = memory.update(memory.update(None, rows(order[:cut])), rows(order[cut:]))
    assert whole.id.tolist() == parts.id.tolist()
    assert len(whole) == min(capacity, 30)
    assert memory.update(whole, rows(order)).id.tolist() == whole.id.tolist()


def test_capacity():
    with pytest.raises(ConfigError):
        Memory(capacity=0)
    assert len(Memory(capacity=5).update(None, concatenate([rows(range(3)), rows(range(3))]))) == 3


@pytest.mark.parametrize("count", [0, 7])
def test_store_round_trip(tmp_path, count):
    before = rows(range(count))
    extra = {"seen": np.arange(count) > 3, "role": np.array(["train"] * count, dtype="<U10")}
    digest = write_rows(tmp_path / "a.arrow", before, extra)
    assert write_rows(tmp_path / "b.arrow", before, extra) == digest
    after, found = read_rows_file(tmp_path / "a.arrow")
    for name, column in {**before.features, "label": before.label, "id": before.id}.items():
        value = after.features.get(name) if name in after.features else getattr(after, name)
        assert value.dtype == column.dtype
        assert np.array_equal(value, column)
    for name, column in extra.items():
        assert found[name].dtype == column.dtype
        assert np.array_equal(found[name], column)


def test_odd_files_are_refused(tmp_path):
    path = tmp_path / "a.arrow"
    write_rows(path, rows(range(7)))
    content = path.read_bytes()
    for odd in (b"", b"text", content[: len(content) // 2]):
        path.write_bytes(odd)
        with pytest.raises(DataError, match="cannot be read"):
            read_rows_file(path)
    with pytest.raises(DataError):
        read_rows_file(tmp_path / "none.arrow")


def classes(numbers, label):
    return replace(rows(numbers), label=np.asarray(label, dtype=np.int64))


@pytest.mark.parametrize(
    ("sizes", "capacity", "expected"),
    [
        ((50, 3, 10), 12, [[5, 3, 4], [4, 3, 5]]),
        ((50, 3, 10), 9, [[3, 3, 3]]),
        ((2, 1), 10, [[2, 1]]),
        ((7,), 3, [[3]]),
        ((30, 30), 7, [[4, 3], [3, 4]]),
    ],
)
def test_class_balanced_fills_classes_evenly(sizes, capacity, expected):
    label = np.repeat(np.arange(len(sizes)), sizes)
    memory = Memory(capacity=capacity, seed=1, selection="class_balanced")
    kept = memory.update(None, classes(range(len(label)), label))
    assert np.bincount(kept.label, minlength=len(sizes)).tolist() in expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=40), st.integers(1, 25), st.data())
def test_class_balanced_samples_merge(label, capacity, data):
    order = data.draw(st.permutations(range(len(label))))
    cut = data.draw(st.integers(1, len(label) - 1))
    memory = Memory(capacity=capacity, seed=2, selection="class_balanced")
    whole = memory.update(None, classes(range(len(label)), label))
    table = np.array(label)
    parts = memory.update(None, classes(order[:cut], table[list(order[:cut])]))
    parts = memory.update(parts, classes(order[cut:], table[list(order[cut:])]))
    assert parts.id.tolist() == whole.id.tolist()


def test_class_balanced_is_uniform_within_a_class():
    label = np.repeat([0, 1], [20, 5])
    ids = rows(range(25)).id
    counts = np.zeros(25)
    for seed in range(2000):
        counts[class_balanced(ids, label, 10, seed)] += 1
    assert (counts[20:] == 2000).all()
    statistic = ((counts[:20] - 500) ** 2 / 500).sum() / 0.75 * 19 / 20
    assert 0.001 < stats.chi2.sf(statistic, 19) < 0.999


def test_an_unknown_selection_is_refused():
    with pytest.raises(ConfigError, match="'best' is not a way"):
        Memory(selection="best")
