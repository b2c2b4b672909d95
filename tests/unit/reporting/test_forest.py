from __future__ import annotations

import math

import pytest

from perennial.reporting.forest import certainty, pictures
from perennial.reporting.forest import untested as without_interval
from perennial.reporting.order import clearance, excess, ranked
from support.checks import check, untested


def names(rows: list[dict[str, str]]) -> list[str]:
    return [row["name"] for row in rows]


def test_clearance_counts_margins_from_the_bound_that_decides() -> None:
    assert clearance(check("retention", "pass", -0.01, 0.03)) == pytest.approx(0.5)
    # of two vetoes the one with less to its threshold is closer, however wide its interval
    assert clearance(check("harm/a", "pass", -0.2, 0.01)) == pytest.approx(1.5)
    assert clearance(check("retention", "inconclusive", -0.03, 0.01)) == pytest.approx(-0.5)
    # a veto is decided by its far bound
    assert clearance(check("harm/a", "pass", -0.03, 0.01)) == pytest.approx(1.5)
    assert clearance(check("harm/a", "reject", -0.07, -0.03)) == pytest.approx(-0.5)
    ceiling = {"side": "below", "threshold": 0.05}
    assert clearance(check("flips", "pass", 0.01, 0.03, **ceiling)) == pytest.approx(0.4)
    assert clearance(check("flips", "pass", 0.01, 0.03, veto=True, **ceiling)) == pytest.approx(0.8)
    # nothing is left to chance
    assert clearance(check("serving/bytes", "pass", 1.0, 1.0, side="above")) == math.inf
    assert clearance(check("serving/bytes", "reject", -1.0, -1.0)) == -math.inf
    assert clearance(untested("retention")) == math.inf


def test_the_worst_come_first() -> None:
    given = [
        check("harm/far", "pass", 0.0, 0.02),
        untested("harm/unknown"),
        check("harm/near", "pass", -0.04, -0.01),
        check("harm/bad", "reject", -0.09, -0.05),
        check("harm/worse", "reject", -0.3, -0.26),
    ]
    assert names(ranked(given)) == [
        "harm/worse",
        "harm/bad",
        "harm/near",
        "harm/far",
        "harm/unknown",
    ]


def test_what_rejects_is_ordered_by_how_many_margins_it_lies_beyond() -> None:
    near = check("slice/new/class=1", "reject", -0.2, -0.12, threshold=-0.05)
    wide = check("slice/new/class=2", "reject", -0.6, -0.3, threshold=-0.05)
    whole = check("retention", "reject", -0.1, -0.08)
    ratio = check("serving/bytes", "reject", 2.0, 2.0, unit="ratio", side="below", threshold=1.5)
    assert [excess(one) for one in (near, wide, whole, ratio)] == pytest.approx([1.4, 5, 3, 1])
    nothing = check("improvement", "reject", -0.03, -0.01, threshold=0.0)
    assert excess(nothing) == pytest.approx(1)
    fact = untested("sanity/constant", "reject")
    given = [near, nothing, ratio, whole, fact, wide]
    assert names(ranked(given)) == [
        "sanity/constant",
        "slice/new/class=2",
        "retention",
        "slice/new/class=1",
        "improvement",
        "serving/bytes",
    ]


def test_the_axis_shows_what_rejects_and_no_bar_of_it_is_cut() -> None:
    parts = pictures(
        [
            check("retention", "reject", -0.97, -0.95),
            check("improvement", "pass", 0.8, 0.9, threshold=0.0),
            check("harm/a", "pass", -0.5, 0.5),
        ]
    )
    rejected, gained = parts[0]["rows"]
    assert (rejected["cut"], rejected["cut_low"], rejected["cut_high"]) == (0, False, False)
    assert 0 < rejected["low"] < rejected["at"] < rejected["high"] < rejected["threshold"]
    assert gained["cut_high"]
    assert parts[0]["ticks"][0]["text"] == "-100"


def test_it_says_at_which_confidence_each_bar_is() -> None:
    own = {"alpha": 0.05, "checks": [check("retention", "pass", -0.01, 0.01, level=0.05)]}
    assert certainty(own) == "each at 95%"
    own["checks"] += [
        check("retention/total", "pass", -0.01, 0.01, level=0.025),
        check("harm/a", "pass", -0.01, 0.01, level=0.005),
        check("harm/b", "reject", -0.2, -0.1, level=0.0025),
        check("mine", "pass", -0.01, 0.01),
        untested("harm/c", level=0.1),
    ]
    assert certainty(own) == (
        "each at 95%, retention/total at 97.5%, harm vetoes at 99.5% to 99.75% by Holm's correction"
    )


