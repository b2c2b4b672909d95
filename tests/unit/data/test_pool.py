"""A batch gathered from pools against rows taken, joined and formed one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from perennial.data.datamodule import CycleData, TrainLoader
from perennial.data.form import to_data
from perennial.data.mixing import draw, of_rank
from perennial.data.pool import Pools
from perennial.data.rows import Rows, concatenate

KINDS = ("image", "table", "text", "vector", "tokens", "unlike")


def rows(count: int, kind: str, seed: int, *, logits: bool = False) -> Rows:
    generator = np.random.default_rng(seed)
    label: Any = generator.integers(0, 3, count)
    if kind == "image":
        features: dict[str, Any] = {"x": generator.integers(0, 256, (count, 1, 4, 4), np.uint8)}
    elif kind == "table":
        features = {
            "a": generator.integers(-5, 5, count),
            "b": generator.random(count),
            "c": generator.integers(0, 2, count).astype(bool),
        }
        label = generator.random(count, dtype=np.float32)
    elif kind == "unlike":  # the two pools have other dtypes, whose common one holds both
        values = generator.integers(-100, 100, (count, 1, 2, 2))
        small = values.astype(np.int8)
        features = {"x": small if seed == 0 else values * 1000, "y": small if seed else small / 7}
    elif kind == "vector":
        features = {"x": generator.integers(0, 9, (count, 3), np.uint16), "y": np.ones((count, 2))}
    else:
        mask = np.arange(20) < generator.integers(0, 21, count)[:, None]
        features = {"input_ids": mask * 7, "attention_mask": mask.astype(np.uint8)}
        if kind == "tokens":
            label = generator.integers(0, 3, (count, 10 + seed))
    ids = np.array([f"{seed}-{i}" for i in range(count)])
    kept = {
        "logits": generator.random((count, 3), dtype=np.float32),
        "logits_version": np.ones(count, dtype=np.int32),
    }
    return Rows(
        features=features, label=label, id=ids, content=ids, cluster=ids, **(kept if logits else {})
    )


def same(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        found, expected = list(found.values()), list(expected.values())
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize("form", ["tuple", "dict"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_gathered_batch_is_that_of_rows_joined(kind: str, form: str, placed: bool) -> None:
    new, history = rows(11, kind, 0), rows(17, kind, 1, logits=True)
    pools = Pools(new, history, form=form, label="y")
    if placed:
        pools.place(torch.device("cpu"))
    generator = np.random.default_rng(0)
    for count in (0, 4):
        at, old = generator.integers(0, 11, 3), generator.integers(0, 17, count)
        batch = pools.batch(at, old)
        joined = concatenate([new.take(at), history.take(old)])
        same(batch.data, to_data(joined, form=form, label="y", cuts=pools.cuts))
        assert batch.ids.tolist() == joined.id.tolist()
        assert batch.is_new.tolist() == [True] * 3 + [False] * count
        assert batch.logits is not None
        assert np.array_equal(batch.logits.numpy(), joined.logits, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rows_bytes_are_what_a_batch_takes(kind: str) -> None:
    pools = Pools(rows(11, kind, 0), None, form="dict", label="target")
    pools.lengths = []  # texts in full
    data = pools.batch(np.arange(1), np.arange(0)).data
    assert pools.row_bytes == sum(one.nbytes for one in data.values())


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_a_pass_and_none_meets_a_row_of_another(ranks: int) -> None:
    sizes = {"new_per_batch": 3 * ranks, "replayed_per_batch": 4 * ranks}
    whole = {"seed": 0, "epoch": 1, "new_rows": 47, "history_rows": 90, **sizes}
    seen: list[int] = []
    for batch in range(-(-47 // (3 * ranks))):
        drawn = draw(batch=batch, **whole)
        shares = [of_rank(drawn, rank=rank, ranks=ranks) for rank in range(ranks)]
        assert {len(new) + len(old) for new, old in shares} == {7}
        assert sorted(np.concatenate([s[0] for s in shares])) == sorted(drawn[0])
        assert sorted(np.concatenate([s[1] for s in shares])) == sorted(drawn[1])
        seen += np.concatenate([s[0] for s in shares]).tolist()
    assert sorted(seen) == list(range(47))


def test_loaders_of_two_ranks_visit_every_new_row_once() -> None:
    pools = Pools(rows(21, "vector", 0), rows(30, "vector", 1), form="tuple", label="y")
    seen: list[str] = []
    for rank in range(2):
        loader = TrainLoader(
            pools=pools, new_per_batch=2, replayed_per_batch=3, seed=0, rank=rank, ranks=2
        )
        assert len(loader) == 6
        for _ in loader:
            assert loader.current is not None
            assert len(loader.current) == 5
            seen += loader.current.ids[loader.current.is_new].tolist()
    assert sorted(seen) == sorted(f"0-{i}" for i in range(21))


def test_settled_data_load_the_rows_of_their_rank() -> None:
    new = rows(20, "vector", 0)
    data = CycleData(
        new=new, history=None, new_validation=new, history_validation=None, batch_size=5,
        new_fraction=None, form="tuple", label="y", seed=0,
    )  # fmt: skip
    data.settle(torch.device("cpu"), rank=1, ranks=2)
    loader = data.train_dataloader()
    assert (loader.rank, loader.ranks, len(loader)) == (1, 2, 2)
    data.batch_size = 4  # as a tuner sets it
    assert (data.train_dataloader().rank, len(data.train_dataloader())) == (1, 3)


def test_padding_is_what_batches_hold_beyond_the_lengths() -> None:
    new, history = rows(11, "text", 0), rows(17, "text", 1)
    pools = Pools(new, history, form="dict", label="y")
    assert pools.padding() is None
    positions = used = 0
    for at, old in ((np.array([0, 3]), np.array([5, 16])), (np.array([1, 1]), np.array([2, 2]))):
        mask = pools.batch(at, old).data["attention_mask"]
        positions += mask.numel()
        used += sum(max(int(row.sum()), 1) for row in mask)
    assert pools.padding() == pytest.approx(1 - used / positions)
    assert Pools(rows(3, "vector", 0), None, form="dict", label="y").padding() is None
