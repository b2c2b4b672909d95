"""Floors and ceilings: what any metric of the candidate must reach."""

from __future__ import annotations

import numpy as np
from scipy import stats

from perennial.errors import EvaluationError
from perennial.promotion.case import Case
from perennial.promotion.policy import Bound, Check
from perennial.types import Booleans, Measured


def bounds(case: Case) -> list[Check]:
    """One check for each bound of the policy.

    Raises:
        EvaluationError: A metric that is bounded was not measured, or is no finite number.
    """
    asked = case.policy.bounds
    titles = [f"bound/{each.metric}/{each.rows}" for each in asked]
    # two averages of one metric are two checks
    names = [
        f"bound/{each.key.rpartition('@')[0]}/{each.rows}" if titles.count(title) > 1 else title
        for each, title in zip(asked, titles, strict=True)
    ]
    return [_bound(case, each, name) for each, name in zip(asked, names, strict=True)]


def _bound(case: Case, bound: Bound, name: str) -> Check:
    if not _rows(case, bound).any():
        return Check(
            name=name,
            outcome="not_evaluable",
            threshold=bound.limit,
            n=0,
            reason=f"{bound.metric} is asked on {bound.rows}, and there are no such rows: name a "
            "holdout that there is, or take the bound out of gate.bounds.",
            unit="",
        )
    measured = case.given.measured.get(bound.key)
    if measured is None or not np.isfinite([measured.value, *measured.replicates]).all():
        raise EvaluationError(
            f"{bound.metric} on {bound.rows} is limited and "
            f"{'was not measured' if measured is None else 'is not a finite number'}.",
            where=f"gate.bounds {bound.key}",
            mend="nothing is promoted; check the metric's arguments, or take it out of gate.bounds",
        )
    low, high = interval(measured, case.alpha)
    floor = measured.higher_is_better
    clears, excluded = (
        (low >= bound.limit, high < bound.limit)
        if floor
        else (high <= bound.limit, low > bound.limit)
    )
    outcome = "pass" if clears else "reject" if excluded else "inconclusive"
    kinds = {"at least": low, "at most": high}
    asked = "at least" if floor else "at most"
    # a reject rests on the bound that a pass does not need
    kind = asked if outcome != "reject" else "at most" if floor else "at least"
    reason = (
        f"{bound.metric} on {bound.rows} is {measured.value:.4g}, surely {kind} {kinds[kind]:.4g}; "
        f"it must be {asked} {bound.limit:.4g}."
    )
    if outcome == "inconclusive":
        reason += (
            f" To decide, collect more rows, or "
            f"{'lower' if floor else 'raise'} the limit in gate.bounds."
        )
    return Check(
        name=name,
        outcome=outcome,
        estimate=measured.value,
        interval=(low, high),
        threshold=bound.limit,
        n=measured.n,
        p_value=None,
        power=None,
        alternative=None,
        reason=reason,
        unit="",
        side="above" if floor else "below",
    )


def interval(measured: Measured, alpha: float) -> tuple[float, float]:
    """Bounds of a metric, each one-sided at alpha.

    The wider of the percentile and the normal bootstrap interval (Efron & Tibshirani, An
    Introduction to the Bootstrap, chapters 12 and 13): the first knows the metric's range and
    skewness, the second goes on where so small a level leaves no replicate in the tail.

    Args:
        measured: Value and replicates.
        alpha: Level of each bound.
    """
    replicates = measured.replicates
    half = float(stats.norm.isf(alpha)) * float(np.std(replicates, ddof=1))
    low, high = np.quantile(replicates, [alpha, 1 - alpha])
    return min(float(low), measured.value - half), max(float(high), measured.value + half)


def _rows(case: Case, bound: Bound) -> Booleans:
    report = case.given
    mask: Booleans = ~report.is_new if bound.rows == "history" else report.holdout == bound.rows
    return mask
