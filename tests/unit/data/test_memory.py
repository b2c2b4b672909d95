"""A memory's bound, its merging, and the files that versions of it share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.data.columns import TEXT
from perennial.data.memory import Memory, Remembered, row_bytes, union
from perennial.data.rows import OWN, Rows, concatenate
from perennial.data.shards import MOST, index_of, read_index, to_write, write_index, written
from perennial.data.store import read_rows_file, write_rows
from perennial.errors import ConfigError, DataError
from support.remembered import shown


def rows(numbers: Iterable[int], label: Any = None) -> Rows:
    table = list(numbers)
    ids = np.array([f"{n:04}" for n in table], dtype="<U32")
    x = np.array(table, dtype=np.float32)
    image = np.stack([x, x + 1, x + 2, x + 3], axis=1).astype(np.uint8).reshape(len(ids), 2, 2)
    features = {"x": x, "image": image, "flag": x > 2}
    own = x.astype(np.int64) if label is None else np.asarray(label, dtype=np.int64)
    return Rows(features=features, label=own, id=ids, content=ids, cluster=ids)


def wide(numbers: Iterable[int]) -> Rows:
    """Rows of 784 bytes, as of a small picture."""
    plain = rows(numbers)
    return replace(plain, features={"image": np.zeros((len(plain), 1, 28, 28), dtype=np.uint8)})


def varied(numbers: Iterable[int]) -> Rows:
    """Rows whose columns vary in length: text, encoded images, lists of numbers."""
    plain = rows(numbers)
    lengths = [int(one) for one in plain.id.tolist()]
    images, lists = np.empty(len(plain), dtype=object), np.empty(len(plain), dtype=object)
    for row, length in enumerate(lengths):
        images[row] = bytes([row % 256]) * length
        lists[row] = np.arange(length % 5, dtype=np.int16)
    text = np.array(["ä" * (length % 7) for length in lengths], dtype=TEXT)
    return replace(plain, features={"text": text, "image": images, "list": lists})


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(30)), st.integers(1, 40), st.integers(1, 29))
def test_memory_does_not_depend_on_order_or_batches(
    order: list[int], capacity: int, cut: int
) -> None:
    memory = Memory(capacity=capacity, seed=3)
    whole = shown(memory, rows(range(30)))
    parts = shown(memory, rows(order[:cut]), rows(order[cut:]))
    assert whole.id.tolist() == parts.id.tolist()
    assert len(whole) == min(capacity, 30)
    assert shown(memory, whole, rows(order)).id.tolist() == whole.id.tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=40), st.integers(1, 25), st.data())
def test_class_balanced_samples_merge(label: list[int], capacity: int, data: Any) -> None:
    order = data.draw(st.permutations(range(len(label))))
    cut = data.draw(st.integers(1, len(label) - 1))
    memory = Memory(capacity=capacity, seed=2, selection="class_balanced")
    table = np.array(label)
    whole = shown(memory, rows(range(len(label)), table))
    parts = [rows(part, table[list(part)]) for part in (order[:cut], order[cut:])]
    assert shown(memory, *parts).id.tolist() == whole.id.tolist()


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
def test_class_balanced_fills_classes_evenly(
    sizes: tuple[int, ...], capacity: int, expected: list[list[int]]
) -> None:
    label = np.repeat(np.arange(len(sizes)), sizes)
    memory = Memory(capacity=capacity, seed=1, selection="class_balanced")
    kept = shown(memory, rows(range(len(label)), label))
    assert np.bincount(kept.label, minlength=len(sizes)).tolist() in expected


def test_the_newest_cycle_pushes_out_the_oldest() -> None:
    memory = Memory(capacity=15, seed=0, selection="most_recent")
    kept = shown(memory, rows(range(10)), rows(range(100, 110)), rows(range(200, 204)))
    numbers = [int(one) for one in kept.id.tolist()]
    assert sorted(numbers)[1:] == [*range(100, 110), *range(200, 204)]
    assert min(numbers) < 10


def test_a_smaller_bound_keeps_the_first_and_a_larger_one_brings_nothing_back() -> None:
    parts = rows(range(40)), rows(range(40, 60)), rows(range(60, 80))
    first = Memory(capacity=20, seed=4).update(None, Remembered.fresh(parts[0], 1))
    small = Memory(capacity=5, seed=4).update(first, Remembered.fresh(parts[1], 2))
    assert small.rows.id.tolist() == shown(Memory(capacity=5, seed=4), *parts[:2]).id.tolist()
    large = Memory(capacity=30, seed=4).update(small, Remembered.fresh(parts[2], 3))
    assert set(large.rows.id.tolist()) == {*small.rows.id.tolist(), *parts[2].id.tolist()}
    assert large.cycle[np.isin(large.rows.id, parts[2].id)].tolist() == [3] * 20


@pytest.mark.parametrize("made", [rows, varied])
def test_a_bound_in_bytes_is_what_the_file_takes(made: Any, tmp_path: Path) -> None:
    many = made(range(900, 3000))
    capacity = 25 * int(row_bytes(many).max())
    memory = Memory(capacity=None, capacity_bytes=capacity, seed=1)
    kept = shown(memory, many)
    size = int(row_bytes(kept).sum())
    assert 0.95 * capacity <= size <= capacity
    write_rows(tmp_path / "a.arrow", kept)
    empty = write_rows(tmp_path / "b.arrow", made([]))
    assert empty
    file = (tmp_path / "a.arrow").stat().st_size - (tmp_path / "b.arrow").stat().st_size
    assert size * 0.98 < file < size * 1.02 + 2000


def test_logits_that_come_later_count_towards_the_bytes() -> None:
    memory = Memory(capacity=None, capacity_bytes=10_000, seed=1)
    new = Remembered.fresh(rows(range(500)), 1)
    bare, beside = memory.update(None, new), memory.update(None, new, logits_bytes=100)
    each = int(row_bytes(new.rows)[0])
    expected = [math.ceil(9_500 / taken) for taken in (each, each + 100)]
    assert [len(bare), len(beside)] == expected
    # those that have theirs already are not counted twice
    there = replace(
        new.rows,
        logits=np.zeros((500, 24), dtype=np.float32),
        logits_version=np.zeros(500, dtype=np.int32),
    )
    again = memory.update(None, Remembered.fresh(there, 1), logits_bytes=100)
    assert len(again) == len(beside)


@pytest.mark.parametrize(
    ("options", "where", "words"),
    [
        ({"capacity": 0}, "data.memory.capacity", "cannot keep 0 rows"),
        ({"capacity": -3}, "data.memory.capacity", "cannot keep -3 rows"),
        ({"capacity": None, "capacity_bytes": 0}, "data.memory.capacity_bytes", "0 bytes"),
        ({"capacity_bytes": 9}, "data.memory.capacity, data.memory.capacity_bytes", "both"),
        ({"capacity": None}, "data.memory.capacity, data.memory.capacity_bytes", "neither"),
        ({"selection": "best"}, "data.memory.selection", "'best' is not a way"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(
    options: dict[str, Any], where: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        Memory(**options)
    assert refused.value.where == where


def test_a_row_larger_than_all_of_memory_is_refused() -> None:
    memory = Memory(capacity=None, capacity_bytes=20_000)
    memory.check(rows(range(5)), name="new")
    with pytest.raises(ConfigError, match=r"Row 2500 of data\.new takes 2,\d\d\d bytes"):
        memory.check(varied([10, 2500, 20]), name="new")
    with pytest.raises(ConfigError, match=r"more than 5% of memory, which has 20,000"):
        memory.check(rows(range(5)), name="new", logits_bytes=1000)
    # a bound that shrank below an old row drops that row, and keeps the others
    old = Remembered.fresh(varied([2500, 10, 20]), 1)
    assert sorted(memory.update(None, old).rows.id.tolist()) == ["0010", "0020"]


def test_repeated_rows_count_once_and_keep_their_first_form() -> None:
    twice = concatenate([rows(range(3)), replace(rows(range(3)), label=np.full(3, 9))])
    assert shown(Memory(capacity=5), twice).label.tolist() == sorted(
        [0, 1, 2], key=lambda n: shown(Memory(), rows(range(3))).id.tolist().index(f"{n:04}")
    )


# --- files ---------------------------------------------------------------------------------------


class Versions:
    """What a registry does for memories: files by their SHA-256, and the bytes that are new."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.known, self.count = folder, {}, 0

    def commit(self, memory: Remembered) -> tuple[Remembered, int, int]:
        """The memory as kept, rows and bytes written."""
        which = to_write(memory)
        bytes_written = 0
        if which.any():
            self.count += 1
            path = self.folder / f"{self.count}.arrow"
            sha = write_rows(path, memory.rows.take(which))
            self.known[sha] = path
            memory = written(memory, which, sha, OWN)
            bytes_written = path.stat().st_size
        index = self.folder / f"{self.count}-index.arrow"
        write_index(index, index_of(memory, "5 rows"))
        self.check(memory, index)
        return memory, int(which.sum()), bytes_written + index.stat().st_size

    def check(self, memory: Remembered, path: Path) -> None:
        index = read_index(path)
        assert index.cycle.tolist() == memory.cycle.tolist()
        for name in index.shards:
            at = index.shard == name
            kept = read_rows_file(self.known[name])[0].take(index.place[at])
            assert kept.id.tolist() == memory.rows.id[at].tolist()


