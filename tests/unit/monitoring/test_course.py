"""Then and now, and since when."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from perennial.monitoring.columns import CategoryColumn, NumberColumn
from perennial.monitoring.course import (
    BINS,
    Since,
    category_picture,
    effects,
    number_picture,
    onset,
    since,
    stretches,
)


def test_stretches_are_successive_and_share_the_rows() -> None:
    time = np.random.default_rng(0).permutation(250)
    parts = stretches(time)
    assert len(parts) == 8
    assert {len(part) for part in parts} <= {31, 32}
    assert np.array_equal(np.concatenate(parts), np.argsort(time))
    for earlier, later in pairwise(parts):
        assert time[earlier].max() < time[later].min()


@pytest.mark.parametrize("time", [None, np.arange(59), np.zeros(500)])
def test_no_time_few_rows_or_one_moment_have_no_stretches(time: np.ndarray | None) -> None:
    assert stretches(time) == []


@pytest.mark.parametrize("change", range(1, 8))
def test_onset_is_where_the_effect_began(change: int) -> None:
    noise = np.random.default_rng(change).random(8) * 0.2
    course = noise + np.where(np.arange(8) >= change, 1.0, 0.0)
    assert onset(course.tolist()) == change


@pytest.mark.parametrize("seed", range(20))
def test_an_effect_that_is_there_all_along_has_no_onset(seed: int) -> None:
    course = 1 + 0.3 * np.random.default_rng(seed).random(8)
    assert onset(course.tolist()) == 0


def test_what_had_moved_before_keeps_its_beginning() -> None:
    before = Since("2026-11-20", "2026-11-21T06:00", 2)
    given = {"starts": ["a", "b"], "course": [0.1, 0.9], "time": "a", "looked_at": "now"}
    assert since(before, **given) == Since("2026-11-20", "2026-11-21T06:00", 3)  # type: ignore[arg-type]
    assert since(None, **given) == Since("b", "now", 1)  # type: ignore[arg-type]
    assert since(None, starts=[], course=[], time=None, looked_at="now") == Since(None, "now", 1)


def test_effects_are_those_of_the_columns_tests() -> None:
    random = np.random.default_rng(0)
    then = random.normal(size=2_000)
    found = effects("input", NumberColumn("x", then), then + 2 * then.std())
    assert found == {"input/x/ks": pytest.approx(2)}
    text = np.array(["a", "b"] * 500, dtype=np.dtypes.StringDType())
    found = effects("prediction", CategoryColumn("y", text), text[:500])
    assert found == {"prediction/y/chi_square": pytest.approx(0)}


def test_pictures_of_numbers_are_histograms() -> None:
    random = np.random.default_rng(1)
    then, now = random.normal(size=1_000), random.normal(3, size=500)
    now[:100] = np.nan
    picture = number_picture(then, now)
    assert picture is not None
    edges = np.array(picture["edges"])
    assert len(edges) == BINS + 1
    for side, values in (("then", then), ("now", now[100:])):
        shares = np.array(picture[side])
        assert shares.sum() == pytest.approx(1)
        for bin_ in range(1, BINS - 1):
            inside = (values >= edges[bin_]) & (values < edges[bin_ + 1])
            assert shares[bin_] == pytest.approx(inside.mean())
        assert shares[0] == pytest.approx((values < edges[1]).mean())
    assert number_picture(then, np.full(3, np.nan)) is None
    constant = number_picture(np.ones(5), np.ones(3))
    assert constant is not None
    assert max(constant["then"]) == max(constant["now"]) == 1


def test_pictures_of_categories_show_the_most_frequent_ones_of_either_side() -> None:
    then = {f"c{i}": 100 - i for i in range(20)} | {"": 7}
    picture = category_picture(then, {"new": 90, "c19": 10})
    assert picture is not None
    assert picture["names"][0] == "new"
    assert picture["names"][1] == "c19"
    assert picture["names"][-1] == "13 others"
    assert picture["now"][0] == pytest.approx(0.9)
    assert picture["then"][1] == pytest.approx(81 / sum(range(81, 101)))
    for side in ("then", "now"):
        assert sum(picture[side]) == pytest.approx(1)
    assert category_picture(then, {"": 5}) is None
