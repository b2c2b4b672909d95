"""Harm vetoes: each single holdout and slice, Holm over all of them as one family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perennial import statistics
from perennial.promotion.case import Case
from perennial.promotion.comparison import LEAST_FOR_MEANS, LEAST_GROUPS, Compared, compare
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
    vetoes, and only where harm is significant after Holm's correction. Its interval is at the
    level that this leaves it, so that it lies wholly beyond the margin where the veto rejects, and
    nowhere else.
    """
    first = {
        one.name: _compared(case, one, case.alpha)
        for one in suspects
        if case.independent(one.mask) > 1
    }
    tested = [one for one in suspects if one.name in first and first[one.name].decides]
    alone = [first[one.name].p_below for one in tested]
    holm = zip(statistics.holm(alone), statistics.holm_levels(alone, alpha=case.alpha), strict=True)
    found = {
        one.name: _veto(case, one, p_value=float(p), level=float(level), family=len(tested))
        for one, (p, level) in zip(tested, holm, strict=True)
    }
    return [found[one.name] if one.name in found else _untested(case, one) for one in suspects]


def _compared(case: Case, one: Suspect, level: float) -> Compared:
    return compare(case.report, one.mask, level, threshold=-one.margin)


def small(case: Case, slices: Sequence[Suspect]) -> list[Check]:
    """One check that names the slices that are too small to be tested."""
    if not slices:
        return []
    least = case.policy.slices.minimum_rows
    shown = listed([one.title for one in slices])
    rows = int(np.logical_or.reduce([one.mask for one in slices]).sum())
    return [
        Check(
            name="slice/untested",
            outcome="not_evaluable",
            n=rows,
            reason=f"{several(len(slices), 'slice')} with fewer than {least} independent rows, too "
            f"few to look for harm in: {shown}.",
            veto=True,
        )
    ]


def _veto(case: Case, one: Suspect, *, p_value: float, level: float, family: int) -> Check:
    found, harm = _compared(case, one, level), p_value <= case.alpha
    told = p_words(p_value, alone=found.p_below if family > 1 else None)
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
        f"{amount(one.margin, case.unit)} is {'' if harm else 'not '}significant"
        f"{_corrected(family)} ({told}).",
        p_uncorrected=found.p_below,
        unit=case.unit,
        veto=True,
        level=level,
    )


def _corrected(family: int) -> str:
    return f" at the level that Holm's correction over {family} vetoes leaves" if family > 1 else ""


def _untested(case: Case, one: Suspect) -> Check:
    """Said, and without a say: a veto only passes or rejects."""
    rows = int(one.mask.sum())
    why = "were all seen by the adopted model" if not rows else "are all in one group"
    if case.independent(one.mask) > 1:
        why = f"are fewer than {LEAST_FOR_MEANS} in {LEAST_GROUPS} groups, which a mean needs"
    return Check(
        name=one.name,
        outcome="not_evaluable",
        n=rows,
        reason=f"{one.title}: its rows {why}, so harm to it alone cannot be tested.",
        veto=True,
    )
