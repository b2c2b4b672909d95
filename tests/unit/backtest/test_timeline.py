"""Windows of a past, and the rows of each."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import datasets
import pytest

from perennial.backtest.timeline import Past, Timeline
from perennial.errors import ConfigError, DataError
from perennial.steps.collect import Data
from perennial.tasks.classification import Classification


def rows(first: int, last: int) -> datasets.Dataset:
    """Ten rows to a window."""
    ids = range(10 * first, 10 * (last + 1))
    table = {"id": list(ids), "x": [float(i) for i in ids], "label": [i % 2 for i in ids]}
    return datasets.Dataset.from_dict(table)


def past(timeline: Timeline, **changes: Any) -> Past:
    """A source of three windows at a time, as some configurations have them."""

    def cycle_at(window: int) -> Any:
        settings = {
            "history": rows(0, window - 1),
            "new": rows(max(0, window - 2), window),
            "id_column": "id",
            **{name: value(window) for name, value in changes.items()},
        }
        return SimpleNamespace(data=Data(**settings).for_task(Classification()))

    return Past(timeline, cycle_at)


def ids(found: datasets.Dataset) -> list[int]:
    return list(found["id"])


TIMELINE = Timeline(key="week", first=2, last=5)
WHOLE = datasets.Value("int64")


def test_each_row_belongs_to_one_window() -> None:
    found = past(TIMELINE)
    assert ids(found.base.rows) == list(range(20))
    for window, period in found.windows.items():
        assert ids(period.rows) == list(range(10 * window, 10 * window + 10))
    assert ids(found.between(3, 4)) == list(range(30, 50))
    assert ids(found.until(3)) == list(range(40))
    assert ids(found.until(1)) == list(range(20))
    assert (found.rows(3, 5), found.rows(4, 3)) == (30, 0)
    assert found.classes == 2


def test_without_ids_every_row_of_a_source_counts() -> None:
    alone = past(TIMELINE, id_column=lambda window: None, features=lambda window: ["x"])
    assert [len(period) for period in alone.windows.values()] == [30, 30, 30, 30]


def test_a_window_is_known_by_its_own_rows_and_those_before() -> None:
    found = past(TIMELINE)
    assert len(set(found.fingerprints(5))) == 5
    assert found.fingerprints(3) == found.fingerprints(5)[:3]

    def changed(window: int) -> datasets.Dataset:
        return rows(window, window) if window != 4 else rows(40, 40)

    other = past(TIMELINE, new=changed)
    same = [a == b for a, b in zip(found.fingerprints(5), other.fingerprints(5), strict=True)]
    assert same == [True, True, True, False, True]


def test_windows_that_cannot_be_used_are_told() -> None:
    with pytest.raises(DataError, match="Window 4 has no row of its own") as told:
        past(TIMELINE, new=lambda window: rows(0, min(window, 3)))
    assert told.value.where == "data.new, week=4"

    def unlabelled(window: int) -> datasets.Dataset:
        found = rows(window, window)
        return found.rename_column("label", "class") if window == 4 else found

    with pytest.raises(DataError, match="There is no column 'label'") as told:
        past(TIMELINE, new=unlabelled)
    assert told.value.where is not None
    assert told.value.where.endswith(", week=4"), "which of the windows it is"
    empty = rows(0, 0).select([])
    with pytest.raises(DataError, match="Window 3 has no row of its own"):
        past(TIMELINE, new=lambda window: empty if window == 3 else rows(window, window))
    with pytest.raises(DataError, match="nothing to make the first version from"):
        past(TIMELINE, history=lambda window: None)
    with pytest.raises(DataError, match="no new rows"):
        past(TIMELINE, new=lambda window: None)


def test_windows_of_other_columns_are_told() -> None:
    other = past(
        TIMELINE,
        new=lambda w: rows(w, w).rename_column("x", "y") if w == 4 else rows(w, w),
    )
    with pytest.raises(DataError, match="do not have the same columns: not all have 'x'"):
        other.between(3, 4)


def test_whole_numbers_stand_beside_others() -> None:
    found = past(
        TIMELINE, new=lambda w: rows(w, w).cast_column("x", WHOLE) if w == 3 else rows(w, w)
    )
    assert found.between(3, 4)["x"] == [float(i) for i in range(30, 50)]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"first": 4, "last": 4}, "The timeline has one window, 4"),
        ({"first": 5, "last": 4}, "first window, 5, is after its last, 4"),
        ({"label_delay": -1}, "backtest.label_delay is -1"),
        ({"days": 0}, "backtest.days is 0"),
        ({"promotion": "never"}, "backtest.promotion is 'never'"),
    ],
)
def test_settings_out_of_range_are_told(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        Timeline(**{"key": "week", "first": 1, "last": 9, **settings})


def test_time_goes_by_with_windows() -> None:
    timeline = Timeline(key="week", first=3, last=9, days=3)
    ends = [timeline.end(window) for window in timeline.windows]
    assert {b - a for a, b in pairwise(ends)} == {ends[1] - ends[0]}
    assert (ends[1] - ends[0]).total_seconds() == 3 * 24 * 3600
    assert [timeline.over(end) for end in ends] == [1, 2, 3, 4, 5, 6, 7]
    assert ends[0].tzinfo is not None
