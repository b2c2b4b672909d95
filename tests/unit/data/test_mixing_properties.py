"""What holds of every batch, whatever the sizes of new rows, history and batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.data.mixing import batches_per_epoch, draw

SIZES = {
    "seed": st.integers(0, 2**31),
    "new_rows": st.integers(1, 60),
    "history_rows": st.integers(0, 60),
    "new_per_batch": st.integers(1, 20),
    "replayed_per_batch": st.integers(1, 20),
}


def settled(drawn: dict[str, int]) -> dict[str, int]:
    return drawn if drawn["history_rows"] else {**drawn, "replayed_per_batch": 0}


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries(SIZES), st.sampled_from(["passes", "replacement"]))
def test_batches_are_of_one_size_and_in_range(drawn: dict[str, int], sampling: str) -> None:
    sizes: dict[str, Any] = settled(drawn)
    batches = batches_per_epoch(sizes["new_rows"], sizes["new_per_batch"])
    for epoch in range(2):
        for batch in range(batches):
            new, old = draw(epoch=epoch, batch=batch, sampling=sampling, **sizes)
            total = sizes["new_per_batch"] + sizes["replayed_per_batch"]
            assert len(new) + len(old) == total
            assert len(old) >= sizes["replayed_per_batch"]
            assert not len(new) or 0 <= new.min() <= new.max() < sizes["new_rows"]
            assert not len(old) or 0 <= old.min() <= old.max() < sizes["history_rows"]


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries(SIZES))
def test_new_rows_come_once_an_epoch_and_replay_runs_in_whole_passes(
    drawn: dict[str, int],
) -> None:
    sizes: dict[str, Any] = settled(drawn)
    batches = batches_per_epoch(sizes["new_rows"], sizes["new_per_batch"])
    replayed: list[int] = []
    for epoch in range(3):
        seen: list[int] = []
        for batch in range(batches):
            new, old = draw(epoch=epoch, batch=batch, **sizes)
            seen += new.tolist()
            replayed += old.tolist()
        assert sorted(seen[: sizes["new_rows"]]) == list(range(sizes["new_rows"]))
        assert not sizes["history_rows"] or len(seen) == sizes["new_rows"]
    if rows := sizes["history_rows"]:
        for start in range(0, len(replayed) - rows + 1, rows):
            assert sorted(replayed[start : start + rows]) == list(range(rows))
        counts = np.bincount(replayed, minlength=rows)
        assert counts.max() - counts.min() <= 1


@settings(max_examples=80, deadline=None)
@given(st.fixed_dictionaries(SIZES), st.integers(0, 4), st.sampled_from(["passes", "replacement"]))
def test_a_batch_does_not_depend_on_what_was_drawn_before(
    drawn: dict[str, int], epoch: int, sampling: str
) -> None:
    sizes: dict[str, Any] = settled(drawn)
    batches = batches_per_epoch(sizes["new_rows"], sizes["new_per_batch"])
    places = [(e, b) for e in range(epoch + 1) for b in range(batches)]
    forwards = {at: draw(epoch=at[0], batch=at[1], sampling=sampling, **sizes) for at in places}
    for at in reversed(places):
        new, old = draw(epoch=at[0], batch=at[1], sampling=sampling, **sizes)
        assert new.tolist() == forwards[at][0].tolist()
        assert old.tolist() == forwards[at][1].tolist()
