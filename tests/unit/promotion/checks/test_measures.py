"""Bounds, calibration, serving cost, sanity, flips and custom checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy import stats

from perennial import statistics
from perennial.errors import EvaluationError
from perennial.promotion.checks.bounds import interval
from perennial.promotion.gate import decide
from perennial.promotion.policy import Bound, Check
from perennial.types import EvaluationReport, Fitted, Measured, Predictions, Serving
from support.reports import BETTER, KEPT, bare, check_of, make_report

F1 = {"metric": "MulticlassF1Score", "limit": 0.6}


def measured(value: float, *, spread: float = 0.02, higher: bool = True) -> Measured:
    replicates = value + spread * stats.norm.ppf((np.arange(200) + 0.5) / 200)
    return Measured(value, replicates, higher, 100)


# --- bounds


@pytest.mark.parametrize(
    ("value", "higher", "outcome"),
    [
        (0.70, True, "pass"),
        (0.61, True, "inconclusive"),
        (0.50, True, "reject"),
        (0.50, False, "pass"),
        (0.59, False, "inconclusive"),
        (0.70, False, "reject"),
    ],
)
def test_a_bound_is_a_floor_or_a_ceiling(value: float, higher: bool, outcome: str) -> None:
    found = {Bound(**F1).key: measured(value, higher=higher)}
    decision = decide(replace(make_report(BETTER, KEPT), measured=found), bare(bounds=[F1]))
    check = check_of(decision, "bound/MulticlassF1Score/new")
    assert (check.outcome, check.threshold, check.estimate) == (outcome, 0.6, value)
    assert check.side == ("above" if higher else "below")
    assert check.unit == ""
    verdicts = {"pass": "promoted", "inconclusive": "inconclusive", "reject": "rejected"}
    assert decision.verdict == verdicts[outcome]
    assert f"must be {'at least' if higher else 'at most'} 0.6" in check.reason
    assert check.interval is not None
    # the bound that decides is the one that is named
    low, high = check.interval
    needs_low = higher == (outcome != "reject")
    sure = f"surely at least {low:.4g}" if needs_low else f"surely at most {high:.4g}"
    assert sure in check.reason


def test_a_bound_s_interval_goes_on_where_no_replicate_lies() -> None:
    one = measured(0.6)
    low, high = interval(one, 0.05)
    assert (low, high) == pytest.approx((0.6 - 1.645 * 0.02, 0.6 + 1.645 * 0.02), abs=1e-3)
    assert interval(one, 1e-6)[0] < one.replicates.min() - 0.01
    skewed = replace(one, replicates=0.6 + 0.01 * (stats.expon.ppf(np.linspace(0, 0.999, 200)) - 1))
    assert interval(skewed, 0.05)[1] == pytest.approx(np.quantile(skewed.replicates, 0.95))


def test_a_bound_on_rows_that_are_not_there_is_not_passed() -> None:
    asked = {**F1, "rows": "history/cycle-9"}
    decision = decide(make_report(BETTER, KEPT), bare(bounds=[asked]))
    check = check_of(decision, "bound/MulticlassF1Score/history/cycle-9")
    assert (check.outcome, decision.verdict) == ("not_evaluable", "inconclusive")


@pytest.mark.parametrize("found", [None, measured(float("nan"))])
def test_a_bound_that_was_not_measured_is_refused(found: Measured | None) -> None:
    given = {} if found is None else {Bound(**F1).key: found}
    with pytest.raises(EvaluationError, match="MulticlassF1Score on new is limited and"):
        decide(replace(make_report(BETTER, KEPT), measured=given), bare(bounds=[F1]))


def test_two_averages_of_a_metric_have_names_of_their_own() -> None:
    asked = [{**F1, "arguments": {"average": way}} for way in ("macro", "micro")]
    found = {Bound(**each).key: measured(0.9) for each in asked}
    decision = decide(replace(make_report(BETTER, KEPT), measured=found), bare(bounds=asked))
    names = [c.name for c in decision.checks if c.name.startswith("bound/")]
    assert names == [
        'bound/MulticlassF1Score(average="macro")/new',
        'bound/MulticlassF1Score(average="micro")/new',
    ]


# --- calibration


def calibrated(report: EvaluationReport, candidate: float) -> EvaluationReport:
    """The champion is as sure as it is right; the candidate has another certainty."""
    sure = {}
    for who, one in (("champion", report.champion), ("candidate", report.candidate)):
        p = candidate if who == "candidate" else 0.98
        probabilities = np.full((len(report), 2), 1 - p)
        probabilities[np.arange(len(report)), one.prediction] = p
        right = one.prediction == report.label
        sure[who] = replace(
            one, probabilities=probabilities, loss=-np.log(np.where(right, p, 1 - p))
        )
    return replace(report, **sure)


@pytest.mark.parametrize(("certainty", "outcome"), [(0.97, "pass"), (0.75, "reject")])
@pytest.mark.parametrize("measure", ["ece", "loss"])
def test_worse_calibration_vetoes(measure: str, certainty: float, outcome: str) -> None:
    report = calibrated(make_report((20, 2, 300), KEPT), certainty)
    decision = decide(report, bare(calibration={measure: 0.05}))
    found = [c for c in decision.checks if c.name.startswith(f"calibration/{measure}/")]
    assert [c.name.rpartition("/")[2] for c in found] == ["new", "history"]
    history = found[1]
    assert (history.outcome, history.veto, history.side) == (outcome, True, "below")
    assert history.threshold == 0.05
    assert (decision.verdict == "rejected") == (outcome == "reject")
    rows = ~report.is_new
    if measure == "ece":
        errors = [
            statistics.expected_calibration_error(who.probabilities[rows], report.label[rows])
            for who in (report.champion, report.candidate)
            if who.probabilities is not None
        ]
        assert (history.estimate, history.unit) == (pytest.approx(errors[1] - errors[0]), "points")
    else:
        change = report.candidate.loss[rows] - report.champion.loss[rows]
        assert (history.estimate, history.unit) == (pytest.approx(change.mean()), "")


def test_calibration_without_probabilities_has_no_say() -> None:
    decision = decide(make_report(BETTER, KEPT), bare(calibration={"ece": 0.01}))
    check = check_of(decision, "calibration/ece/new")
    assert (check.outcome, decision.verdict) == ("not_evaluable", "promoted")


# --- serving


def costs(latency: float = 1.0, parameters: int = 100, noise: float = 0.01) -> dict[str, Serving]:
    rounds = 1 + noise * np.sin(np.arange(60))
    return {
        "champion": Serving(parameters=100, bytes=400, latency=rounds),
        "candidate": Serving(parameters=parameters, bytes=400, latency=latency * rounds[::-1]),
    }


@pytest.mark.parametrize(
    ("limits", "models", "outcome"),
    [
        ({"parameters": 1.5}, costs(parameters=150), "pass"),
        ({"parameters": 1.5}, costs(parameters=151), "reject"),
        ({"bytes": 1.0}, costs(), "pass"),
        ({"latency_p50": 1.2}, costs(1.0), "pass"),
        ({"latency_p50": 1.2}, costs(1.5), "reject"),
        ({"latency_p95": 1.2}, costs(1.5), "reject"),
        ({"latency_p95": 1.0}, costs(1.0, noise=0.5), "inconclusive"),
        ({"latency_p50": 1.2}, {}, "not_evaluable"),
    ],
)
def test_serving_may_cost_so_much(
    limits: dict[str, float], models: dict[str, Serving], outcome: str
) -> None:
    decision = decide(replace(make_report(BETTER, KEPT), serving=models), bare(serving=limits))
    check = check_of(decision, f"serving/{next(iter(limits))}")
    assert (check.outcome, check.unit, check.side) == (outcome, "ratio", "below")
    assert check.threshold == next(iter(limits.values()))
    promoted = {"pass": "promoted", "reject": "rejected"}.get(outcome, "inconclusive")
    assert decision.verdict == promoted


def test_a_cost_is_a_ratio_of_quantiles() -> None:
    report = replace(make_report(BETTER, KEPT), serving=costs(1.5))
    check = check_of(decide(report, bare(serving={"latency_p95": 2})), "serving/latency_p95")
    models = report.serving
    ratio = np.quantile(models["candidate"].latency, 0.95) / np.quantile(
        models["champion"].latency, 0.95
    )
    assert check.estimate == pytest.approx(ratio)
    assert (check.n, check.outcome) == (60, "pass")


# --- sanity


def two_classes(report: EvaluationReport) -> EvaluationReport:
    label = np.arange(len(report)) % 2
    told = {
        who: replace(one, prediction=np.where(one.score == 1, label, 1 - label))
        for who, one in (("champion", report.champion), ("candidate", report.candidate))
    }
    return replace(report, label=label, **told)


def test_a_constant_candidate_is_rejected() -> None:
    report = two_classes(make_report(BETTER, KEPT))
    policy = bare(sanity={"leak": None})
    assert check_of(decide(report, policy), "sanity/constant").outcome == "pass"
    candidate = replace(report.candidate, prediction=np.ones(len(report), dtype=np.int64))
    decision = decide(replace(report, candidate=candidate), policy)
    check = check_of(decision, "sanity/constant")
    assert (check.outcome, decision.verdict) == ("reject", "rejected")
    assert "predicts yes for every one of 700 rows" in check.reason
    names = [c.name for c in decide(make_report(BETTER, KEPT), policy).checks]
    assert "sanity/constant" not in names  # rows of one class ask for one prediction


@pytest.mark.parametrize(
    ("rare", "spread", "outcome"),
    [(20, 0.02, "pass"), (20, 0.0, "reject"), (20, 1e-7, "reject"), (400, 0.02, "reject")],
)
def test_one_class_for_all_is_honest_where_most_rows_are_of_it(
    rare: int, spread: float, outcome: str
) -> None:
    """700 rows; the candidate always says no, at one probability or at several."""
    report = make_report(BETTER, KEPT)
    label = (np.arange(len(report)) < rare).astype(np.int64)
    yes = (0.1 + spread * np.linspace(-1, 1, len(report))).astype(np.float32)
    candidate = Predictions(
        prediction=np.zeros(len(report), dtype=np.int64),
        score=1.0 - label,
        loss=-np.log(np.where(label == 1, yes, 1 - yes)),
        probabilities=np.stack([1 - yes, yes], axis=1),
    )
    decision = decide(
        replace(report, label=label, candidate=candidate), bare(sanity={"leak": None})
    )
    assert check_of(decision, "sanity/constant").outcome == outcome


@pytest.mark.parametrize(("right", "outcome"), [(540, "pass"), (480, "inconclusive")])
def test_new_rows_far_easier_than_history_raise_an_alarm(right: int, outcome: str) -> None:
    report = make_report((60, 3, 300), KEPT)
    history = np.flatnonzero(~report.is_new)[right:]
    for who in (report.champion, report.candidate):
        who.score[history] = 0.0
    decision = decide(report, bare(sanity={"constant": False}))
    check = check_of(decision, "sanity/leak")
    assert check.outcome == outcome
    assert decision.verdict == ("promoted" if outcome == "pass" else "inconclusive")
    assert ("Look for a leak" in check.reason) == (outcome == "inconclusive")
    x, y = report.candidate.score[report.is_new], report.champion.score[~report.is_new]
    expected = stats.ttest_ind(x - 0.1, y, equal_var=False, alternative="greater").pvalue
    assert check.p_value == pytest.approx(expected)


@pytest.mark.parametrize(("gained", "outcome"), [(0.2, "pass"), (0.6, "reject")])
def test_over_fitting_is_a_gap_that_grew(gained: float, outcome: str) -> None:
    report = make_report((20, 0, 100), KEPT)
    fitted = Fitted(
        champion=np.zeros(200),
        candidate=(np.arange(200) < 200 * gained).astype(float),
        cluster=np.array([f"f{i}" for i in range(200)]),
    )
    policy = bare(sanity={"constant": False, "leak": None, "gap": 0.1})
    decision = decide(replace(report, fitted=fitted), policy)
    check = check_of(decision, "sanity/gap")
    assert (check.outcome, check.veto) == (outcome, True)
    assert check.estimate == pytest.approx(gained - 0.2)
    untested = decide(report, policy)
    assert check_of(untested, "sanity/gap").outcome == "not_evaluable"
    assert untested.verdict == "promoted"


# --- flips


@pytest.mark.parametrize(("lost", "outcome"), [(20, "pass"), (65, "inconclusive"), (120, "reject")])
def test_flips_are_counted_whatever_the_net_change(lost: int, outcome: str) -> None:
    report = make_report((20, 0, 100), (lost, lost, 900))
    decision = decide(report, bare(flips=0.07))
    check = check_of(decision, "flips")
    assert check.outcome == outcome
    expected = stats.binomtest(lost, 1000).proportion_ci(0.9, method="exact")
    assert check.interval == pytest.approx((expected.low, expected.high))
    assert (check.estimate, check.side, check.n) == (lost / 1000, "below", 1000)
    assert decision.flips == {
        "new": {"gained": 20, "lost": 0, "n": 100},
        "history": {"gained": lost, "lost": lost, "n": 900},
    }


def test_flips_of_dependent_rows_are_as_many_as_they_are_worth() -> None:
    alone = check_of(decide(make_report((20, 5, 200)), bare(flips=0.07)), "flips")
    copied = check_of(decide(make_report((20, 5, 200), copies=4), bare(flips=0.07)), "flips")
    assert (copied.estimate, copied.n) == (alone.estimate, 4 * alone.n)
    assert copied.interval == pytest.approx(alone.interval)


def test_a_task_without_classes_does_not_flip() -> None:
    report = replace(make_report(BETTER, KEPT), label_names=())
    decision = decide(report, bare(flips=0.1))
    assert decision.flips == {}
    assert (check_of(decision, "flips").outcome, decision.verdict) == (
        "not_evaluable",
        "inconclusive",
    )


# --- custom


def answer(outcome: str = "pass", name: str = "own", **changes: Any) -> Check:
    return replace(Check(name=name, outcome=outcome, n=9, reason="said"), **changes)


def custom(report: EvaluationReport, alpha: float, *, outcome: str) -> Check:
    assert isinstance(report.champion, Predictions)
    assert report.cluster[0] == "c0"  # as the report came
    return answer(outcome, estimate=alpha)


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        ("pass", "promoted"),
        ("reject", "rejected"),
        ("inconclusive", "inconclusive"),
        ("not_evaluable", "inconclusive"),
    ],
)
def test_a_custom_check_has_its_say(outcome: str, verdict: str) -> None:
    policy = bare(checks=[partial(custom, outcome=outcome)])
    decision = decide(make_report(BETTER, KEPT), policy, decision_number=2)
    assert decision.verdict == verdict
    assert check_of(decision, "own").estimate == 0.025


def test_a_custom_check_may_answer_with_several() -> None:
    def several(report: EvaluationReport, alpha: float) -> list[Check]:
        return [answer(name="a"), answer("reject", name="b", veto=True)]

    decision = decide(make_report(BETTER, KEPT), bare(checks=[several]))
    assert [c.name for c in decision.checks[-2:]] == ["a", "b"]
    assert decision.verdict == "rejected"


def fails(report: EvaluationReport, alpha: float) -> Check:
    raise KeyError("region")


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (fails, r"fails failed: KeyError: 'region'"),
        (lambda report, alpha: True, "answered with bool"),
        (lambda report, alpha: [answer(), None], "answered with NoneType"),
        (lambda report, alpha: [answer(), answer()], "calls its answer 'own'"),
        (lambda report, alpha: answer(name="retention"), "calls its answer 'retention'"),
        (lambda report, alpha: answer(name=""), "calls its answer ''"),
        (lambda report, alpha: answer("ok"), "has the outcome 'ok'"),
        (lambda report, alpha: answer("inconclusive", veto=True), "is a veto"),
        (lambda report, alpha: answer(unit="percent"), "has unit 'percent'"),
        (lambda report, alpha: answer(estimate=float("nan")), "not a finite number"),
        (lambda report, alpha: answer(interval=(0.0, float("inf"))), "not a finite number"),
        (lambda report, alpha: answer(interval=(None, None)), "not a finite number"),
        (lambda report, alpha: answer(interval=(1.0,)), "two bounds"),
        (lambda report, alpha: answer(interval=(0.0, 0.2), threshold=None), "without an estimate"),
        (lambda report, alpha: answer(estimate="3"), "not a finite number"),
        (lambda report, alpha: answer(n=-1), "counts -1 rows"),
        (lambda report, alpha: answer(n="x"), "counts 'x' rows"),
        (lambda report, alpha: answer(reason=None), "needs a reason"),
        (lambda report, alpha: report.candidate.score.fill(1), "read-only"),
        (lambda report, alpha: report.slices.update(a=1), "'mappingproxy' object"),
    ],
)
def test_a_custom_check_that_fails_promotes_nothing(check: Callable[..., Any], words: str) -> None:
    with pytest.raises(EvaluationError, match=words) as caught:
        decide(make_report(BETTER, KEPT), bare(checks=[check]))
    assert caught.value.where == "gate.checks"
    assert "custom check" in caught.value.what
