"""Policies of selection, against brute force and exact probabilities."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from perennial.data.selection import (
    LARGEST,
    class_balanced,
    herding,
    most_recent,
    reservoir,
    within,
)

IDS = np.array([f"{n:04}" for n in range(40)])


def uniform(counts: np.ndarray, draws: int, kept: int) -> bool:
    """Whether inclusion counts are those of ``kept`` of N drawn without replacement, by χ²."""
    n = len(counts)
    expected = draws * kept / n
    # the variance is np(1-p), and the counts sum to a constant: the statistic is rescaled by both
    statistic = ((counts - expected) ** 2 / expected).sum() / (1 - kept / n) * (n - 1) / n
    return bool(0.001 < stats.chi2.sf(statistic, n - 1) < 0.999)


@pytest.mark.parametrize("way", ["at once", "resumed", "ranks"])
def test_inclusion_is_uniform_however_rows_come(way: str) -> None:
    counts = np.zeros(40)
    for seed in range(2000):
        ids = IDS
        if way == "resumed":  # 15 rows, kept and read back, then the rest
            kept = ids[:15][reservoir(ids[:15], seed=seed)[:10]]
            ids = np.concatenate([kept, ids[15:]])
        if way == "ranks":  # each of 3 samples its own rows, and one the samples
            parts = [ids[rank::3] for rank in range(3)]
            ids = np.concatenate([part[reservoir(part, seed=seed)[:10]] for part in parts])
        chosen = ids[reservoir(ids, seed=seed)[:10]]
        assert len(np.unique(chosen)) == 10
        counts[chosen.astype(int)] += 1
    assert uniform(counts, 2000, 10)
    assert abs(counts[:10].sum() / 20000 - 0.25) < 0.01


def test_every_set_of_rows_is_equally_likely() -> None:
    found: dict[tuple[int, ...], int] = {}
    for seed in range(4000):
        kept = tuple(sorted(reservoir(IDS[:5], seed=seed)[:2].tolist()))
        found[kept] = found.get(kept, 0) + 1
    assert len(found) == 10
    assert stats.chisquare(list(found.values())).pvalue > 0.001


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(30)), st.integers(1, 40), st.integers(1, 29), st.integers(1, 5))
def test_samples_merge_and_shrink(order: list[int], capacity: int, cut: int, smaller: int) -> None:
    ids = IDS[np.array(order)]
    cycle = np.where(np.arange(30) < cut, 1, 2)
    parts = np.arange(cut), np.arange(cut, 30)
    for policy in (
        lambda at: reservoir(ids[at], seed=3),
        lambda at: most_recent(ids[at], cycle[at], seed=3),
    ):
        whole = np.arange(30)[policy(np.arange(30))][:capacity]
        kept = np.concatenate([part[policy(part)][:capacity] for part in parts])
        assert kept[policy(kept)][:capacity].tolist() == whole.tolist()
        least = whole[: min(smaller, len(whole))]
        assert whole[policy(whole)][: len(least)].tolist() == least.tolist()


def test_the_newest_cycles_are_kept_and_the_oldest_of_them_is_sampled() -> None:
    cycle = np.repeat([1, 2, 3], [20, 12, 8])
    counts = np.zeros(40)
    for seed in range(2000):
        kept = most_recent(IDS, cycle, seed=seed)[:14]
        counts[kept] += 1
    assert (counts[cycle == 3] == 2000).all()
    assert (counts[cycle == 1] == 0).all()
    assert uniform(counts[cycle == 2], 2000, 6)


def test_class_balanced_is_uniform_within_a_class() -> None:
    label = np.repeat([0, 1], [35, 5])
    counts = np.zeros(40)
    for seed in range(2000):
        counts[class_balanced(IDS, label, seed=seed)[:15]] += 1
    assert (counts[35:] == 2000).all()
    assert uniform(counts[:35], 2000, 10)


def test_no_class_is_preferred_where_not_all_get_a_row() -> None:
    label = np.repeat([0, 1, 2, 3], 10)
    counts = np.zeros(4)
    for seed in range(2000):
        counts[label[class_balanced(IDS, label, seed=seed)[:1]]] += 1
    assert uniform(counts, 2000, 1)


def brute_force(features: np.ndarray, weight: np.ndarray, count: int) -> list[int]:
    """iCaRL's Algorithm 4 as it stands in the paper, over unit features."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    mean = np.average(unit, axis=0, weights=weight)
    chosen: list[int] = []
    for k in range(1, count + 1):
        distances = [
            np.inf
            if row in chosen
            else float(np.linalg.norm(mean - (unit[row] + unit[chosen].sum(axis=0)) / k))
            for row in range(len(unit))
        ]
        chosen.append(int(np.argmin(distances)))
    return chosen


