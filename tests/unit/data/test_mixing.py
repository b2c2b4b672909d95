from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from perennial.data.mixing import batches_per_epoch, draw

SIZES = {"new_rows": 10, "history_rows": 7, "new_per_batch": 3, "replayed_per_batch": 5}


def epoch(number: int, **sizes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    sizes = {**SIZES, **sizes}
    count = batches_per_epoch(sizes["new_rows"], sizes["new_per_batch"])
    return [draw(seed=3, epoch=number, batch=batch, **sizes) for batch in range(count)]


def test_an_epoch_visits_every_new_row_once() -> None:
    new = np.concatenate([batch for batch, _ in epoch(0)])
    assert sorted(new.tolist()) == list(range(10))


def test_every_batch_has_one_size_and_the_last_is_filled_with_replay() -> None:
    batches = epoch(0)
    assert {len(new) + len(old) for new, old in batches} == {8}
    assert len(batches[-1][0]) == 1
    assert len(batches[-1][1]) == 7


def test_replay_goes_through_history_without_repetition_and_leaves_nothing_out() -> None:
    replayed = np.concatenate([old for number in range(7) for _, old in epoch(number)])
    # 22 replayed rows an epoch, seven epochs: 22 whole passes over 7 rows
    assert len(replayed) == 7 * 22
    for lap in replayed.reshape(-1, 7):
        assert sorted(lap.tolist()) == list(range(7))


def test_a_batch_is_the_same_whatever_was_drawn_before() -> None:
    forward = epoch(4)
    epoch(9)
    alone = draw(seed=3, epoch=4, batch=2, **SIZES)
    assert np.array_equal(alone[0], forward[2][0])
    assert np.array_equal(alone[1], forward[2][1])


def test_orders_differ_between_epochs_and_seeds() -> None:
    first = np.concatenate([new for new, _ in epoch(0, new_rows=100)])
    second = np.concatenate([new for new, _ in epoch(1, new_rows=100)])
    assert not np.array_equal(first, second)
    assert not np.array_equal(
        draw(seed=1, epoch=0, batch=0, **SIZES)[0], draw(seed=2, epoch=0, batch=0, **SIZES)[0]
    )


@pytest.mark.parametrize("new_rows", [1, 4, 9])
def test_without_history_the_last_batch_is_filled_with_new_rows(new_rows: int) -> None:
    for new, old in epoch(0, new_rows=new_rows, history_rows=0, new_per_batch=4):
        assert len(new) == 4
        assert len(old) == 0


def test_a_memory_smaller_than_its_share_is_drawn_with_replacement() -> None:
    _, old = draw(
        seed=0, epoch=0, batch=0, new_rows=4, history_rows=2, new_per_batch=2, replayed_per_batch=7
    )
    assert np.bincount(old).tolist() in ([4, 3], [3, 4])


def test_with_replacement_every_row_is_drawn_uniformly_and_on_its_own() -> None:
    sizes = {"new_rows": 10, "history_rows": 7, "new_per_batch": 30, "replayed_per_batch": 50}
    batches = [
        draw(seed=3, epoch=epoch, batch=batch, sampling="replacement", **sizes)
        for epoch in range(50)
        for batch in range(2)
    ]
    assert {(len(new), len(old)) for new, old in batches} == {(30, 50)}
    for part, rows in ((0, 10), (1, 7)):
        counts = np.bincount(np.concatenate([pair[part] for pair in batches]), minlength=rows)
        assert len(counts) == rows
        assert stats.chisquare(counts).pvalue > 0.01
        # how often a batch repeats a row at once: independent draws do so in 1 of N pairs
        repeats = np.mean([(pair[part][1:] == pair[part][:-1]).mean() for pair in batches])
        assert repeats == pytest.approx(1 / rows, abs=0.02)
    again = draw(seed=3, epoch=49, batch=1, sampling="replacement", **sizes)
    assert np.array_equal(again[0], batches[-1][0])
    assert np.array_equal(again[1], batches[-1][1])
    without = draw(
        seed=3,
        epoch=0,
        batch=0,
        sampling="replacement",
        **{**SIZES, "history_rows": 0} | {"replayed_per_batch": 0},
    )
    assert (len(without[0]), len(without[1])) == (3, 0)
