"""Serving: how much dearer the candidate is, candidate over champion."""

from __future__ import annotations

import numpy as np

from perennial import statistics
from perennial.promotion.case import Case
from perennial.promotion.policy import Check
from perennial.types import Serving

_TITLES = {
    "parameters": "Number of parameters",
    "bytes": "Size of the stored weights",
    "latency_p50": "Median latency",
    "latency_p95": "Latency that 95% of calls stay below",
}
_QUANTILES = {"latency_p50": 0.5, "latency_p95": 0.95}


def serving(case: Case) -> list[Check]:
    """One check for each ratio that the policy limits."""
    limits = {name: getattr(case.policy.serving, name) for name in _TITLES}
    return [_check(case, name, limit) for name, limit in limits.items() if limit is not None]


def _check(case: Case, what: str, limit: float) -> Check:
    models = case.given.serving
    if not {"champion", "candidate"} <= set(models):
        return Check(
            name=f"serving/{what}",
            outcome="not_evaluable",
            threshold=limit,
            n=0,
            reason=f"{_TITLES[what]}: what serving costs was not measured, and "
            f"gate.serving.{what} limits it; set it to null, or run the cycle again.",
            unit="ratio",
            side="below",
        )
    champion, candidate = models["champion"], models["candidate"]
    ratio, low, high = _ratio(champion, candidate, what, case.alpha)
    outcome = "pass" if high <= limit else "reject" if low > limit else "inconclusive"
    reason = (
        f"{_TITLES[what]}: {_size(champion, what)} → {_size(candidate, what)}, {ratio:.3g} times "
        f"the champion's; at most {limit:.3g} times is allowed."
    )
    if outcome == "inconclusive":
        reason += (
            " To decide, measure again on a quieter machine, or allow a larger "
            f"gate.serving.{what}."
        )
    return Check(
        name=f"serving/{what}",
        outcome=outcome,
        estimate=ratio,
        interval=(low, high),
        threshold=limit,
        n=len(champion.latency) if what in _QUANTILES else 0,
        p_value=None,
        power=None,
        alternative=None,
        reason=reason,
        unit="ratio",
        side="below",
    )


def _ratio(
    champion: Serving, candidate: Serving, what: str, alpha: float
) -> tuple[float, float, float]:
    if what in _QUANTILES:
        return statistics.quantile_ratio(
            champion.latency, candidate.latency, q=_QUANTILES[what], alpha=alpha
        )
    ratio = getattr(candidate, what) / getattr(champion, what)
    return ratio, ratio, ratio


def _size(model: Serving, what: str) -> str:
    if what in _QUANTILES:
        return f"{1000 * np.quantile(model.latency, _QUANTILES[what]):.3g} ms"
    return f"{getattr(model, what):,}"
