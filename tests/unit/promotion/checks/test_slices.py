"""Slices by column and by class: harm vetoes, Holm over all of them and the holdouts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perennial import statistics
from perennial.errors import EvaluationError
from perennial.promotion.gate import decide
from perennial.promotion.policy import Decision, Policy
from perennial.types import EvaluationReport
from support.reports import bare, check_of, make_report

# 600 rows of history on which the first 60 rows are lost and 200 others are gained
MIXED = (200, 60, 600)


def report(*, classes: int = 10) -> EvaluationReport:
    made = make_report((20, 2, 100), MIXED)
    lost = made.candidate.score < made.champion.score
    region = np.where(lost, "south", "north").astype(object)
    region[made.is_new] = ""
    return replace(
        made,
        label=np.where(made.is_new, 0, 1 + np.arange(len(made)) % (classes - 1)),
        label_names=tuple(f"digit {i}" for i in range(classes)),
        slices={"region": region.astype(str)},
    )


def slices_of(decision: Decision) -> dict[str, str]:
    return {c.name: c.outcome for c in decision.checks if c.name.startswith("slice/")}


def test_a_lost_slice_vetoes_though_the_whole_gained() -> None:
    decision = decide(report(), bare(slices={"classes": False}))
    assert check_of(decision, "retention").outcome == "pass"
    assert slices_of(decision) == {
        "slice/history/region=north": "pass",
        "slice/history/region=south": "reject",
    }
    assert decision.verdict == "rejected"
    south = check_of(decision, "slice/history/region=south")
    alone = statistics.tango_test(60, 0, 60, delta=0.05)
    assert (south.n, south.threshold, south.veto) == (60, -0.05, True)
    assert (south.p_uncorrected, south.p_value) == (alone, pytest.approx(2 * alone))
    assert "region south (history): 100.0% → 0.0%, -100.0 points on 60 rows" in south.reason


def test_a_lost_class_vetoes() -> None:
    made = report()
    three = made.label == 3
    for who, score in ((made.champion, 1.0), (made.candidate, 0.0)):
        who.score[three] = score
    decision = decide(made, bare(slices={"columns": []}))
    assert slices_of(decision)["slice/history/class=digit 3"] == "reject"
    assert sum(outcome == "reject" for outcome in slices_of(decision).values()) == 1
    assert decision.verdict == "rejected"


def test_small_slices_are_named_together_and_cost_nothing() -> None:
    policy = bare(slices={"minimum_rows": 67})
    decision = decide(report(), policy)
    untested = check_of(decision, "slice/untested")
    assert untested.outcome == "not_evaluable"
    made = report()
    south = made.slices["region"] == "south"
    few = [label for label in range(1, 10) if (made.label == label).sum() < 67]
    assert untested.n == int((south | np.isin(made.label, few)).sum())
    assert "4 slices with fewer than 67 independent rows" in untested.reason
    assert "region south (history)" in untested.reason
    names = [name for name in slices_of(decision) if name != "slice/untested"]
    # of the labels 1 to 9 on history six have 67 rows, three 66
    assert len(names) == 1 + 1 + 6
    assert f"Holm's correction over {len(names)} vetoes" in check_of(decision, names[0]).reason
    assert decision.verdict == "promoted"


def test_dependent_rows_count_once_for_the_minimum() -> None:
    made = report()
    cluster = made.cluster.copy()
    south = made.slices["region"] == "south"
    cluster[south] = np.array([f"pair{i // 2}" for i in range(int(south.sum()))])
    decision = decide(replace(made, cluster=cluster), bare(slices={"classes": False}))
    assert "slice/history/region=south" not in slices_of(decision)
    assert "region south" in check_of(decision, "slice/untested").reason


@pytest.mark.parametrize("seed", range(12))
def test_an_interval_lies_wholly_beyond_the_margin_exactly_where_its_veto_rejects(
    seed: int,
) -> None:
    draw = np.random.default_rng(seed)
    # a mean needs 200 rows in each slice
    made = make_report((20, 2, 100), (40, 40, 2400 if seed % 3 == 1 else 900))
    region = np.array([f"r{i}" for i in draw.integers(0, 8, len(made))])
    worse = draw.uniform(0, 0.2 if seed % 3 == 1 else 0.45, 8)[
        np.array([int(name[1]) for name in region])
    ]
    lost = draw.random(len(made)) < worse
    score = np.where(lost & ~made.is_new, 0.0, 1.0)
    if seed % 3 == 1:  # scores that are no counts
        score = score * draw.uniform(0.5, 1.5, len(made))
    made = replace(
        made,
        slices={"region": region},
        champion=replace(made.champion, score=np.ones(len(made))),
        candidate=replace(made.candidate, score=score),
    )
    if seed % 3 == 2:  # dependent rows
        made = replace(made, cluster=np.array([f"c{i // 2}" for i in range(len(made))]))
    decision = decide(made, bare(slices={"classes": False, "minimum_rows": 20}))
    vetoes = [check for check in decision.checks if check.name.startswith("slice/history")]
    assert len(vetoes) == 8
    for check in vetoes:
        assert check.interval is not None
        assert check.threshold is not None
        assert check.level is not None
        assert (check.interval[1] < check.threshold) is (check.outcome == "reject")
        assert check.interval[0] < (check.estimate or 0) < check.interval[1]
    rejects = sum(check.outcome == "reject" for check in vetoes)
    alone = sum((check.p_uncorrected or 0) <= decision.alpha for check in vetoes)
    assert 0 < rejects <= alone < 8


def test_holm_runs_over_holdouts_and_slices_together() -> None:
    made = make_report((20, 2, 100), (30, 0, 600), (30, 0, 600), (0, 7, 150))
    half = np.where(np.arange(len(made)) % 2, "odd", "even")
    policy = bare(slices={"classes": False})
    decision = decide(replace(made, slices={"half": half}), policy)
    vetoes = [check for check in decision.checks if check.veto]
    # three holdouts, and two halves of new and of history
    assert len(vetoes) == 3 + 4
    alone = [check.p_uncorrected for check in vetoes]
    assert [c.p_value for c in vetoes] == pytest.approx(statistics.holm(alone).tolist())
    assert all("Holm's correction over 7 vetoes" in check.reason for check in vetoes)


@pytest.mark.parametrize(
    ("slices", "settings", "words"),
    [
        ({}, {"columns": ["region"]}, "no slice column 'region'"),
        ({"id": 51}, {}, "51 values"),
        ({"class": 2}, {}, "true label"),
    ],
)
def test_slices_that_cannot_be_are_refused(
    slices: dict[str, int], settings: dict[str, Any], words: str
) -> None:
    made = report()
    columns = {n: (np.arange(len(made)) % count).astype(str) for n, count in slices.items()}
    with pytest.raises(EvaluationError, match=words):
        decide(replace(made, slices=columns), Policy(slices=settings))
    many = {"id": (np.arange(len(made)) % 50).astype(str)}
    decide(replace(made, slices=many), Policy())


def test_waived_history_has_no_slices() -> None:
    decision = decide(report(), bare(retention="waived", slices={}))
    assert list(slices_of(decision)) == ["slice/new/class=digit 0"]
    assert decision.verdict == "promoted"


def test_a_loss_beyond_chance_alone_but_not_after_holm_passes() -> None:
    made = make_report((20, 2, 100), (100, 0, 600), (100, 9, 690))
    region = np.array([f"region {i % 20}" for i in range(len(made))])
    lost = (made.holdout == "history/1") & (made.candidate.score < made.champion.score)
    rest = np.flatnonzero((made.holdout == "history/1") & ~lost)[-61:]
    region[lost], region[rest] = "south", "south"
    decision = decide(
        replace(made, slices={"region": region}),
        bare(slices={"classes": False, "minimum_rows": 20}),
    )
    south = check_of(decision, "slice/history/region=south")
    assert south.p_uncorrected is not None
    assert south.p_uncorrected < 0.05 < (south.p_value or 0)
    assert (south.outcome, decision.verdict) == ("pass", "promoted")
