"""The gate: a pure function from paired predictions and a policy to a decision."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sized
from dataclasses import replace

import numpy as np
from scipy import stats

from perennial import statistics
from perennial.errors import DataError, EvaluationError
from perennial.notation import confidence, places_apart, points
from perennial.promotion.comparison import Compared, compare
from perennial.promotion.policy import Check, Decision, Policy, level
from perennial.types import Booleans, EvaluationReport

# beyond so many times the rows at hand, their number is no advice
_FORESEEABLE = 20


def decide(report: EvaluationReport, policy: Policy, *, decision_number: int = 1) -> Decision:
    """Compare candidate with champion.

    Any reject wins, then anything undecided; a harm veto only passes or rejects.

    Args:
        report: Both models on the same rows.
        policy: What must be shown.
        decision_number: k; the k-th decision on one new holdout is tested at alpha / 2^(k-1).

    Raises:
        EvaluationError: The report is not one to decide on; nothing is promoted.
    """
    _validate(report)
    assert decision_number >= 1
    alpha = level(policy, decision_number)
    checks = [_retention(report, policy, alpha), _improvement(report, policy, alpha)]
    asked = {check.outcome for check in checks}
    checks += _harm(report, policy, alpha)
    if any(check.outcome == "reject" for check in checks):
        verdict = "rejected"
    elif asked & {"inconclusive", "not_evaluable"}:
        verdict = "inconclusive"
    else:
        verdict = "promoted"
    return Decision(verdict, tuple(checks), alpha, decision_number)


def require_decidable(
    n_history: int, n_new: int, policy: Policy, *, has_history: bool, decision_number: int = 1
) -> None:
    """Refuse, before any training, holdouts too small to decide anything.

    Args:
        n_history: Independent rows of the history holdouts, or groups of dependent ones.
        n_new: Likewise of the new holdout.
        policy: What must be shown.
        has_history: Whether retention is asked for.
        decision_number: The how-manieth decision on this new holdout it will be.

    Raises:
        DataError: Even no discordant row could not clear the margin, z² / (n + z²) >= margin, or
            even a candidate that is right wherever the champion is wrong could not be significant.
    """
    alpha = level(policy, decision_number)
    repeated = (
        f" This is decision {decision_number} on the same new rows, so each test is at "
        f"{alpha:.2g}: collect new rows instead of trying again."
        if decision_number > 1
        else ""
    )
    z2 = float(stats.norm.isf(alpha)) ** 2
    if has_history and not policy.waived and z2 / (n_history + z2) >= policy.margin:
        need = math.floor(z2 / policy.margin - z2) + 1
        raise DataError(
            f"The history holdout has {n_history} independent rows, a group or the copies of a row "
            "counting once: even with no difference at all they could not show that less than "
            f"{policy.margin:.1%} is lost.{repeated}",
            where="data.history holdout",
            mend=f"hold out at least {need} rows (data.holdout_fraction, data.history_holdout), "
            "allow a larger gate.retention.margin, or set gate.retention=waived",
        )

    def best_p(n: int) -> float:
        if policy.minimum_effect == 0:
            return statistics.mcnemar(n, 0)
        return statistics.tango_test(n, 0, n, delta=policy.minimum_effect)

    if n_new < 1 or best_p(n_new) > alpha:
        need = next(n for n in itertools.count(1) if best_p(n) <= alpha)
        raise DataError(
            f"The new holdout has {n_new} independent rows, a group or the copies of a row "
            f"counting once: no result on them could be significant.{repeated}",
            where="data.new holdout",
            mend=f"hold out at least {need} new rows, better several hundred: "
            "collect more, or raise data.holdout_fraction",
        )


def _retention(report: EvaluationReport, policy: Policy, alpha: float) -> Check:
    history = ~report.is_new
    empty = Check("retention", "waived", None, None, None, int(history.sum()), None, None, None, "")
    if policy.waived:
        return replace(empty, reason="Retention was waived: a loss on history is not looked at.")
    if not history.any():
        return replace(
            empty,
            outcome="not_evaluable",
            reason="There are no history rows to test on: give data.history or "
            "data.history_holdout, or set gate.retention=waived.",
        )
    seen = bool(report.seen_by_champion[history].any())
    unseen = history & ~report.seen_by_champion
    z2 = float(stats.norm.isf(alpha)) ** 2
    enough = z2 / (int(unseen.sum()) + z2) < policy.margin
    mask = unseen if seen and enough else history
    found = compare(report, mask, alpha, threshold=-policy.margin)
    low, high = found.interval
    if low > -policy.margin:
        outcome = "pass"
    elif high < -policy.margin:
        outcome = "inconclusive" if seen and not enough else "reject"
    else:
        outcome = "inconclusive"
    places = places_apart([low], -policy.margin)
    marked = _loss_on_marked(report, policy, alpha) if seen and enough else ""
    if marked and outcome == "pass":
        outcome = "inconclusive"
    reason = (
        f"History: {_change(report, mask)}, at worst {points(low, places)} with "
        f"{confidence(alpha)} confidence; a loss of up to {100 * policy.margin:.{places}f} points "
        "is allowed."
    )
    if seen and enough:
        left_out = int((history & ~mask).sum())
        reason += (
            f" These are the rows that the adopted model had not seen; {left_out} that it was "
            f"trained on are left out.{marked}"
        )
    unheard = marked or (seen and not enough and high < -policy.margin)
    if outcome == "inconclusive" and not unheard:
        reason += _more(
            found.discordance, abs(found.estimate + policy.margin), alpha, int(mask.sum())
        )
    if seen and not enough:
        reason += (
            " The adopted model was trained on these rows, so a loss on them cannot reject: "
            "give data.history_holdout."
        )
    return Check(
        name="retention",
        outcome=outcome,
        estimate=found.estimate,
        interval=found.interval,
        threshold=-policy.margin,
        n=int(mask.sum()),
        p_value=found.p_above,
        power=statistics.tango_power(
            found.independent, discordance=found.discordance, margin=policy.margin, alpha=alpha
        ),
        alternative=0.0,
        reason=reason,
    )


def _loss_on_marked(report: EvaluationReport, policy: Policy, alpha: float) -> str:
    """A sentence where rows that the adopted model was trained on were lost, and truly so.

    Un-memorising them can bring a model down to what the champion scores on history it had not
    seen, and no further: a candidate that is below that, beyond margin and chance, has forgotten.
    It cannot reject, since the rows differ, but nothing is promoted on it either.
    """
    marked = ~report.is_new & report.seen_by_champion
    unseen = ~report.is_new & ~report.seen_by_champion
    if len(np.unique(report.cluster[marked])) < 2 or len(np.unique(report.cluster[unseen])) < 2:
        return ""
    now = statistics.cluster_means(report.candidate.score[marked], report.cluster[marked])
    bound = statistics.cluster_means(report.champion.score[unseen], report.cluster[unseen])
    lost = compare(report, marked, alpha, threshold=-policy.margin).interval[1] < -policy.margin
    if not lost or statistics.welch_below(now, bound - policy.margin) > alpha:
        return ""
    return (
        f" But on those it was trained on: {_change(report, marked)}, which is more than it can "
        "have known by heart. These rows cannot reject, and nothing is promoted on them: give "
        "data.history_holdout."
    )


def _improvement(report: EvaluationReport, policy: Policy, alpha: float) -> Check:
    mask = report.is_new
    found = compare(report, mask, alpha, threshold=policy.minimum_effect)
    p_value, p_worse = found.p_above, found.p_below
    if found.binary and policy.minimum_effect == 0:
        p_value = statistics.mcnemar(found.b, found.c)
        p_worse = statistics.mcnemar(found.c, found.b)
    outcome = "inconclusive"
    if p_value <= alpha:
        outcome = "pass"
    elif p_worse <= alpha:
        outcome = "reject"
    words = (
        "better" if not policy.minimum_effect else f"by {100 * policy.minimum_effect:.1f} points"
    )
    reason = f"New: {_change(report, mask)}; must be {words} beyond chance (p = {p_value:.2g})."
    if outcome == "inconclusive":
        reason += _more(
            found.discordance,
            abs(found.estimate - policy.minimum_effect),
            alpha,
            int(mask.sum()),
        )
    return Check(
        name="improvement",
        outcome=outcome,
        estimate=found.estimate,
        interval=found.interval,
        threshold=policy.minimum_effect,
        n=int(mask.sum()),
        p_value=p_value,
        power=_power_to_improve(found, policy, alpha),
        alternative=policy.minimum_effect + policy.alternative,
        reason=reason,
    )


def _power_to_improve(found: Compared, policy: Policy, alpha: float) -> float:
    rows, alternative = found.independent, policy.minimum_effect + policy.alternative
    if policy.minimum_effect == 0:
        return statistics.mcnemar_power(
            rows, discordance=found.discordance, alternative=alternative, alpha=alpha
        )
    return statistics.tango_power(
        rows,
        discordance=found.discordance,
        margin=-policy.minimum_effect,
        alpha=alpha,
        alternative=alternative,
    )


def _harm(report: EvaluationReport, policy: Policy, alpha: float) -> list[Check]:
    """A veto for each single history holdout, Holm over the vetoes."""
    names = [name for name in dict.fromkeys(report.holdout.tolist()) if name != "new"]
    if len(names) < 2 or policy.waived:
        return []
    masks = {name: (report.holdout == name) & ~report.seen_by_champion for name in names}
    found = {
        name: compare(report, mask, alpha, threshold=-policy.margin)
        for name, mask in masks.items()
        if len(np.unique(report.cluster[mask])) > 1
    }
    adjusted = statistics.holm([one.p_below for one in found.values()]).tolist()
    p_values = dict(zip(found, adjusted, strict=True))
    return [
        _veto(report, name, masks[name], found[name], p_values[name], policy, alpha)
        if name in found
        else _untested(name, int(masks[name].sum()))
        for name in names
    ]


def _veto(
    report: EvaluationReport,
    name: str,
    mask: Booleans,
    found: Compared,
    p_value: float,
    policy: Policy,
    alpha: float,
) -> Check:
    harm = p_value <= alpha
    return Check(
        name=f"harm/{name}",
        outcome="reject" if harm else "pass",
        estimate=found.estimate,
        interval=found.interval,
        threshold=-policy.margin,
        n=int(mask.sum()),
        p_value=p_value,
        power=None,
        alternative=None,
        reason=f"{name}: {_change(report, mask)}; a loss beyond "
        f"{100 * policy.margin:.1f} points is {'' if harm else 'not '}significant.",
        veto=True,
    )


def _untested(name: str, rows: int) -> Check:
    """Said, and without a say: a veto only passes or rejects."""
    why = "were all seen by the adopted model" if not rows else "are all in one group"
    return Check(
        f"harm/{name}", "not_evaluable", None, None, None, rows, None, None, None,
        f"{name}: its rows {why}, so harm to it alone cannot be tested.",
    )  # fmt: skip


def _change(report: EvaluationReport, mask: Booleans) -> str:
    before = 100 * float(report.champion.score[mask].mean())
    after = 100 * float(report.candidate.score[mask].mean())
    return f"{before:.1f}% → {after:.1f}%, {after - before:+.1f} points on {int(mask.sum())} rows"


def _more(discordance: float, distance: float, alpha: float, n: int) -> str:
    """How many rows would decide with 80% power, by the normal approximation.

    Args:
        discordance: Share of rows on which the two differ.
        distance: Of the true difference, taken to be the observed one, from the threshold.
        alpha: Level.
        n: Rows there are.
    """
    z = float(stats.norm.isf(alpha) + stats.norm.isf(0.2))
    if distance <= 0 or discordance <= 0:
        return " More rows are needed to decide."
    need = math.ceil(discordance * (z / distance) ** 2)
    if need > _FORESEEABLE * n:
        return " The models are too close to the threshold for any foreseeable number of rows."
    return f" About {need:,} rows would decide." if need > n else " More rows would decide."


def _validate(report: EvaluationReport) -> None:
    problem = None
    columns: tuple[Sized, ...] = (
        report.champion,
        report.candidate,
        report.holdout,
        report.cluster,
        report.label,
    )
    lengths = {len(report), len(report.seen_by_champion), *(len(one) for one in columns)}
    if len(report) == 0 or not report.is_new.any():
        problem = "There are no predictions on new rows."
    elif len(lengths) > 1:
        problem = "Champion and candidate were not scored on the same rows."
    elif not all(
        np.isfinite(who.score).all() and np.isfinite(who.loss).all()
        for who in (report.champion, report.candidate)
    ):
        problem = "A score or loss is not a finite number."
    if problem:
        raise EvaluationError(
            problem, where="evaluation", mend="nothing is promoted; check the model's outputs"
        )
