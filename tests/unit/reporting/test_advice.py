from __future__ import annotations

from typing import Any

import pytest

from perennial.reporting.advice import to_try, what_would_change
from support.checks import check, untested


def decision(verdict: str, *checks: dict[str, Any]) -> dict[str, Any]:
    return {"verdict": verdict, "checks": list(checks)}


def texts(given: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["text"] for one in what_would_change(given)}


BELOW = {"side": "below", "unit": "ratio", "threshold": 1.2}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            check("retention", "reject", -0.09, -0.05),
            "3.0 points are missing even at best: its interval ends at -5.0, and -2.0 is asked.",
        ),
        (
            check("retention", "inconclusive", -0.035, 0.01),
            "1.5 points are missing: its bound is -3.5, the threshold -2.0. "
            "To decide, collect about 900 rows, or wait.",
        ),
        (
            check("harm/history/cycle-1", "reject", -0.09, -0.05),
            "3.0 points are missing even at best: its interval ends at -5.0, and -2.0 is asked.",
        ),
        (
            check("serving/latency_p95", "inconclusive", 1.1, 1.3, **BELOW),
            "0.1× are missing: its bound is 1.3×, the threshold 1.2×. "
            "To decide, collect about 900 rows, or wait.",
        ),
        (
            check("serving/parameters", "reject", 1.5, 1.5, **BELOW),
            "0.3× are missing even at best: its interval ends at 1.5×, and 1.2× is asked.",
        ),
        # not the interval: a loss on marked rows, an exact test
        (
            check("retention", "inconclusive", 0.0, 0.01),
            "retention is told. To decide, collect about 900 rows, or wait.",
        ),
        (
            untested("sanity/constant", "reject"),
            "sanity/constant is told. To decide, collect about 900 rows, or wait.",
        ),
        # so close that one place would not tell them apart
        (
            check("retention", "inconclusive", -0.02004, 0.01),
            "0.004 points are missing: its bound is -2.004, the threshold -2.000. "
            "To decide, collect about 900 rows, or wait.",
        ),
    ],
)
def test_what_is_missing(given: dict[str, Any], words: str) -> None:
    verdict = "rejected" if given["outcome"] == "reject" else "inconclusive"
    assert texts(decision(verdict, given)) == {given["name"]: words}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            check("retention", "pass", -0.015, 0.01),
            "0.5 points to spare: its bound is -1.5, and below -2.0 it would not pass.",
        ),
        (
            check("flips", "pass", 0.01, 0.03, side="below", threshold=0.05),
            "2.0 points to spare: its bound is +3.0, and above +5.0 it would not pass.",
        ),
        (
            check("slice/new/class=3", "pass", -0.08, 0.01, threshold=-0.05),
            "6.0 points from a veto: its interval reaches +1.0, and one that lies wholly below "
            "-5.0 rejects.",
        ),
        (
            check("improvement", "pass", -0.001, 0.01, threshold=0.0),
            "passes by its test; its bound, -0.1, does not clear 0.0.",
        ),
    ],
)
def test_what_a_promotion_had_to_spare(given: dict[str, Any], words: str) -> None:
    assert texts(decision("promoted", given)) == {given["name"]: words}


def test_a_promotion_names_the_three_that_came_closest() -> None:
    given = decision(
        "promoted",
        check("retention", "pass", -0.01, 0.03),
        check("improvement", "pass", 0.5, 0.6, threshold=0.0),
        check("harm/history/cycle-1", "pass", -0.05, -0.015),
        check("slice/new/class=1", "pass", 0.0, 0.02),
        check("serving/bytes", "pass", 1.0, 1.0, **BELOW),
        untested("slice/untested"),
    )
    assert list(texts(given)) == ["harm/history/cycle-1", "retention", "slice/new/class=1"]


def test_only_what_keeps_it_from_promotion_is_named_the_heaviest_first() -> None:
    given = decision(
        "rejected",
        check("retention", "inconclusive", -0.03, 0.01),
        check("improvement", "pass", 0.5, 0.6, threshold=0.0),
        check("harm/history/cycle-1", "reject", -0.09, -0.05),
        untested("slice/untested"),
    )
    assert list(texts(given)) == ["harm/history/cycle-1", "retention"]
    waiting = decision("inconclusive", untested("retention"), untested("slice/untested"))
    assert list(texts(waiting)) == ["retention"]
    unmeasured = decision("inconclusive", untested("serving/bytes"), untested("harm/a"))
    assert list(texts(unmeasured)) == ["serving/bytes"]
    assert to_try(waiting) == []


def test_a_long_list_is_cut_and_counted() -> None:
    many = [check(f"harm/{i}", "reject", -0.2, -0.1) for i in range(9)]
    told = what_would_change(decision("rejected", *many))
    assert len(told) == 7
    assert told[-1]["name"] == "3 more"


def test_each_remedy_is_told_once_with_all_its_settings() -> None:
    given = decision(
        "rejected",
        check("retention", "reject", -0.09, -0.05),
        check("retention/total", "reject", -0.09, -0.05),
        check("harm/history/cycle-1", "reject", -0.09, -0.05),
        check("calibration/ece/new", "reject", 0.03, 0.05, side="below", threshold=0.01),
        check("mine", "reject", -0.09, -0.05),
        check("slice/new/class=1", "pass", 0.0, 0.02),
    )
    told = to_try(given)
    assert len(told) == 3
    (protect,) = [
        one for one in told if one.startswith("Protect history more: method=[replay,ewc]")
    ]
    assert protect.endswith("How much is asked: gate.retention.margin, gate.retention.total.")
    assert any(one.endswith("gate.calibration.") for one in told)
    assert any(one.endswith("gate.checks.") for one in told)
