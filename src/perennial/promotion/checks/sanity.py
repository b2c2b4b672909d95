"""Sanity: constant predictions, an improvement too good to be true, over-fitting."""

from __future__ import annotations

import numpy as np

from perennial import statistics
from perennial.promotion.case import Case
from perennial.promotion.policy import Check
from perennial.promotion.words import amount, p_words
from perennial.types import EvaluationReport, Floats

# batches of other sizes give the same row other last bits
ROUNDING = 1e-6


def sanity(case: Case) -> list[Check]:
    """The checks that the policy asks for; scores are the task's own."""
    settings = case.policy.sanity
    return [
        *(_constant(case) if settings.constant else []),
        *(_leak(case, settings.leak) if settings.leak is not None else []),
        *(_gap(case, settings.gap) if settings.gap is not None else []),
    ]


def _constant(case: Case) -> list[Check]:
    """Whether the candidate says the same whatever the row; not asked of rows of one class.

    One most probable class alone does not say so where most rows are of it: no honest model names
    a rare one, and the probabilities are what tells the rows apart.
    """
    report, found = case.given, case.given.candidate
    if not report.has_one_class or len(np.unique(report.label)) < 2:
        return []
    distinct = len(np.unique(found.prediction))
    told = f"The candidate predicts {distinct} different classes on {len(report):,} rows."
    constant = False
    if distinct == 1:
        told, constant = _one_class(report)
    return [
        Check(
            name="sanity/constant",
            outcome="reject" if constant else "pass",
            n=len(report),
            reason=told,
            unit="",
            veto=True,
        )
    ]


def _one_class(report: EvaluationReport) -> tuple[str, bool]:
    """Of a candidate that predicts one class: what it does in words, and whether it is constant."""
    found = report.candidate
    named = int(found.prediction[0])
    told = (
        f"The candidate predicts {report.label_names[named]} for every one of {len(report):,} rows"
    )
    if (share := float(np.mean(report.label == named))) < 0.5:
        return f"{told}, of which {share:.1%} are of that class.", True
    if found.probabilities is None or not _vary(found.probabilities):
        return f"{told}, at the same probability.", True
    return f"{told}, of which {share:.1%} are of that class, at probabilities that differ.", False


def _vary(probabilities: Floats) -> bool:
    """Whether rows get probabilities (N, C) that differ by more than float32's rounding."""
    return bool((np.ptp(probabilities, axis=0) > ROUNDING).any())


def _leak(case: Case, leak: float) -> list[Check]:
    """An alarm where new rows are too easy by far: their labels may be among the features.

    Not asked of errors in a target's own unit, which may well be smaller where targets are.
    """
    report = case.given
    if report.target_kind == "number":
        return []
    new, history = report.is_new, ~report.is_new
    if case.independent(new) < 2 or case.independent(history) < 2:
        return []
    found = statistics.unpaired_difference(
        report.candidate.score[new],
        report.cluster[new],
        report.champion.score[history],
        report.cluster[history],
        alpha=case.alpha,
        threshold=leak,
    )
    alarm = found.p_above <= case.alpha
    unit = case.task_unit
    reason = (
        f"The candidate's score on new rows is {amount(abs(found.estimate), unit)} "
        f"{'above' if found.estimate > 0 else 'below'} what the champion has on history; more than "
        f"{amount(leak, unit)} above would be too good to be true."
    )
    if alarm:
        reason += (
            " Look for a leak: a feature that knows the label, or new rows that are copies of "
            "training rows. If the new rows truly are that easy, raise gate.sanity.leak."
        )
    return [
        Check(
            name="sanity/leak",
            outcome="inconclusive" if alarm else "pass",
            estimate=found.estimate,
            interval=found.interval,
            threshold=leak,
            n=len(report),
            p_value=found.p_above,
            power=None,
            alternative=None,
            reason=reason,
            unit=unit,
            side="below",
        )
    ]


def _gap(case: Case, gap: float) -> list[Check]:
    """Whether the candidate gained much more on rows it trained on than on those held out."""
    report, fitted, unit = case.given, case.given.fitted, case.task_unit
    new = report.is_new
    if fitted is None or case.independent(new) < 2 or len(np.unique(fitted.cluster)) < 2:
        why = "training rows were not scored" if fitted is None else "the rows are in one group"
        return [
            Check(
                name="sanity/gap",
                outcome="not_evaluable",
                threshold=gap,
                n=0,
                reason=f"Over-fitting cannot be seen: {why}.",
                unit=unit,
                side="below",
                veto=True,
            )
        ]
    found = statistics.unpaired_difference(
        fitted.candidate - fitted.champion,
        fitted.cluster,
        report.candidate.score[new] - report.champion.score[new],
        report.cluster[new],
        alpha=case.alpha,
        threshold=gap,
    )
    worse = found.p_above <= case.alpha
    return [
        Check(
            name="sanity/gap",
            outcome="reject" if worse else "pass",
            estimate=found.estimate,
            interval=found.interval,
            threshold=gap,
            n=len(fitted.champion) + int(new.sum()),
            p_value=found.p_above,
            power=None,
            alternative=None,
            reason=f"The gap between training and held-out new rows "
            f"{'grew' if found.estimate > 0 else 'shrank'} by "
            f"{amount(abs(found.estimate), unit)}; a growth beyond {amount(gap, unit)} is "
            f"{'' if worse else 'not '}significant ({p_words(found.p_above)})"
            + (": the candidate has learned the new rows by heart." if worse else "."),
            unit=unit,
            side="below",
            veto=True,
        )
    ]
