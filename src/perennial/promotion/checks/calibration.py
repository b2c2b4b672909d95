"""Calibration: whether the candidate's probabilities became less honest."""

from __future__ import annotations

from perennial import statistics
from perennial.promotion.case import Case
from perennial.promotion.policy import Check
from perennial.promotion.words import amount, p_words
from perennial.types import Booleans

_TITLES = {"ece": "Expected calibration error", "loss": "Mean loss"}
_UNITS = {"ece": "points", "loss": ""}


def calibration(case: Case) -> list[Check]:
    """A veto for each measure that the policy limits, on new rows and on history."""
    limits = {"ece": case.policy.calibration.ece, "loss": case.policy.calibration.loss}
    return [
        _veto(case, measure, limit, part, mask)
        for measure, limit in limits.items()
        if limit is not None
        for part, mask in case.parts.items()
    ]


def _veto(case: Case, measure: str, limit: float, part: str, mask: Booleans) -> Check:
    name, title, rows = f"calibration/{measure}/{part}", _TITLES[measure], int(mask.sum())
    probabilities = (case.given.champion.probabilities, case.given.candidate.probabilities)
    why = ""
    if case.independent(mask) < 2:
        why = "its rows are all in one group"
    elif measure == "ece" and (
        not case.given.has_one_class or any(each is None for each in probabilities)
    ):
        why = "the task has no probabilities of one class a row"
    if why:
        return Check(
            name=name,
            outcome="not_evaluable",
            threshold=limit,
            n=rows,
            reason=f"{title} on {part}: {why}, so its change cannot be tested.",
            unit=_UNITS[measure],
            side="below",
            veto=True,
        )
    found = _change(case, measure, limit, mask)
    worse = found.p_above <= case.alpha
    direction = "worse" if found.estimate > 0 else "better"
    return Check(
        name=name,
        outcome="reject" if worse else "pass",
        estimate=found.estimate,
        interval=found.interval,
        threshold=limit,
        n=rows,
        p_value=found.p_above,
        power=None,
        alternative=None,
        reason=f"{title} on {part}: {amount(abs(found.estimate), _UNITS[measure])} {direction} on "
        f"{rows:,} rows; worse by more than {amount(limit, _UNITS[measure])} is "
        f"{'' if worse else 'not '}significant ({p_words(found.p_above)}).",
        unit=_UNITS[measure],
        side="below",
        veto=True,
    )


def _change(case: Case, measure: str, limit: float, mask: Booleans) -> statistics.Difference:
    report = case.given
    if measure == "loss":
        return statistics.mean_difference(
            report.candidate.loss[mask] - report.champion.loss[mask],
            report.cluster[mask],
            alpha=case.alpha,
            threshold=limit,
        )
    assert report.champion.probabilities is not None
    assert report.candidate.probabilities is not None
    return statistics.calibration_change(
        report.champion.probabilities[mask],
        report.candidate.probabilities[mask],
        report.label[mask],
        report.cluster[mask],
        alpha=case.alpha,
        threshold=limit,
    )
