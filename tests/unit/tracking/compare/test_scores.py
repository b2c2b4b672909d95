"""Levels and paired differences against independent references."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from perennial import statistics
from perennial.promotion.predictions import Scores
from perennial.tracking.compare.scores import differences, join, level, levels, own, share


def scores(
    candidate: np.ndarray,
    champion: np.ndarray | None = None,
    *,
    new: np.ndarray | None = None,
    ids: list[str] | None = None,
    label: np.ndarray | None = None,
) -> Scores:
    n = len(candidate)
    new = np.ones(n, dtype=bool) if new is None else new
    return Scores(
        row_id=pa.array(ids or [f"r{i}" for i in range(n)]),
        holdout=pa.array(np.where(new, "new", "history/cycle-1").tolist()),
        label=np.zeros(n, dtype=np.int64) if label is None else label,
        cluster=np.arange(n),
        champion=np.zeros(n) if champion is None else champion,
        candidate=candidate,
    )


def coins(seed: int, n: int, p: float) -> np.ndarray:
    return (np.random.default_rng(seed).random(n) < p).astype(np.float64)


def tango_by_search(b: int, c: int, n: int, z: float) -> tuple[float, float]:
    """The differences that a score test keeps, on a grid, its likelihood maximised by search."""
    kept = []
    q = np.linspace(0, 1, 4001)[1:-1]
    for delta in np.linspace(-0.5, 0.5, 401):
        p12, p21 = q + delta, q  # only the candidate right, only the champion right
        rest = 1 - p12 - p21
        fits = (p12 > 1e-9) & (rest > 1e-9)
        likelihood = (
            b * np.log(p12[fits]) + c * np.log(p21[fits]) + (n - b - c) * np.log(rest[fits])
        )
        best = q[fits][np.argmax(likelihood)]
        variance = n * (2 * best + delta - delta**2)
        if abs(b - c - n * delta) <= z * np.sqrt(variance):
            kept.append(delta)
    return min(kept), max(kept)


def test_a_share_of_rows_has_the_bounds_of_statsmodels() -> None:
    score = coins(0, 300, 0.8)
    found = level(score, np.arange(300))
    k = int(score.sum())
    expected = proportion_confint(k, 300, alpha=0.1, method="beta")  # both sides at 5%
    assert found.value == pytest.approx(k / 300)
    assert found.interval == pytest.approx(expected, abs=1e-9)
    assert share(k / 300, 300).interval == pytest.approx(expected, abs=1e-9)


def test_a_row_ten_times_is_one_row() -> None:
    once = coins(1, 200, 0.7)
    found = level(once.repeat(10), np.arange(200).repeat(10))
    alone = level(once, np.arange(200))
    assert found.interval is not None
    assert alone.interval is not None
    width, alone_width = np.ptp(found.interval), np.ptp(alone.interval)
    assert width == pytest.approx(alone_width, rel=0.05)


def test_a_symmetric_mean_has_the_bounds_of_students_t() -> None:
    half = np.random.default_rng(2).normal(size=150)
    score = np.concatenate([3 + half, 3 - half])  # without skewness
    found = level(score, np.arange(300))
    expected = stats.t.interval(0.9, 299, loc=3.0, scale=stats.sem(score))
    assert found.interval == pytest.approx(expected, rel=1e-6)
    assert level(score, np.zeros(300, dtype=np.int64)).interval is None  # one group


def test_a_paired_difference_has_the_bounds_of_a_score_test() -> None:
    before = np.array([1.0] * 140 + [0.0] * 30 + [1.0] * 12 + [0.0] * 18)
    after = np.array([1.0] * 140 + [1.0] * 30 + [0.0] * 12 + [0.0] * 18)
    found = differences([own(scores(after, before))])[0]["new"]
    low, high = tango_by_search(30, 12, 200, stats.norm.isf(0.05))
    assert found.value == pytest.approx(18 / 200)
    assert found.interval == pytest.approx((low, high), abs=0.003)
    turned = differences([own(scores(after, before), reverse=True)])[0]["new"]
    assert turned.value == -found.value
    assert turned.interval == pytest.approx((-found.interval[1], -found.interval[0]))


def test_rows_are_joined_by_id_whatever_their_order() -> None:
    one, two = coins(3, 400, 0.6), coins(4, 400, 0.8)
    order = np.random.default_rng(5).permutation(400)
    kept = order[:250]
    shuffled = scores(two[kept], ids=[f"r{i}" for i in kept])
    shared = join(scores(one), shuffled)
    assert shared is not None
    expected = differences([own(scores(two[kept], one[kept]))])[0]
    assert differences([shared])[0] == expected
    assert expected["new"].n == 250
    # of two that share all, the plain difference
    whole = join(scores(one), scores(two))
    assert whole is not None
    assert differences([whole])[0]["new"].value == pytest.approx(two.mean() - one.mean())


def test_rows_are_new_where_they_were_new_to_both() -> None:
    place = np.arange(100)
    first, second = place < 60, (place >= 30) & (place < 90)
    shared = join(scores(coins(6, 100, 0.5), new=first), scores(coins(7, 100, 0.5), new=second))
    assert shared is not None
    assert (shared.is_new == (first & second)).all()
    assert {part: one.n for part, one in differences([shared])[0].items()} == {
        "new": 30,
        "history": 70,
    }
    assert {
        part: one.n
        for part, one in levels(scores(coins(6, 100, 0.5), new=first), "candidate").items()
    } == {
        "new": 60,
        "history": 40,
    }


def test_what_are_not_the_same_rows_is_not_paired() -> None:
    score = coins(8, 50, 0.5)
    other = scores(score, ids=[f"x{i}" for i in range(50)])
    assert join(scores(score), other) is None
    relabelled = scores(score, label=np.ones(50, dtype=np.int64))
    assert join(scores(score), relabelled) is None
    twice = scores(score, ids=["r0", *(f"r{i}" for i in range(49))])
    assert join(scores(score), twice) is None


def test_of_one_group_the_difference_has_no_bounds() -> None:
    before, after = coins(9, 40, 0.5), coins(10, 40, 0.9)
    shared = own(replace(scores(after, before), cluster=np.zeros(40, dtype=np.int64)))
    found = differences([shared])[0]["new"]
    assert found.value == pytest.approx(after.mean() - before.mean())
    assert found.interval is None


def test_dependent_rows_of_two_cycles_have_the_bounds_of_their_groups() -> None:
    before, after = coins(11, 60, 0.6).repeat(5), coins(12, 60, 0.8).repeat(5)
    order = np.random.default_rng(13).permutation(300)
    group = np.arange(60).repeat(5)
    ids = [f"r{i}" for i in order]
    later = replace(scores(after[order], ids=ids), cluster=group[order])
    shared = join(scores(before), later)
    assert shared is not None
    assert (shared.cluster == group[order]).all()
    grouped = differences([shared])[0]["new"]
    alone = differences([own(scores(after[::5], before[::5]))])[0]["new"]
    single = differences([replace(shared, cluster=np.arange(300))])[0]["new"]
    assert grouped.value == pytest.approx(alone.value) == pytest.approx(single.value)
    assert np.ptp(grouped.interval) == pytest.approx(np.ptp(alone.interval), rel=0.1)
    assert np.ptp(single.interval) < 0.6 * np.ptp(grouped.interval)


def test_many_differences_at_once_are_those_of_each() -> None:
    new = np.arange(80) < 30
    both = own(scores(coins(14, 80, 0.8), coins(15, 80, 0.6), new=new))
    numbers = own(scores(np.linspace(0, 1, 80), np.linspace(0.2, 0.9, 80)))
    old = own(scores(coins(16, 80, 0.8), coins(17, 80, 0.6), new=~np.ones(80, dtype=bool)))
    found = differences([both, numbers, old])
    assert [list(one) for one in found] == [["new", "history"], ["new"], ["history"]]
    assert found == [differences([one])[0] for one in (both, numbers, old)]
    for part, mask in (("new", new), ("history", ~new)):
        b = int((both.after[mask] > both.before[mask]).sum())
        c = int((both.after[mask] < both.before[mask]).sum())
        expected = statistics.tango_interval(b, c, int(mask.sum()), alpha=0.05)
        assert found[0][part].interval == pytest.approx(expected, abs=1e-9)
    assert differences([]) == []
