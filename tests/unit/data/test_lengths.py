"""Texts of like length share batches, and nothing else of a pass changes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.data.datamodule import TrainLoader
from perennial.data.lengths import LENGTHS, WINDOW, best_cuts, cut_at, even_cuts, grouped, lengths
from perennial.data.mixing import draw
from perennial.data.pool import Pools
from perennial.data.rows import Rows

WIDTH = 40
NEW, HISTORY = 333, 150


def texts(count: int, seed: int) -> Rows:
    """Rows whose tokens all are the row's number."""
    mask = np.arange(WIDTH) < np.random.default_rng(seed).integers(1, WIDTH + 1, count)[:, None]
    ids = np.array([f"{seed}-{i}" for i in range(count)])
    features = {
        "input_ids": mask * np.arange(1, count + 1)[:, None],
        "attention_mask": mask.astype(np.uint8),
    }
    label = np.zeros(count, dtype=np.int64)
    return Rows(features=features, label=label, id=ids, content=ids, cluster=ids)


def loader(*, history: int = HISTORY, sampling: str = "passes", **ranks: int) -> TrainLoader:
    pools = Pools(texts(NEW, 0), texts(history, 1) if history else None, form="dict", label="y")
    sizes = {"new_per_batch": 4, "replayed_per_batch": 6 if history else 0}
    return TrainLoader(pools=pools, seed=5, sampling=sampling, **sizes, **ranks)


def test_lengths_are_those_of_a_loop() -> None:
    mask = np.random.default_rng(0).integers(0, 2, (200, 9))
    mask[:3] = 0
    expected = [max([i + 1 for i, v in enumerate(row) if v], default=1) for row in mask]
    assert lengths(mask).tolist() == expected


@pytest.mark.parametrize("width", [1, 5, 64, 100, 128])
def test_even_cuts_are_few_and_below_no_text(width: int) -> None:
    cuts = even_cuts(width)
    assert len(set(cuts)) == len(cuts) <= LENGTHS
    assert cuts[-1] == width
    for longest in range(1, width + 1):
        assert cut_at(longest, cuts) == min(cut for cut in cuts if cut >= longest)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=30),
    st.lists(st.integers(1, 12), max_size=30),
)
def test_best_cuts_leave_as_little_padding_as_any(new: list[int], old: list[int]) -> None:
    pools = [np.array(one, dtype=np.int32) for one in (new, old)]
    seen = sorted({*new, *old})

    def cost(cuts: tuple[int, ...]) -> float:
        full = [one for one in pools if len(one)]
        return sum(float(np.mean([cut_at(int(n), cuts) for n in one])) for one in full)

    few = min(LENGTHS, len(seen)) - 1
    least = min(cost((*chosen, seen[-1])) for chosen in itertools.combinations(seen[:-1], few))
    found = best_cuts(pools)
    assert (len(found) <= LENGTHS, found[-1]) == (True, seen[-1])
    assert cost(found) == pytest.approx(least)


def test_long_texts_are_told_apart_by_multiples() -> None:
    long = np.random.default_rng(0).integers(1, 100_000, 5000).astype(np.int32)
    cuts = best_cuts([long])
    assert len(cuts) == LENGTHS
    assert list(cuts) == sorted(set(cuts))
    assert cuts[-1] == long.max()
    # the best of uniform lengths are even
    np.testing.assert_allclose(np.diff(cuts), 12_500, rtol=0.2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), min_size=1, max_size=8))
def test_a_window_keeps_its_rows_and_each_batch_its_counts(sizes: list[tuple[int, int]]) -> None:
    generator = np.random.default_rng(3)
    known = [generator.integers(1, 9, 50).astype(np.int32) for _ in range(2)]
    drawn = [(generator.integers(0, 50, a), generator.integers(0, 50, b)) for a, b in sizes]
    found = grouped(drawn, known, key=(1, 2))
    assert [(len(new), len(old)) for new, old in found] == sizes
    for kind in range(2):
        rows = [np.concatenate([one[kind] for one in batches]) for batches in (drawn, found)]
        assert sorted(rows[0].tolist()) == sorted(rows[1].tolist())
        spans = sorted(
            (known[kind][one[kind]].min(), known[kind][one[kind]].max())
            for one in found
            if len(one[kind])
        )
        assert all(low[1] <= high[0] for low, high in itertools.pairwise(spans))
    shortest = sorted((max(known[0][new]), max(known[1][old], default=0)) for new, old in found)
    assert [old for _, old in shortest if old] == sorted(old for _, old in shortest if old)


