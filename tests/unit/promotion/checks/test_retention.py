"""Retention against the best champion ever, and under weights, age and a window."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perennial import statistics
from perennial.promotion.gate import decide
from perennial.types import EvaluationReport
from support.reports import BETTER, KEPT, bare, check_of, make_report


def with_best(report: EvaluationReport, better: int) -> EvaluationReport:
    """The best champion was right on so many more history rows, where both are wrong now."""
    best = report.champion.score.copy()
    rows = np.flatnonzero(~report.is_new)[:better]
    for who in (report.champion, report.candidate):
        who.score[rows] = 0.0
    best[rows] = 1.0
    best[report.is_new] = np.nan
    return replace(report, best=best)


@pytest.mark.parametrize(
    ("better", "outcome", "verdict"),
    [(2, "pass", "promoted"), (17, "inconclusive", "inconclusive"), (40, "reject", "rejected")],
)
def test_a_slow_loss_shows_against_the_best_ever(better: int, outcome: str, verdict: str) -> None:
    report = with_best(make_report(BETTER, KEPT), better)
    decision = decide(report, bare())
    assert check_of(decision, "retention").outcome == "pass"
    total = check_of(decision, "retention/total")
    assert (total.outcome, decision.verdict) == (outcome, verdict)
    assert total.estimate == pytest.approx(-better / 600)
    passes = statistics.tango_test(0, better, 600, delta=-0.03)
    rejects = statistics.tango_test(better, 0, 600, delta=0.03)
    # of the test that decided
    assert total.p_value == (rejects if total.outcome == "reject" else passes)
    # the same rows are asked in every cycle, so this test is at half the level
    assert total.interval == statistics.tango_interval(0, better, 600, alpha=0.025)
    assert total.threshold == -0.03
    assert f"100.0% → {100 * (1 - better / 600):.1f}%" in total.reason
    assert ("gate.retention.total" in total.reason) == (outcome == "inconclusive")


@pytest.mark.parametrize("total", [None, 0.03])
def test_the_best_is_not_asked_where_it_is_the_champion(total: float | None) -> None:
    report = with_best(make_report(BETTER, KEPT), 40 if total is None else 0)
    for each in (report, replace(report, best=None)):
        names = [c.name for c in decide(each, bare(retention={"total": total})).checks]
        assert "retention/total" not in names


def test_the_best_on_rows_that_the_adopted_model_saw_cannot_reject() -> None:
    report = with_best(make_report(BETTER, KEPT, seen=(True,)), 60)
    total = check_of(decide(report, bare()), "retention/total")
    assert total.outcome == "inconclusive"
    assert "data.history_holdout" in total.reason


def test_the_best_is_weighted_as_the_champion_is() -> None:
    report = with_best(make_report(BETTER, (0, 0, 200), (0, 0, 1000)), 20)
    total = check_of(decide(report, bare(retention={"weights": "cycles"})), "retention/total")
    assert total.estimate == pytest.approx((-0.1 + 0) / 2)
    assert (total.outcome, total.n) == ("reject", 1200)
    pooled = check_of(decide(report, bare()), "retention/total")
    assert (pooled.estimate, pooled.outcome) == (pytest.approx(-20 / 1200), "pass")


# an old holdout of 200 rows with a loss of 10%, a newer one of 1,000 without any
FADED = ((0, 20, 200), (0, 0, 1000))


def retention_of(settings: dict[str, Any], **changes: Any) -> Any:
    report = replace(make_report(BETTER, *FADED), **changes)
    return check_of(decide(report, bare(retention=settings)), "retention")


def test_rows_are_pooled_where_nothing_is_weighted() -> None:
    check = retention_of({})
    assert check.estimate == pytest.approx(-20 / 1200)
    assert "count" not in check.reason


def test_cycles_count_alike_where_they_shall() -> None:
    check = retention_of({"weights": "cycles"})
    assert check.estimate == pytest.approx((-0.1 + 0) / 2)
    assert check.outcome == "reject"
    assert "Each cycle's holdout counts alike" in check.reason
    assert "100.0% → 95.0%" in check.reason


def test_old_holdouts_fade() -> None:
    check = retention_of({"half_life": 0.5})
    assert check.estimate == pytest.approx(-20 * 0.25 / (200 * 0.25 + 1000))
    assert "half as much for every 0.5 cycles" in check.reason
    weight = np.repeat([0.25, 1.0], [200, 1000])
    difference = np.repeat([-1.0, 0.0], [20, 1180])
    counts = statistics.effective_counts(difference, np.arange(1200), weight=weight)
    expected = statistics.tango_test(*counts, delta=-0.02)
    assert check.p_value == pytest.approx(expected)


def test_what_a_window_leaves_out_is_said_and_looked_at_nowhere() -> None:
    report = make_report(BETTER, (0, 150, 200), KEPT, (0, 0, 300))
    decision = decide(report, bare(retention={"window": 2}, slices={}))
    check = check_of(decision, "retention")
    assert (check.n, check.estimate, check.outcome) == (900, 0, "pass")
    assert "Left out as too old: 0; only the newest 2 count" in check.reason
    assert decision.verdict == "promoted"
    names = [c.name for c in decision.checks]
    assert "harm/history/0" not in names
    assert {"harm/history/1", "harm/history/2"} < set(names)
    assert check_of(decision, "slice/history/class=yes").n == 900
    assert decide(report, bare()).verdict == "rejected"


def test_undecided_says_how_many_rows_would_decide_and_what_else() -> None:
    report = make_report(BETTER, (5, 9, 400))
    check = check_of(decide(report, bare()), "retention")
    assert check.outcome == "inconclusive"
    need = statistics.rows_needed(14 / 400, distance=0.02 - 4 / 400, alpha=0.05)
    assert f"collect about {need:,} held-out history rows in all (now 400)" in check.reason
    assert "gate.retention.margin" in check.reason
    close = check_of(decide(make_report(BETTER, (5, 13, 401)), bare()), "retention")
    assert "more held-out history rows alone would not do" in close.reason
    for reason in (check.reason, close.reason):  # what was lost is mended first
        assert "To decide, retrain with more protection of history (method=" in reason
    assert "gate.retention.total" not in check.reason
    # a margin of four points would contradict a total of three
    assert "a larger gate.retention.margin and gate.retention.total" in close.reason
    gained = check_of(decide(make_report(BETTER, (9, 8, 150)), bare()), "retention")
    assert gained.outcome == "inconclusive"
    assert "protection" not in gained.reason


@pytest.mark.parametrize("copies", [1, 3])
def test_rows_that_would_decide_are_counted_with_their_copies(copies: int) -> None:
    report = make_report(BETTER, (5, 9, 400), copies=copies)
    check = check_of(decide(report, bare()), "retention")
    need = statistics.rows_needed(copies * 14 / 400, distance=0.02 - 4 / 400, alpha=0.05)
    told = re.search(r"about ([\d,]+) held-out history rows in all", check.reason)
    assert told is not None
    assert int(told[1].replace(",", "")) == pytest.approx(need, rel=1e-3)