def test_an_update_writes_only_what_is_new_and_half_dead_files_are_joined(
    tmp_path: Path,
) -> None:
    memory, versions = Memory(capacity=1000, seed=0), Versions(tmp_path)
    parts = [wide(range(cycle * 1000, cycle * 1000 + 1000)) for cycle in range(1, 31)]
    kept: Remembered | None = None
    rows_written, bytes_written = [], []
    for cycle, part in enumerate(parts, start=1):
        kept = memory.update(kept, Remembered.fresh(part, cycle))
        kept, count, size = versions.commit(kept)
        rows_written.append(count)
        bytes_written.append(size)
        total = sum(shard.rows for shard in kept.shards.values())
        assert total <= 2 * len(kept), "no more dead rows than living ones"
    assert kept is not None
    assert kept.rows.id.tolist() == shown(memory, *parts).id.tolist()
    # 2K/t rows in the t-th cycle, where writing all anew is K each time
    assert rows_written[0] == 1000
    assert sum(rows_written[10:]) == pytest.approx(sum(2000 / t for t in range(11, 31)), rel=0.15)
    assert sum(bytes_written[10:]) < 0.15 * bytes_written[0] * 20


def test_many_small_files_are_joined(tmp_path: Path) -> None:
    memory, versions = Memory(capacity=10_000), Versions(tmp_path)
    kept: Remembered | None = None
    most, total = 0, 0
    for cycle in range(1, 3 * MOST):
        kept, count, _ = versions.commit(
            memory.update(kept, Remembered.fresh(rows([cycle]), cycle))
        )
        most, total = max(most, len(kept.shards)), total + count
    assert kept is not None
    assert len(kept) == 3 * MOST - 1
    assert most <= MOST + 1
    assert total < 8 * len(kept)


