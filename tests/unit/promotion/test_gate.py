"""The gate: outcomes of each check, the verdict, and what it refuses."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from perennial import statistics
from perennial.errors import ConfigError, DataError, EvaluationError
from perennial.promotion.gate import decide
from perennial.promotion.policy import Policy
from perennial.promotion.requirements import require_decidable
from perennial.types import EvaluationReport, Predictions
from support.reports import (
    BETTER,
    KEPT,
    LOST,
    SAME,
    UNCLEAR,
    WORSE,
    bare,
    check_of,
    make_report,
    predictions,
)


@pytest.mark.parametrize(
    ("history", "new", "outcomes", "verdict"),
    [
        (KEPT, BETTER, ("pass", "pass"), "promoted"),
        (KEPT, SAME, ("pass", "inconclusive"), "inconclusive"),
        (KEPT, WORSE, ("pass", "reject"), "rejected"),
        (UNCLEAR, BETTER, ("inconclusive", "pass"), "inconclusive"),
        (UNCLEAR, SAME, ("inconclusive", "inconclusive"), "inconclusive"),
        (UNCLEAR, WORSE, ("inconclusive", "reject"), "rejected"),
        (LOST, BETTER, ("reject", "pass"), "rejected"),
        (LOST, SAME, ("reject", "inconclusive"), "rejected"),
        (LOST, WORSE, ("reject", "reject"), "rejected"),
    ],
)
def test_verdict(
    history: tuple[int, int, int],
    new: tuple[int, int, int],
    outcomes: tuple[str, str],
    verdict: str,
) -> None:
    decision = decide(make_report(new, history), Policy())
    assert [check.name for check in decision.checks[:2]] == ["retention", "improvement"]
    assert tuple(check.outcome for check in decision.checks[:2]) == outcomes
    assert decision.verdict == verdict


def test_checks_carry_their_tests() -> None:
    decision = decide(make_report((9, 2, 150), (3, 6, 400)), Policy())
    retention, improvement = decision.checks[:2]
    assert (retention.n, improvement.n) == (400, 150)
    assert retention.estimate == pytest.approx(-3 / 400)
    assert retention.threshold == -0.02
    assert retention.interval == statistics.tango_interval(3, 6, 400, alpha=0.05)
    assert retention.p_value == statistics.tango_test(3, 6, 400, delta=-0.02)
    assert retention.alternative == 0
    assert retention.power == statistics.tango_power(
        400, discordance=9 / 400, margin=0.02, alpha=0.05
    )
    expected = stats.binomtest(9, 11, alternative="greater").pvalue
    assert improvement.p_value == pytest.approx(expected)
    assert improvement.estimate == pytest.approx(7 / 150)
    assert improvement.interval == statistics.tango_interval(9, 2, 150, alpha=0.05)
    assert improvement.alternative == 0.02
    assert improvement.power == statistics.mcnemar_power(
        150, discordance=11 / 150, alternative=0.02, alpha=0.05
    )


@pytest.mark.parametrize("history", [(0, 0, 132), (0, 0, 133), (2, 5, 500), (4, 2, 250)])
def test_retention_outcome_agrees_with_its_p_value(history: tuple[int, int, int]) -> None:
    retention = check_of(decide(make_report(BETTER, history), Policy()), "retention")
    assert retention.p_value is not None
    assert (retention.outcome == "pass") == (retention.p_value <= 0.05)


@pytest.mark.parametrize("number", [1, 2, 3, 6])
def test_alpha_is_halved_by_each_decision(number: int) -> None:
    decision = decide(make_report((5, 0, 100), KEPT), Policy(), decision_number=number)
    improvement = check_of(decision, "improvement")
    assert decision.alpha == 0.05 / 2 ** (number - 1)
    assert decision.decision_number == number
    assert improvement.p_value == pytest.approx(0.5**5)
    assert improvement.outcome == ("pass" if number == 1 else "inconclusive")
    assert improvement.interval == statistics.tango_interval(5, 0, 100, alpha=decision.alpha)


def test_retention_alpha_is_halved_too() -> None:
    report = make_report(BETTER, (0, 0, 150))
    assert check_of(decide(report, Policy()), "retention").outcome == "pass"
    later = decide(report, Policy(), decision_number=2)
    assert check_of(later, "retention").outcome == "inconclusive"


@pytest.mark.parametrize("distance", [1e-3, 1e-5, -1e-5, -1e-9])
def test_the_sentence_tells_a_bound_from_the_margin(distance: float) -> None:
    report = make_report(BETTER, (2, 5, 500))
    low = statistics.tango_interval(2, 5, 500, alpha=0.05 / 2**8)[0]
    policy = Policy(retention={"margin": distance - low, "total": None})
    retention = check_of(decide(report, policy, decision_number=9), "retention")
    assert retention.outcome == ("pass" if distance > 0 else "inconclusive")
    found = re.search(
        r"at worst -([\d.]+) with 99\.98% confidence; a loss of up to ([\d.]+)", retention.reason
    )
    assert found is not None
    assert (float(found[1]) < float(found[2])) == (distance > 0)
    assert float(found[1]) != float(found[2])


@pytest.mark.parametrize(("new", "verdict"), [(BETTER, "inconclusive"), (WORSE, "rejected")])
def test_without_history_retention_is_not_evaluable(
    new: tuple[int, int, int], verdict: str
) -> None:
    decision = decide(make_report(new), Policy())
    retention = check_of(decision, "retention")
    assert retention.outcome == "not_evaluable"
    assert (retention.n, retention.estimate, retention.interval) == (0, None, None)
    assert "data.history_holdout" in retention.reason
    assert decision.verdict == verdict


@pytest.mark.parametrize("history", [(), (LOST,), (LOST, LOST, LOST)])
def test_waived_retention_is_not_looked_at(history: tuple[tuple[int, int, int], ...]) -> None:
    decision = decide(make_report(BETTER, *history), Policy(retention="waived"))
    assert [check.name for check in decision.checks[:2]] == ["retention", "improvement"]
    waived = check_of(decision, "retention")
    assert waived.outcome == "waived"
    assert "neither all of it nor a holdout, a class or a slice" in waived.reason
    assert decision.verdict == "promoted"


def test_rows_that_the_champion_saw_cannot_reject() -> None:
    decision = decide(make_report(BETTER, LOST, seen=(True,)), Policy())
    retention = check_of(decision, "retention")
    assert retention.outcome == "inconclusive"
    assert "data.history_holdout" in retention.reason
    assert decision.verdict == "inconclusive"


def test_rows_that_the_champion_saw_can_pass() -> None:
    decision = decide(make_report(BETTER, KEPT, seen=(True,)), Policy())
    assert decision.verdict == "promoted"


@pytest.mark.parametrize(("unseen", "outcome"), [((0, 0, 200), "pass"), ((0, 40, 200), "reject")])
def test_enough_unseen_rows_decide_alone(unseen: tuple[int, int, int], outcome: str) -> None:
    report = make_report(BETTER, (0, 9, 300), unseen, seen=(True, False))
    retention = check_of(decide(report, Policy()), "retention")
    assert retention.n == 200
    assert retention.outcome == outcome


def test_losing_more_than_was_memorised_is_not_promoted() -> None:
    # the champion is right on all unseen history, so nothing explains 30% lost on marked rows
    lost = decide(make_report(BETTER, (0, 90, 300), (0, 0, 200), seen=(True, False)), Policy())
    check = check_of(lost, "retention")
    assert (check.outcome, lost.verdict, check.n) == ("inconclusive", "inconclusive", 200)
    assert "more than it can have known by heart" in check.reason
    assert "300 that it was trained on are left out" in check.reason
    # un-memorising 30% of the marked rows, where the champion is right on 70% of unseen ones
    report = make_report(BETTER, (0, 90, 300), (0, 0, 200), seen=(True, False))
    unseen = ~report.is_new & ~report.seen_by_champion
    wrong = np.flatnonzero(unseen)[:60]
    for who in (report.champion, report.candidate):
        who.score[wrong] = 0.0
    decided = decide(report, Policy())
    assert check_of(decided, "retention").outcome == "pass"
    assert decided.verdict == "promoted"


def test_too_few_unseen_rows_are_pooled_and_cannot_reject() -> None:
    report = make_report(BETTER, (0, 90, 300), (0, 0, 132), seen=(True, False))
    retention = check_of(decide(report, Policy()), "retention")
    assert retention.n == 432
    assert retention.outcome == "inconclusive"


def test_duplicated_rows_do_not_shrink_the_p_value() -> None:
    twice, often = (
        check_of(decide(make_report((8, 1, 40), KEPT, copies=k), Policy()), "improvement")
        for k in (2, 20)
    )
    # what the 40 distinct rows alone would give
    expected = statistics.mcnemar(8, 1)
    assert twice.p_value == pytest.approx(expected, abs=1e-9)
    assert often.p_value == pytest.approx(expected, abs=1e-9)
    assert often.interval == pytest.approx(twice.interval, abs=1e-9)
    assert often.p_value is not None
    assert often.p_value > 1000 * statistics.mcnemar(160, 20)


def test_a_few_clusters_without_discordance_do_not_pass_retention() -> None:
    report = make_report(BETTER, (0, 0, 5), copies=100)
    assert check_of(decide(report, Policy()), "retention").outcome == "inconclusive"


def test_power_counts_dependent_rows_once() -> None:
    alone = decide(make_report(BETTER, UNCLEAR), Policy())
    tripled = decide(make_report(BETTER, UNCLEAR, copies=3), Policy())
    for name in ("retention", "improvement"):
        assert check_of(tripled, name).power == pytest.approx(check_of(alone, name).power)


def test_duplicated_history_does_not_shrink_the_p_value() -> None:
    twice, often = (
        check_of(decide(make_report(BETTER, (2, 4, 150), copies=k), Policy()), "retention")
        for k in (2, 20)
    )
    assert often.p_value == pytest.approx(twice.p_value, abs=1e-9)
    assert often.outcome == twice.outcome == "inconclusive"


def test_new_rows_of_one_group_are_refused() -> None:
    report = replace(make_report(BETTER), cluster=np.array(["one"] * 100))
    with pytest.raises(EvaluationError) as caught:
        decide(report, Policy(retention="waived"))
    assert caught.value.where == "data.group_column"


def test_scores_that_are_not_zero_or_one_are_judged_by_their_mean() -> None:
    generator = np.random.default_rng(2)
    report = make_report((0, 0, 50))
    difference = generator.normal(0.1, 0.2, 50)
    before = generator.random(50)
    report = replace(
        report,
        champion=predictions(before),
        candidate=predictions(before + difference),
        score_unit="",
    )
    policy = Policy(retention="waived", improvement={"minimum_effect": 0.01, "alternative": 0.05})
    improvement = check_of(decide(report, policy), "improvement")
    expected = statistics.mean_difference(difference, np.arange(50), alpha=0.05, threshold=0.01)
    assert improvement.p_value == pytest.approx(expected.p_above, abs=1e-9)
    assert improvement.interval == pytest.approx(expected.interval, abs=1e-9)
    power = statistics.mean_power(
        expected.error, margin=-0.01, alpha=0.05, alternative=0.06, skewness=expected.skewness
    )
    assert improvement.power == pytest.approx(power)
    assert improvement.unit == ""


@pytest.mark.parametrize(
    ("effect", "outcome"),
    [(-0.05, "pass"), (0.0, "pass"), (0.05, "pass"), (0.15, "inconclusive"), (0.4, "reject")],
)
def test_minimum_effect_must_be_exceeded(effect: float, outcome: str) -> None:
    policy = Policy(improvement={"minimum_effect": effect, "alternative": 0.1})
    improvement = check_of(decide(make_report(BETTER, KEPT), policy), "improvement")
    assert improvement.outcome == outcome
    assert improvement.threshold == effect
    if effect:
        passes = statistics.tango_test(20, 2, 100, delta=effect)
        rejects = statistics.tango_test(2, 20, 100, delta=-effect)
        assert improvement.p_value == (rejects if outcome == "reject" else passes)
        assert improvement.alternative == pytest.approx(effect + 0.1)
        assert improvement.power == statistics.tango_power(
            100, discordance=0.22, margin=-effect, alpha=0.05, alternative=effect + 0.1
        )


@pytest.mark.parametrize("unit", ["points", ""])
def test_a_loss_that_is_allowed_on_new_rows_passes_at_the_margin_as_rarely_as_alpha(
    unit: str,
) -> None:
    policy = Policy(retention="waived", improvement={"minimum_effect": -0.05}, alpha=0.1)
    generator = np.random.default_rng(5)

    def passes(difference: float) -> float:
        """Share of 500 draws of 400 rows, of which 15% differ or whose scores are spread."""
        found = []
        for _ in range(500):
            gained, lost = (0.15 + difference) / 2, (0.15 - difference) / 2
            b, c, _same = generator.multinomial(400, [gained, lost, 1 - gained - lost])
            report = make_report((int(b), int(c), 400))
            if not unit:
                before = 0.25 + generator.random(400) / 2
                after = before + generator.normal(difference, 0.2, 400)
                report = replace(
                    report,
                    champion=predictions(before),
                    candidate=predictions(after),
                    score_unit="",
                )
            found.append(check_of(decide(report, policy), "improvement").outcome == "pass")
        return float(np.mean(found))

    # three standard errors of 500 draws
    assert 0.05 < passes(-0.05) < 0.1 + 3 * (0.1 * 0.9 / 500) ** 0.5
    assert passes(0.0) > 0.8


def test_harm_to_one_of_three_holdouts_vetoes() -> None:
    report = make_report(BETTER, (30, 0, 600), (30, 0, 600), (0, 30, 100))
    decision = decide(report, bare())
    assert [(check.name, check.outcome) for check in decision.checks] == [
        ("retention", "pass"),
        ("improvement", "pass"),
        ("harm/history/0", "pass"),
        ("harm/history/1", "pass"),
        ("harm/history/2", "reject"),
    ]
    assert decision.verdict == "rejected"
    harm = check_of(decision, "harm/history/2")
    alone = statistics.tango_test(30, 0, 100, delta=0.02)
    assert (harm.p_value, harm.p_uncorrected) == (pytest.approx(3 * alone), pytest.approx(alone))
    assert "Holm's correction over 3 vetoes" in harm.reason
    assert harm.veto
    assert (harm.n, harm.threshold) == (100, -0.02)


def test_harm_is_corrected_for_the_number_of_holdouts() -> None:
    loss = (0, 7, 150)
    alone = statistics.tango_test(7, 0, 150, delta=0.02)
    assert 0.05 / 3 < alone < 0.05
    decision = decide(make_report(BETTER, (30, 0, 600), (30, 0, 600), loss), bare())
    assert check_of(decision, "harm/history/2").outcome == "pass"
    assert decision.verdict == "promoted"


def test_harm_looks_at_unseen_rows_only() -> None:
    report = make_report(BETTER, (30, 0, 600), (30, 0, 600), (0, 6, 100), seen=(False, False, True))
    decision = decide(report, bare())
    harm = {check.name: check.outcome for check in decision.checks[2:]}
    assert harm == {
        "harm/history/0": "pass",
        "harm/history/1": "pass",
        "harm/history/2": "not_evaluable",
    }
    assert "all seen" in decision.checks[-1].reason
    assert decision.verdict == "promoted"


def test_a_holdout_of_one_group_has_no_veto() -> None:
    report = make_report(BETTER, KEPT, KEPT, (0, 0, 2))
    cluster = report.cluster.copy()
    cluster[report.holdout == "history/2"] = "one"
    decision = decide(replace(report, cluster=cluster), Policy())
    check = check_of(decision, "harm/history/2")
    assert (check.outcome, check.n, check.p_value) == ("not_evaluable", 2, None)
    assert "all in one group" in check.reason
    assert decision.verdict == "promoted"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("who", ["champion", "candidate"])
@pytest.mark.parametrize("what", ["score", "loss"])
def test_numbers_that_are_not_finite_are_refused(who: str, what: str, value: float) -> None:
    report = make_report(BETTER, KEPT)
    one: Predictions = getattr(report, who)
    values = getattr(one, what).copy()
    values[3] = value
    changed: dict[str, Any] = {who: replace(one, **{what: values})}
    with pytest.raises(EvaluationError, match="not a finite number"):
        decide(replace(report, **changed), Policy())


def test_a_report_without_new_rows_is_refused() -> None:
    with pytest.raises(EvaluationError, match="no predictions on new rows"):
        decide(make_report((0, 0, 0), KEPT), Policy())


def test_an_empty_report_is_refused() -> None:
    with pytest.raises(EvaluationError, match="no predictions on new rows"):
        decide(make_report((0, 0, 0)), Policy())


def test_models_scored_on_different_rows_are_refused() -> None:
    report = replace(make_report(BETTER, KEPT), candidate=predictions(np.ones(5)))
    with pytest.raises(EvaluationError, match="not scored on the same rows"):
        decide(report, Policy())


@pytest.mark.parametrize(("n_history", "enough"), [(0, False), (132, False), (133, True)])
def test_history_must_be_able_to_clear_the_margin(n_history: int, enough: bool) -> None:
    found = check_of(decide(make_report(BETTER, (0, 0, max(n_history, 1))), Policy()), "retention")
    assert (found.outcome == "pass") == enough
    if enough:
        require_decidable({"new": 100, "history/1": n_history}, Policy())
        return
    with pytest.raises(DataError, match="at least 133 rows") as caught:
        require_decidable({"new": 100, "history/1": n_history}, Policy())
    assert caught.value.where == "data.history holdout"


def test_history_is_not_asked_for_where_it_is_not_tested() -> None:
    few = {"new": 100, "history/1": 10}
    with pytest.raises(DataError, match="history holdout has 10"):
        require_decidable(few, Policy())
    for rows, policy in (({"new": 100}, Policy()), (few, Policy(retention="waived"))):
        require_decidable(rows, policy)
        with pytest.raises(DataError, match="new holdout has 4"):
            require_decidable({**rows, "new": 4}, policy)


@pytest.mark.parametrize("number", [2, 4])
def test_a_repeated_decision_needs_more_rows(number: int) -> None:
    alpha = 0.05 / 2 ** (number - 1)
    need = next(n for n in range(1, 999) if statistics.tango_test(0, 0, n, delta=-0.02) < alpha)
    best = decide(make_report((50, 0, 50), (0, 0, need)), Policy(), decision_number=number)
    assert best.verdict == "promoted"
    require_decidable({"new": 50, "history/1": need}, Policy(), decision_number=number)
    with pytest.raises(DataError, match=f"decision {number} on the same new rows"):
        require_decidable({"new": 50, "history/1": need - 1}, Policy(), decision_number=number)
    least = next(n for n in range(99) if 0.5**n <= alpha)
    require_decidable({"new": least, "history/1": need}, Policy(), decision_number=number)
    with pytest.raises(DataError, match=f"at least {least} new rows"):
        require_decidable({"new": least - 1, "history/1": need}, Policy(), decision_number=number)


@pytest.mark.parametrize("effect", [0.1, 0.5, -0.1, -0.5])
def test_a_minimum_effect_needs_rows_that_could_show_it(effect: float) -> None:
    policy = Policy(improvement={"minimum_effect": effect, "alternative": 0.1})

    def decidable(n: int) -> bool:
        try:
            require_decidable({"new": n}, policy)
        except DataError:
            return False
        return True

    z2 = stats.norm.isf(0.05) ** 2
    for n in range(1, 30):
        best = decide(make_report((n, 0, n)), policy)
        passes = check_of(best, "improvement").outcome == "pass"
        # nor may the effect be smaller than what no difference at all leaves open
        assert decidable(n) == (passes and z2 / (n + z2) < abs(effect))


@pytest.mark.parametrize(("n_new", "enough"), [(0, False), (4, False), (5, True)])
def test_new_rows_must_be_able_to_be_significant(n_new: int, enough: bool) -> None:
    assert (statistics.mcnemar(n_new, 0) <= 0.05) == enough
    if enough:
        require_decidable({"new": n_new, "history/1": 133}, Policy())
        return
    with pytest.raises(DataError, match="at least 5 new rows") as caught:
        require_decidable({"new": n_new, "history/1": 133}, Policy())
    assert caught.value.where == "data.new holdout"


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"alpha": 0}, "gate.alpha"),
        ({"alpha": 0.5}, "gate.alpha"),
        ({"alpha": -0.1}, "gate.alpha"),
        ({"alpha": True}, "gate.alpha"),
        ({"alpha": "0.05"}, "gate.alpha"),
        ({"alpha": float("nan")}, "gate.alpha"),
        ({"retention": "off"}, "gate.retention"),
        ({"retention": 0.02}, "gate.retention"),
        ({"retention": {"margin": 0}}, "gate.retention.margin"),
        ({"retention": {"margin": 1}}, "gate.retention.margin"),
        ({"retention": {"margin": None}}, "gate.retention.margin"),
        ({"retention": {"margin": 0.02, "slack": 1}}, "gate.retention.slack"),
        ({"improvement": {"minimum_effect": -1}}, "gate.improvement.minimum_effect"),
        ({"improvement": {"minimum_effect": 1}}, "gate.improvement.minimum_effect"),
        ({"improvement": {"minimum_effect": "much"}}, "gate.improvement.minimum_effect"),
        ({"improvement": {"minimum_effect": None}}, "gate.improvement.minimum_effect"),
        ({"improvement": {"minimum_effect": float("nan")}}, "gate.improvement.minimum_effect"),
        ({"improvement": {"alternative": 0}}, "gate.improvement.alternative"),
        ({"improvement": {"alternative": 1}}, "gate.improvement.alternative"),
        (
            {"improvement": {"minimum_effect": 0.5, "alternative": 0.5}},
            "gate.improvement.alternative",
        ),
        ({"improvement": {"effect": 0.1}}, "gate.improvement.effect"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Policy(**settings)
    assert caught.value.where == where
    assert caught.value.mend


def test_defaults() -> None:
    for policy in (Policy(), Policy(retention={}, improvement={})):
        retention, improvement = policy.retention, policy.improvement
        assert (policy.alpha, policy.waived) == (0.05, False)
        assert (retention.margin, retention.total, retention.weights) == (0.02, 0.03, "rows")
        assert (improvement.minimum_effect, improvement.alternative) == (0.0, 0.02)


@pytest.mark.parametrize(
    "report",
    [
        make_report(BETTER, KEPT),
        make_report(BETTER),
        make_report((5, 0, 5), (0, 20, 20)),
        make_report(SAME, (30, 0, 600), (0, 30, 100), (0, 0, 50)),
        make_report(SAME, UNCLEAR, KEPT, copies=2),
        make_report((0, 0, 9), KEPT, copies=2),
    ],
)
def test_decision_is_plain(report: EvaluationReport) -> None:
    decision = decide(report, Policy(), decision_number=2)
    value = decision.to_dict()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert set(value) == {"verdict", "checks", "alpha", "decision_number", "score", "flips"}
    assert [check["name"] for check in value["checks"]] == [c.name for c in decision.checks]


def graded(rows: int, *, gain: float, spread: float, seed: int = 0) -> EvaluationReport:
    """Scores that are not right or wrong: as many new rows as of one history holdout."""
    report = make_report((0, 0, rows), (0, 0, rows))
    noise = np.random.default_rng(seed).normal(size=2 * rows)
    score = report.champion.score + gain + spread * (noise - noise.mean())
    return replace(report, candidate=replace(report.candidate, score=score))


@pytest.mark.parametrize("rows", [199, 200])
@pytest.mark.parametrize("gain", [0.5, -0.5])
def test_a_mean_is_not_decided_on_with_a_few_rows(rows: int, gain: float) -> None:
    decision = decide(graded(rows, gain=gain, spread=0.1), bare())
    enough = "promoted" if gain > 0 else "rejected"
    assert decision.verdict == (enough if rows == 200 else "inconclusive")
    for check in decision.checks[:2]:
        assert ("needs 200 in 50 to be decided on" in check.reason) == (rows == 199)


def test_a_mean_of_equal_models_is_counted() -> None:
    report = graded(300, gain=0.0, spread=0.0)
    half = replace(report.candidate, score=report.candidate.score + 0.5)
    report = replace(report, champion=half, candidate=half)
    retention = check_of(decide(report, bare()), "retention")
    assert retention.interval == statistics.tango_interval(0, 0, 300, alpha=0.05)


def test_rows_that_would_decide_a_mean() -> None:
    report = graded(300, gain=-0.01, spread=0.2, seed=2)
    retention = check_of(decide(report, bare()), "retention")
    assert retention.outcome == "inconclusive"
    history = ~report.is_new
    difference = report.candidate.score[history] - report.champion.score[history]
    z = stats.norm.isf(0.05) + stats.norm.isf(0.2)
    need = float(np.var(difference, ddof=1)) * (z / (difference.mean() + 0.02)) ** 2
    told = int(re.search(r"about ([\d,]+) ", retention.reason)[1].replace(",", ""))  # type: ignore[index]
    assert told == pytest.approx(need, rel=0.02)


def test_the_best_champion_s_own_level_is_foreseen() -> None:
    # z² / (n + z²) < 0.02 takes 133 rows at 5%, and 189 at 2.5%
    equal = Policy(retention={"margin": 0.02, "total": 0.02})
    require_decidable({"new": 100, "history/1": 189}, equal)
    with pytest.raises(DataError, match="at least 189 rows"):
        require_decidable({"new": 100, "history/1": 188}, equal)
    require_decidable({"new": 100, "history/1": 133}, Policy())


def test_few_rows_of_another_score_are_refused_before_training() -> None:
    policy = Policy(score="loss", retention={"margin": 0.3, "total": None})
    require_decidable({"new": 50, "history/1": 30, "history/2": 20}, policy)
    for rows in ({"new": 49, "history/1": 50}, {"new": 50, "history/1": 49}):
        with pytest.raises(DataError, match="hold out at least 200 rows"):
            require_decidable(rows, policy)


@pytest.mark.parametrize("groups", [49, 50])
def test_a_mean_over_groups_needs_fifty_of_them(groups: int) -> None:
    report = graded(500, gain=0.5, spread=0.1)
    cluster = np.array([f"{holdout}{i % groups}" for i, holdout in enumerate(report.holdout)])
    decision = decide(replace(report, cluster=cluster), bare())
    assert decision.verdict == ("promoted" if groups == 50 else "inconclusive")
