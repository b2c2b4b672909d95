from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from perennial.sweeping.mix import leading, next_shares

GRID = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
CHAMPION = {"new": 0.0, "history": 0.9}


def search(history: Callable[[float], float], rounds: int, **changes: object) -> dict:
    tried: dict = {}
    while shares := next_shares(tried, grid=GRID, budget=0.01, rounds=rounds):
        share = shares[0]  # one at a time, as after any interruption
        assert share not in tried
        tried[share] = ({"new": share, "history": history(share)}, CHAMPION)
    return tried


@pytest.mark.parametrize("edge", [0.05, 0.17, 0.333, 0.5, 0.81, 0.9])
def test_the_share_is_the_largest_within_the_budget(edge: float) -> None:
    """Plasticity grows with the share and retention falls off an edge: the answer is the edge."""
    tried = search(lambda share: 0.9 if share <= edge else 0.5, rounds=4)
    found = leading(tried, budget=0.01)
    brute = max(share for share in tried if share <= edge)
    assert found == brute
    gaps = [b - a for a, b in pairwise(GRID)]
    assert edge - found <= max(gaps) / 2**3


def test_refining_halves_the_way_to_both_neighbours() -> None:
    tried = search(lambda share: 0.9 if share <= 0.3 else 0.5, rounds=1)
    assert list(tried)[len(GRID) :] == [0.15, 0.275]
    assert len(search(lambda share: 0.9, rounds=0)) == len(GRID)


def test_where_none_keeps_the_budget_the_one_that_keeps_most_leads() -> None:
    tried = search(lambda share: 0.8 - share, rounds=0)
    assert leading(tried, budget=0.01) == 0.05


def test_a_failed_share_is_not_asked_for_again() -> None:
    tried: dict = dict.fromkeys(GRID)
    assert next_shares(tried, grid=GRID, budget=0.01, rounds=2) == []
    assert leading({}, budget=0.01) is None


def test_of_equal_shares_the_smaller_one_leads() -> None:
    equal = ({"new": 0.5, "history": 0.9}, CHAMPION)
    assert leading({0.5: equal, 0.2: equal, 0.35: equal}, budget=0.01) == 0.2