def test_a_row_that_changed_is_written_anew(tmp_path: Path) -> None:
    versions = Versions(tmp_path)
    kept, _, _ = versions.commit(Memory().update(None, Remembered.fresh(rows(range(10)), 1)))
    same, count, _ = versions.commit(kept)
    assert (count, same.shards) == (0, kept.shards)
    which = np.arange(10) < 3
    after, count, _ = versions.commit(kept.changed(kept.rows, which))
    assert count == 3
    assert len(after.shards) == 2


def test_memories_of_two_versions_join(tmp_path: Path) -> None:
    versions = Versions(tmp_path)
    a, _, _ = versions.commit(Remembered.fresh(rows(range(10)), 1))
    b, _, _ = versions.commit(Remembered.fresh(rows(range(5, 15)), 2))
    both = union([a, b])
    assert sorted(int(one) for one in both.rows.id.tolist()) == list(range(15))
    after, count, _ = versions.commit(both)
    assert (count, len(after.shards)) == (0, 2)
    assert len(union([a]).rows) == 10


@pytest.mark.parametrize("made", [rows, varied])
@pytest.mark.parametrize("count", [0, 7])
def test_store_round_trip(tmp_path: Path, count: int, made: Any) -> None:
    before = made(range(count))
    extra = {"seen": np.arange(count) > 3, "role": np.array(["train"] * count, dtype="<U10")}
    digest = write_rows(tmp_path / "a.arrow", before, extra)
    assert write_rows(tmp_path / "b.arrow", before, extra) == digest
    after, found = read_rows_file(tmp_path / "a.arrow")
    for name, column in {**before.features, "label": before.label, "id": before.id}.items():
        value = after.features[name] if name in after.features else getattr(after, name)
        assert value.dtype == column.dtype
        pairs = list(zip(value, column, strict=True))
        assert all(np.array_equal(a, b) for a, b in pairs)
        assert all(type(a) is type(b) for a, b in pairs)
        assert all(getattr(a, "dtype", None) == getattr(b, "dtype", None) for a, b in pairs)
    for name, column in extra.items():
        assert found[name].dtype == column.dtype
        assert np.array_equal(found[name], column)


def test_odd_files_are_refused(tmp_path: Path) -> None:
    path, index = tmp_path / "a.arrow", tmp_path / "index.arrow"
    write_rows(path, rows(range(7)))
    kept = written(Remembered.fresh(rows(range(7)), 1), np.ones(7, dtype=bool), "ab", OWN)
    write_index(index, index_of(kept, "9 rows"))
    assert read_index(index).bound == "9 rows"
    for one, reader in ((path, read_rows_file), (index, read_index)):
        content = one.read_bytes()
        for odd in (b"", b"text", content[: len(content) // 2]):
            one.write_bytes(odd)
            with pytest.raises(DataError, match="cannot be read"):
                reader(one)
        one.write_bytes(content)
    with pytest.raises(DataError):
        read_rows_file(tmp_path / "none.arrow")
    with pytest.raises(DataError, match="cannot be read"):
        read_index(path)
    assert pa.ipc.open_file(pa.memory_map(str(index))).read_all().num_rows == 7