def test_a_scale_of_its_own_names_its_limit() -> None:
    (part,) = pictures([check("bound/F1/new", "pass", 0.7, 0.8, unit="", threshold=0.6)])
    assert part["rows"][0]["limit"] == "0.6"
    (part,) = pictures([check("retention", "pass", 0.0, 0.01)])
    assert part["rows"][0]["limit"] == ""


def test_one_scale_for_what_compares_the_score_and_others_apart() -> None:
    ratio = {"unit": "ratio", "side": "below", "threshold": 1.1}
    parts = pictures(
        [
            check("retention", "pass", -0.01, 0.01),
            check("improvement", "pass", 0.8, 0.9, threshold=0.0),
            check("slice/new/class=3", "pass", -0.03, 0.01, threshold=-0.05),
            check("serving/bytes", "pass", 1.0, 1.0, **ratio),
            check("serving/latency_p95", "inconclusive", 0.95, 1.15, **ratio),
            check("bound/F1/new", "reject", 0.5, 0.58, unit="", threshold=0.6),
            check("mine", "pass", 3.0, 5.0, unit="", threshold=1.0),
            untested("harm/history/cycle-1"),
        ]
    )
    asked, vetoes, ratios, others = parts
    assert names(asked["rows"]) == ["retention", "improvement"]
    assert names(vetoes["rows"]) == ["slice/new/class=3"]
    # the worst first, of these too
    assert names(ratios["rows"]) == ["serving/latency_p95", "serving/bytes"]
    assert names(others["rows"]) == ["bound/F1/new", "mine"]
    assert asked["ticks"] == vetoes["ticks"] != []
    assert others["ticks"] == []
    assert len({row["middle"] for row in asked["rows"] + vetoes["rows"]}) == 1
    retention, improvement = asked["rows"]
    # no difference lies between the threshold and the right end, and the gain is cut, not squeezed
    assert 0 < retention["threshold"] < retention["middle"] < 100
    assert retention["low"] < retention["middle"] < retention["high"]
    assert (improvement["cut"], improvement["cut_high"], improvement["cut_low"]) == (1, True, False)
    assert improvement["at"] == 100
    # points, at four times the widest threshold of five points at the most
    texts = [tick["text"] for tick in asked["ticks"]]
    assert texts == ["-5", "0", "+5", "+10", "+15", "+20"]
    assert [row["at"] for row in asked["ticks"] if row["text"] == "0"] == [retention["middle"]]
    assert [tick["text"] for tick in ratios["ticks"]][:2] == ["0.95×", "1.00×"]


def test_the_forbidden_side_is_shaded() -> None:
    floor, ceiling = pictures(
        [
            check("bound/F1/new", "pass", 0.7, 0.8, unit="", threshold=0.6),
            check("flips", "pass", 0.01, 0.02, side="below", threshold=0.05),
        ]
    )[0]["rows"][::-1]
    by_name = {row["name"]: row for row in (floor, ceiling)}
    floor, ceiling = by_name["bound/F1/new"], by_name["flips"]
    assert floor["forbidden"] == (0.0, floor["threshold"])
    assert floor["threshold"] < floor["low"] < floor["at"] < floor["high"]
    assert ceiling["forbidden"][0] == ceiling["threshold"] > ceiling["high"]
    assert sum(ceiling["forbidden"]) == pytest.approx(100)


def test_many_vetoes_are_folded_behind_the_worst_ten() -> None:
    many = [check(f"harm/{i}", "pass", -0.01 * i, 0.2 - 0.01 * i) for i in range(20)]
    bad = check("slice/new/class=1", "reject", -0.3, -0.1)
    (part,) = pictures([*many, bad])
    assert names(part["rows"]) == ["slice/new/class=1", *(f"harm/{i}" for i in range(19, 10, -1))]
    assert len(part["folded"]) == 11


def test_what_compared_nothing_is_not_drawn() -> None:
    given = [untested("retention", "waived"), check("improvement", "pass", 0.1, 0.2)]
    assert names(without_interval(given)) == ["retention"]
    assert [names(part["rows"]) for part in pictures(given)] == [["improvement"]]
    assert pictures([given[0]]) == []
    # a custom check that says nothing but its outcome
    assert pictures([check("mine", "not_evaluable", 0.0, 1.0)]) == []


def test_a_row_says_what_holm_made_of_its_p() -> None:
    (part,) = pictures([check("harm/a", "pass", -0.1, 0.1, p_value=0.4, p_uncorrected=0.04)])
    assert part["rows"][0]["p"] == "p = 0.4 corrected, 0.04 alone"
