"""The gate: a pure function from paired predictions and a policy to a decision."""

from __future__ import annotations

from collections.abc import Sequence

from perennial.promotion.case import Case, numbered
from perennial.promotion.checks import slices, vetoes
from perennial.promotion.checks.bounds import bounds
from perennial.promotion.checks.calibration import calibration
from perennial.promotion.checks.custom import custom
from perennial.promotion.checks.flips import counted, flips
from perennial.promotion.checks.improvement import improvement
from perennial.promotion.checks.retention import retention
from perennial.promotion.checks.sanity import sanity
from perennial.promotion.checks.serving import serving
from perennial.promotion.policy import Check, Decision, Policy, level
from perennial.promotion.validation import validate
from perennial.types import EvaluationReport


def decide(report: EvaluationReport, policy: Policy, *, decision_number: int = 1) -> Decision:
    """Compare candidate with champion.

    Args:
        report: Both models on the same rows.
        policy: What must be shown.
        decision_number: k; the k-th decision on one new holdout is tested at alpha / 2^(k-1).

    Raises:
        EvaluationError: The report is not one to decide on, or a custom check failed; nothing is
            promoted.
    """
    assert decision_number >= 1
    validate(report)
    case = Case(numbered(report), policy, level(policy, decision_number))
    tested, small = slices.suspects(case)
    checks = [
        *retention(case),
        *improvement(case),
        *vetoes.vetoes(case, [*vetoes.holdouts(case), *tested]),
        *vetoes.small(case, small),
        *bounds(case),
        *calibration(case),
        *serving(case),
        *sanity(case),
        *flips(case),
    ]
    checks += custom(report, policy, case.alpha, taken=[check.name for check in checks])
    return Decision(
        verdict=verdict(checks),
        checks=tuple(checks),
        alpha=case.alpha,
        decision_number=decision_number,
        score={"name": case.report.score_name, "unit": case.unit},
        flips=counted(report),
    )


def verdict(checks: Sequence[Check]) -> str:
    """Any reject wins, then anything undecided or untested that is no veto.

    A veto that cannot be tested has no say; what a policy asks for and does not get is not passed.
    """
    if any(check.outcome == "reject" for check in checks):
        return "rejected"
    asked = {check.outcome for check in checks if not check.veto}
    return "inconclusive" if asked & {"inconclusive", "not_evaluable"} else "promoted"
