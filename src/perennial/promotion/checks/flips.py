"""Flips: rows that were right before and are wrong now, whatever the net change."""

from __future__ import annotations

import numpy as np

from perennial import statistics
from perennial.notation import percent
from perennial.promotion.case import Case
from perennial.promotion.policy import Check
from perennial.types import Booleans, EvaluationReport


def flips(case: Case) -> list[Check]:
    """A ceiling on the negative flip rate (Yan et al., Positive-Congruent Training, CVPR 2021).

    Over the rows that the policy looks at, without those that the adopted model was trained on.
    """
    ceiling, report = case.policy.flips, case.given
    if ceiling is None:
        return []
    if not report.has_one_class:
        return [
            Check(
                name="flips",
                outcome="not_evaluable",
                threshold=ceiling,
                n=0,
                reason="The task's rows are not of one class each, so none can flip: set "
                "gate.flips=null.",
                side="below",
            )
        ]
    mask: Booleans = np.logical_or.reduce(list(case.parts.values()))
    before, now = (right(report, who)[mask] for who in ("champion", "candidate"))
    lost = (before & ~now).astype(np.float64)
    counts = statistics.effective_counts(lost, report.cluster[mask])
    low, high = statistics.share_bounds(counts.b, counts.n, alpha=case.alpha)
    outcome = "pass" if high < ceiling else "reject" if low > ceiling else "inconclusive"
    rows, share = int(mask.sum()), float(lost.mean())
    sure = f"at least {percent(low)}" if outcome == "reject" else f"at most {percent(high)}"
    reason = (
        f"{int(lost.sum()):,} of {rows:,} rows were right before and are wrong now "
        f"({percent(share)}, surely {sure}); {percent(ceiling)} are allowed."
    )
    if outcome == "inconclusive":
        reason += " To decide, collect more rows, or allow a larger gate.flips."
    return [
        Check(
            name="flips",
            outcome=outcome,
            estimate=share,
            interval=(low, high),
            threshold=ceiling,
            n=rows,
            p_value=None,
            power=None,
            alternative=None,
            reason=reason,
            side="below",
        )
    ]


def counted(report: EvaluationReport) -> dict[str, dict[str, int]]:
    """Rows gained and lost on ``new`` and on ``history``; empty for a task without classes."""
    if not report.has_one_class:
        return {}
    before, now = right(report, "champion"), right(report, "candidate")
    parts = {"new": report.is_new, "history": ~report.is_new}
    return {
        part: {
            "gained": int((mask & now & ~before).sum()),
            "lost": int((mask & before & ~now).sum()),
            "n": int(mask.sum()),
        }
        for part, mask in parts.items()
        if mask.any()
    }


def right(report: EvaluationReport, who: str) -> Booleans:
    """Whether a model's prediction is the true label (N,)."""
    mask: Booleans = getattr(report, who).prediction == report.label
    return mask