@pytest.mark.parametrize("weighed", [False, True])
def test_herding_is_the_papers_algorithm(weighed: bool) -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(40, 6)).astype(np.float32) + 1
    weight = generator.integers(1, 9, size=40).astype(float) if weighed else np.ones(40)
    found = herding(IDS, features, np.zeros(40, dtype=np.int64), weight=weight, capacity=25, seed=0)
    assert found[:25].tolist() == brute_force(features.astype(float), weight, 25)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    target = np.average(unit, axis=0, weights=weight)
    random = [
        np.linalg.norm(unit[reservoir(IDS, seed=seed)[:8]].mean(axis=0) - target)
        for seed in range(20)
    ]
    assert np.linalg.norm(unit[found[:8]].mean(axis=0) - target) < min(random)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 40), st.data())
def test_herding_balances_classes_whatever_the_order(
    label: list[int], capacity: int, data: Any
) -> None:
    table = np.array(label)
    features = np.random.default_rng(1).normal(size=(len(label), 3)).astype(np.float32)
    order = np.array(data.draw(st.permutations(range(len(label)))))

    def kept(at: np.ndarray) -> list[str]:
        found = herding(
            IDS[at], features[at], table[at], weight=np.ones(len(at)), capacity=capacity, seed=2
        )
        return IDS[at][found[:capacity]].tolist()

    chosen = kept(np.arange(len(label)))
    assert kept(order) == chosen
    assert len(set(chosen)) == len(chosen) == min(capacity, len(label))
    counts = np.bincount(table[[int(one) for one in chosen]], minlength=4)
    sizes = np.bincount(table, minlength=4)
    short = counts < sizes
    assert not short.any() or counts[short].min() >= counts.max() - 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=40), st.integers(400, 700), st.data())
def test_within_bytes_never_exceeds_and_merges(size: list[int], capacity: int, data: Any) -> None:
    sizes, ids = np.array(size, dtype=np.int64), np.array([f"{n:04}" for n in range(len(size))])
    # small rows weigh hundreds of times as much here, so that the bound is met
    sizes = sizes * max(1, int(capacity * LARGEST) // 20)
    cut = data.draw(st.integers(0, len(size)))

    def kept(at: np.ndarray) -> np.ndarray:
        return at[within(reservoir(ids[at], seed=5), sizes[at], capacity)]

    whole = kept(np.arange(len(size)))
    assert sizes[whole].sum() <= capacity
    assert len(whole) == len(size) or sizes[whole].sum() >= capacity * (1 - LARGEST)
    parts = [kept(np.arange(cut)), kept(np.arange(cut, len(size)))]
    assert kept(np.concatenate(parts)).tolist() == whole.tolist()


def test_a_row_stays_where_those_before_take_less_than_the_line() -> None:
    assert len(within(np.arange(30), np.full(30, 5), 100)) == 19  # 95 bytes are before the 20th


def test_a_rows_own_size_does_not_decide_whether_it_stays() -> None:
    # all 720 orders of six rows: whether one stays depends on those before it alone
    sizes = np.array([5, 1, 2, 4, 3, 5])
    orders = np.array(list(itertools.permutations(range(6))))
    for row in range(6):
        other = sizes.copy()
        other[row] = 1
        for order in orders:
            stays = [row in within(order, one, 100 // 10).tolist() for one in (sizes, other)]
            assert stays[0] == stays[1]
