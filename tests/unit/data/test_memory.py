import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from perennial.data.memory import Memory
from perennial.data.rows import Rows, concatenate
from perennial.data.selection import reservoir
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
