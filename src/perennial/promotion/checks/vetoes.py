"""Harm vetoes: each single holdout and slice, Holm over all of them as one family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perennial import statistics
from perennial.promotion.case import Case
from perennial.promotion.comparison import LEAST_FOR_MEANS, Compared, compare
from perennial.promotion.policy import Check
from perennial.promotion.words import amount, change, listed, p_words, several
from perennial.types import Booleans


@dataclass(frozen=True)
class Suspect:
    """Rows on which harm beyond a margin is looked for.

    Attributes:
        name: Of the check.
        title: For a person.
        mask: The rows (N,).
        margin: Loss beyond which they are harmed.
    """

    name: str
    title: str
    mask: Booleans
    margin: float


def holdouts(case: Case) -> list[Suspect]:
    """Each single history holdout, where there are several."""
    if len(case.holdouts) < 2:
        return []
    unseen = ~case.report.seen_by_champion
    return [
        Suspect(
            f"harm/{name}",
            name,
            (case.report.holdout == name) & unseen,
            case.policy.retention.margin,
        )
        for name in case.holdouts
    ]


def vetoes(case: Case, suspects: Sequence[Suspect]) -> list[Check]:
    """A veto for each suspect; those of fewer than two groups cannot be tested and say so.

    Asking each of many parts to *pass* would reject equal candidates by chance, so a part only
    vetoes, and only where harm is significant after Holm's correction.
    """
    found = {
        one.name: each
        for one in suspects
        if case.independent(one.mask) > 1
        and (each := compare(case.report, one.mask, case.alpha, threshold=-one.margin)).decides
    }
    adjusted = statistics.holm([each.p_below for each in found.values()]).tolist()
    p_values = dict(zip(found, adjusted, strict=True))
    return [
        _veto(case, one, found[one.name], p_values[one.name], len(found))
        if one.name in found
        else _untested(case, one)
        for one in suspects
    ]


def small(case: Case, slices: Sequence[Suspect]) -> list[Check]:
    """One check that names the slices that are too small to be tested."""
    if not slices:
        return []
    least = case.policy.slices.minimum_rows
    shown = listed([one.title for one in slices])
    rows = int(np.logical_or.reduce([one.mask for one in slices]).sum())
    return [
        Check(
            "slice/untested", "not_evaluable", None, None, None, rows, None, None, None,
            f"{several(len(slices), 'slice')} with fewer than {least} independent rows, too few to "
            f"look for harm in: {shown}.",
            veto=True,
        )
    ]  # fmt: skip


def _veto(case: Case, one: Suspect, found: Compared, p_value: float, family: int) -> Check:
    harm = p_value <= case.alpha
    told = p_words(p_value, alone=found.p_below, family=family)
    return Check(
        name=one.name,
        outcome="reject" if harm else "pass",
        estimate=found.estimate,
        interval=found.interval,
        threshold=-one.margin,
        n=int(one.mask.sum()),
        p_value=p_value,
        power=None,
        alternative=None,
        reason=f"{one.title}: {change(case, one.mask)}; a loss beyond "
        f"{amount(one.margin, case.unit)} is {'' if harm else 'not '}significant ({told}).",
        p_uncorrected=found.p_below,
        unit=case.unit,
        veto=True,
    )


def _untested(case: Case, one: Suspect) -> Check:
    """Said, and without a say: a veto only passes or rejects."""
    rows = int(one.mask.sum())
    why = "were all seen by the adopted model" if not rows else "are all in one group"
    if case.independent(one.mask) > 1:
        why = f"are fewer than the {LEAST_FOR_MEANS} independent ones that a mean score needs"
    return Check(
        one.name, "not_evaluable", None, None, None, rows, None, None, None,
        f"{one.title}: its rows {why}, so harm to it alone cannot be tested.",
        veto=True,
    )  # fmt: skip
