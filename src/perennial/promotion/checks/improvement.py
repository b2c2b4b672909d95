"""Improvement: what was gained on new rows."""

from __future__ import annotations

from perennial.promotion.case import Case
from perennial.promotion.comparison import compare
from perennial.promotion.policy import Check
from perennial.promotion.words import amount, change, more, p_words


def asked(effect: float, unit: str) -> str:
    """What a minimum effect asks of the candidate.

    >>> asked(0.0, "points"), asked(0.01, "points"), asked(-0.03, "")
    ('better', 'better by 1.0 points', 'not worse by 0.03 or more')
    """
    if effect < 0:
        return f"not worse by {amount(-effect, unit)} or more"
    return f"better by {amount(effect, unit)}" if effect else "better"


def _otherwise(effect: float) -> str:
    if effect < 0:
        return "allow a larger loss, by a gate.improvement.minimum_effect further below 0"
    return "ask for a smaller gate.improvement.minimum_effect" if effect else ""


def improvement(case: Case) -> list[Check]:
    """Superiority on the new holdout, by more than a minimum effect where one is asked.

    Of a negative effect it is non-inferiority, by the same test.
    """
    mask, effect = case.report.is_new, case.policy.improvement.minimum_effect
    found = compare(case.report, mask, case.alpha, threshold=effect)
    outcome = "inconclusive"
    if found.p_above <= case.alpha and found.decides:
        outcome = "pass"
    elif found.p_below <= case.alpha and found.decides:
        outcome = "reject"
    must = asked(effect, case.unit)
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
            otherwise=_otherwise(effect),
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
