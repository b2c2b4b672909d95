"""Improvement: what was gained on new rows."""

from __future__ import annotations

from perennial.promotion.case import Case
from perennial.promotion.comparison import compare
from perennial.promotion.policy import Check
from perennial.promotion.words import amount, change, more, p_words


def improvement(case: Case) -> list[Check]:
    """Superiority on the new holdout, by more than a minimum effect where one is asked."""
    mask, effect = case.report.is_new, case.policy.improvement.minimum_effect
    found = compare(case.report, mask, case.alpha, threshold=effect)
    outcome = "inconclusive"
    if found.p_above <= case.alpha and found.decides:
        outcome = "pass"
    elif found.p_below <= case.alpha and found.decides:
        outcome = "reject"
    must = f"better by {amount(effect, case.unit)}" if effect else "better"
    p_value = found.p_below if outcome == "reject" else found.p_above
    short = "; it falls short of that beyond chance" if outcome == "reject" else ""
    reason = f"New: {change(case, mask)}; must be {must} beyond chance{short} ({p_words(p_value)})."
    if outcome == "inconclusive":
        reason += more(
            found,
            distance=found.estimate - effect,
            n=int(mask.sum()),
            case=case,
            rows="held-out new rows",
            first="train on more new rows",
            otherwise="ask for a smaller gate.improvement.minimum_effect" if effect else "",
        )
    alternative = effect + case.policy.improvement.alternative
    return [
        Check(
            name="improvement",
            outcome=outcome,
            estimate=found.estimate,
            interval=found.interval,
            threshold=effect,
            n=int(mask.sum()),
            p_value=p_value,
            power=found.power(margin=-effect, alternative=alternative, alpha=case.alpha),
            alternative=alternative,
            reason=reason,
            unit=case.unit,
        )
    ]
