"""What holds of the gate whatever the rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.promotion.gate import decide
from perennial.promotion.policy import Policy
from perennial.types import EvaluationReport, Predictions
from support.reports import bare

ROWS = 260


def predicted(score: np.ndarray, label: np.ndarray) -> Predictions:
    right = np.where(score >= 1, label, 1 - label)
    probabilities = np.full((len(label), 2), 0.2)
    probabilities[np.arange(len(label)), right] = 0.8
    return Predictions(right, score, 1.5 - score, probabilities)


@st.composite
def reports(draw: st.DrawFn) -> EvaluationReport:
    """Two models on new rows and one to three holdouts, plain or dependent, with a slice column."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shares = [draw(st.sampled_from([0.0, 0.02, 0.1, 0.3])) for _ in range(4)]
    holdouts = ["new", *(f"history/cycle-{i}" for i in range(1, draw(st.integers(1, 3)) + 1))]
    holdout = np.repeat(holdouts, ROWS)
    n = len(holdout)
    label = generator.integers(2, size=n)
    is_new = holdout == "new"
    gained = generator.random(n) < np.where(is_new, shares[0], shares[1])
    lost = generator.random(n) < np.where(is_new, shares[2], shares[3])
    before = np.where(gained, 0.0, np.where(lost, 1.0, generator.integers(2, size=n)))
    after = np.where(gained, 1.0, np.where(lost, 0.0, before))
    if draw(st.booleans()):  # a score that is not 0/1
        before, after = (x + 0.1 * generator.random(n) for x in (before, after))
    groups = draw(st.sampled_from([1, 1, 2, 5]))
    return EvaluationReport(
        row_id=np.array([f"r{i}" for i in range(n)]),
        cluster=np.array([f"c{i // groups}" for i in range(n)]),
        holdout=holdout,
        label=label,
        seen_by_champion=np.zeros(n, dtype=bool),
        champion=predicted(before, label),
        candidate=predicted(after, label),
        label_names=("no", "yes"),
        slices={"region": generator.choice(["north", "south", ""], size=n)},
        best=np.where(is_new, np.nan, np.maximum(before, generator.integers(2, size=n))),
    )


def taken(report: EvaluationReport, order: np.ndarray) -> EvaluationReport:
    def rows(one: Predictions) -> Predictions:
        assert one.probabilities is not None
        return Predictions(
            one.prediction[order], one.score[order], one.loss[order], one.probabilities[order]
        )

    assert report.best is not None
    return replace(
        report,
        row_id=report.row_id[order],
        cluster=report.cluster[order],
        holdout=report.holdout[order],
        label=report.label[order],
        seen_by_champion=report.seen_by_champion[order],
        champion=rows(report.champion),
        candidate=rows(report.candidate),
        slices={name: values[order] for name, values in report.slices.items()},
        best=report.best[order],
    )


POLICIES = [
    Policy(),
    Policy(retention={"weights": "cycles"}, calibration={"ece": 0.02, "loss": 0.05}, flips=0.1),
    Policy(retention={"half_life": 1, "window": 2}),
    Policy(score="ndcg", retention={"total": None}),
    Policy(retention="waived"),
    Policy(improvement={"minimum_effect": 0.02}),
]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(reports(), st.sampled_from(POLICIES))
def test_swapping_the_models_never_promotes_both_ways(
    report: EvaluationReport, policy: Policy
) -> None:
    there = decide(report, policy)
    back = decide(replace(report, champion=report.candidate, candidate=report.champion), policy)
    assert {there.verdict, back.verdict} != {"promoted"}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(reports(), st.sampled_from(POLICIES), st.integers(0, 2**32 - 1))
def test_the_order_of_rows_changes_nothing(
    report: EvaluationReport, policy: Policy, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(report))
    here, there = decide(report, policy), decide(taken(report, order), policy)
    assert here.verdict == there.verdict
    assert [c.name for c in here.checks] == [c.name for c in there.checks]
    assert [c.outcome for c in here.checks] == [c.outcome for c in there.checks]
    for one, other in zip(here.checks, there.checks, strict=True):
        assert np.allclose(
            np.array([one.estimate, one.p_value, *(one.interval or ())], dtype=float),
            np.array([other.estimate, other.p_value, *(other.interval or ())], dtype=float),
            equal_nan=True,
        )
    assert here.flips == there.flips


@settings(max_examples=80, deadline=None, derandomize=True)
@given(reports(), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_more_loss_never_mends_a_check(report: EvaluationReport, rows: int, seed: int) -> None:
    score = report.candidate.score
    if np.isin(score, (0.0, 1.0)).all():
        lost = np.random.default_rng(seed).permutation(np.flatnonzero(score == 1))[:rows]
        worse = score.copy()
        worse[lost] = 0
    else:
        worse = score - rows / 100  # a shift, which leaves the spread as it is
    policy = bare(slices={"columns": ["region"]})
    changed = replace(report, candidate=replace(report.candidate, score=worse))
    before, after = decide(report, policy), decide(changed, policy)
    for one, other in zip(before.checks, after.checks, strict=True):
        assert one.name == other.name
        if one.outcome == "reject":
            assert other.outcome == "reject", one.name
    if before.verdict == "rejected":
        assert after.verdict == "rejected"