@pytest.mark.parametrize("history", [0, HISTORY])
def test_an_epoch_meets_every_new_row_once_in_batches_of_few_shapes(history: int) -> None:
    source = loader(history=history)
    seen: list[str] = []
    shapes = set()
    places = []
    for number, data in enumerate(source):
        batch = source.current
        assert batch is not None
        shapes.add(data["input_ids"].shape)
        seen += batch.ids[batch.is_new].tolist()
        new, old = draw(
            seed=5, epoch=0, batch=number, new_rows=NEW, history_rows=history,
            new_per_batch=4, replayed_per_batch=6 if history else 0,
        )  # fmt: skip
        assert len(batch.ids) == len(new) + len(old)
        assert int(batch.is_new.sum()) == len(new)
        places.append(data["input_ids"].shape[1])
    assert set(seen) == {f"0-{i}" for i in range(NEW)}
    assert len(seen) == (NEW if history else 336), "the last batch is filled up"
    assert len(shapes) <= LENGTHS
    windows = [places[start : start + WINDOW] for start in range(0, len(places), WINDOW)]
    assert not any(one in (sorted(one), sorted(one)[::-1]) for one in windows)
    padding = source.pools.padding()
    ungrouped = loader(history=history, sampling="replacement")
    for _ in ungrouped:
        pass
    assert padding is not None
    assert 2 * padding < (ungrouped.pools.padding() or 0)


def test_replay_still_goes_through_history_in_whole_passes() -> None:
    source = loader()
    replayed: list[str] = []
    for _ in range(2):
        for _ in source:
            assert source.current is not None
            replayed += source.current.ids[~source.current.is_new].tolist()
    counts = np.unique(np.array(replayed), return_counts=True)[1]
    assert len(counts) == HISTORY
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("taken", [1, WINDOW - 1, WINDOW, WINDOW + 5, 83])
def test_a_resumed_run_meets_the_batches_that_were_still_to_come(taken: int) -> None:
    whole = loader()
    expected = []
    for _ in range(2):
        for _ in whole:
            assert whole.current is not None
            expected.append(whole.current.ids.tolist())
    first = loader()
    stream = iter(first)
    for _ in range(taken):
        next(stream)
    again = loader()
    again.load_state_dict(first.state_dict())
    found = []
    for _ in range(2):
        for _ in again:
            assert again.current is not None
            found.append(again.current.ids.tolist())
    assert found == expected[taken:]


def test_ranks_share_the_batches_of_one() -> None:
    alone = TrainLoader(pools=loader().pools, new_per_batch=8, replayed_per_batch=12, seed=5)
    two = [loader(rank=rank, ranks=2) for rank in range(2)]
    for place in range(len(alone)):
        whole = alone.rows(0, place)
        shares = [one.rows(0, place) for one in two]
        for kind in range(2):
            together = np.concatenate([one[kind] for one in shares])
            assert sorted(together.tolist()) == sorted(whole[kind].tolist())
        assert {sum(map(len, one)) for one in shares} == {10}


def test_batches_of_one_epoch_are_not_those_of_the_next() -> None:
    source = loader()
    met = [
        {frozenset(source.rows(epoch, place)[0].tolist()) for place in range(len(source))}
        for epoch in range(2)
    ]
    # as a few of the longest rows may be, and the last one, which has a single new row
    assert len(met[0] & met[1]) < 0.05 * len(source)


def test_what_was_grouped_for_another_place_is_not_used_again() -> None:
    pools = Pools(texts(20, 0), None, form="dict", label="y")
    sizes = {"new_per_batch": 4, "replayed_per_batch": 0, "seed": 5}
    source = TrainLoader(pools=pools, **sizes)
    first = source.rows(0, 2)[0]
    second = TrainLoader(pools=pools, **sizes).rows(1, 2)[0]
    assert first.tolist() != second.tolist()
    assert source.rows(1, 2)[0].tolist() == second.tolist(), "an epoch of one window"
    source.ranks = 2
    assert len(source) == 3
    both = TrainLoader(pools=pools, **sizes, ranks=2).rows(1, 2)[0]
    assert source.rows(1, 2)[0].tolist() == both.tolist()
