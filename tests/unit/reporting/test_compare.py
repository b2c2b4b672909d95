"""The page and the table of a comparison."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from perennial.reporting.compare import axis, render_comparison
from perennial.reporting.comparison import print_comparison, shown_setting, to_dict
from perennial.tracking.compare.runs import Unread
from perennial.tracking.compare.settings import short
from perennial.tracking.compare.table import Comparison, compare_runs
from support.compared import make_run

CURVE = [{"step": 0, "new": 0.1, "history": 0.9}, {"step": 50, "new": 0.8, "history": 0.88}]


def some(count: int = 3, **changes: Any) -> Comparison:
    runs = [
        make_run(
            i + 2, new=round(0.5 + 0.4 * i / count, 2), config={"data.k": i, "same": 1}, **changes
        )
        for i in range(count)
    ]
    return compare_runs(runs, [Unread("runs/<torn>", "no result.json")])


def page_of(found: Comparison) -> str:
    return render_comparison(found, names=short(found.settings))


def printed(found: Comparison) -> str:
    out = io.StringIO()
    print_comparison(found, Console(file=out, width=80), names=short(found.settings))
    return out.getvalue()


def test_the_page_stands_alone_and_escapes_what_it_is_given() -> None:
    page = page_of(some(curve=CURVE))
    assert not re.search(r"<script|<link|src=|url\(|https?://", page)
    assert "runs/&lt;torn&gt;" in page
    assert "<torn>" not in page
    for heading in ("Retention against plasticity", "While they learned", "What they cost"):
        assert heading in page


def test_each_run_is_drawn_at_its_levels() -> None:
    found = some()
    page = page_of(found)
    circles = re.findall(r'<circle cx="([\d.]+)%" cy="([\d.]+)%" r="9"/>', page)
    across = [float(x) for x, _ in circles]
    # drawn last, hence on top: the first row, which learned most
    assert across == sorted(across)
    assert len(circles) == 3
    assert len({y for _, y in circles}) == 1
    # 90% lies above the champion's 50%
    low = re.search(r'<circle cx="[\d.]+%" cy="([\d.]+)%" r="5"/>', page)
    assert low is not None
    assert float(circles[0][1]) < float(low[1])
    assert page.count('r="5"') == 1  # the champion of all


def test_curves_lie_on_one_axis() -> None:
    page = page_of(some(curve=CURVE))
    new = re.findall(r'<polyline class="new" points="([^"]+)"', page)
    history = re.findall(r'<polyline class="history" points="([^"]+)"', page)
    assert len(new) == len(history) == 3
    (x0, y0), (x1, y1) = (map(float, one.split(",")) for one in new[0].split())
    assert (x0, x1) == (0.0, 100.0)
    assert y0 > y1  # it learned, so the line goes up
    assert "While they learned" not in page_of(some())


def test_many_rows_are_folded_and_none_is_lost() -> None:
    found = some(70)
    page = page_of(found)
    assert "30 more" in page
    assert all(f"m@{i + 2}</b>" in page for i in range(70))
    told = printed(found)
    assert "and 10 more runs, in the page and in --json" in told
    assert len(to_dict(found)["runs"]) == 70


def test_the_table_says_what_the_figures_are() -> None:
    told = printed(some())
    header, first, *_ = told.splitlines()
    assert header.split() == ["run", "verdict", "new", "history", "k", "steps", "time"]
    assert first.split() == [
        *("m@4", "runs/4", "rejected", "77.0%", "[69.0,", "83.7]", "90.0%", "[83.6,", "94.5]"),
        *("2", "100", "4", "s"),
    ]
    assert "Each bound is one-sided at 95%" in " ".join(told.split())
    assert "runs/<torn>  no result.json" in told
    assert "No run to show." in printed(compare_runs([]))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "true"),
        (0.25, "0.25"),
        ("torch.optim.SGD", "SGD"),
        ("data/week.csv", "data/week.csv"),
        ("", ""),
        ("x" * 40 + ".csv", "…" + "x" * 19 + ".csv"),
    ],
)
def test_a_setting_is_shown_as_it_is_written(value: Any, text: str) -> None:
    assert shown_setting("optimizer._target_" if text == "SGD" else "k", value) == text


def test_an_axis_never_blows_up_a_point() -> None:
    narrow = axis([0.9, 0.901], unit="points")
    assert narrow.high - narrow.low == pytest.approx(0.05)
    assert axis([0.5, 1.0], unit="points").high <= 1.02
    assert axis([2.0, 2.0], unit="").low < 2.0


def test_of_many_that_cannot_be_compared_some_are_printed_and_the_rest_counted() -> None:
    torn = [Unread(f"runs/torn-{i}", "no result.json") for i in range(14)]
    told = printed(compare_runs([make_run(2)], torn))
    assert "Nothing to compare in 14 more:" in told
    assert [f"torn-{i} " in told for i in range(14)] == [True] * 12 + [False] * 2
    assert "and 2 more, in --json" in told
    assert "more, in --json" not in printed(compare_runs([make_run(2)], torn[:12]))
