"""Retention: how much was lost on history, against the champion and against the best ever."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from perennial import statistics
from perennial.notation import confidence
from perennial.promotion.case import Case
from perennial.promotion.comparison import Compared, compare
from perennial.promotion.holdouts import weight_column
from perennial.promotion.policy import Check, total_level
from perennial.promotion.words import amount, change, listed, more, signed
from perennial.types import Booleans, EvaluationReport, Floats

_UNHEARD = (
    " The adopted model was trained on these rows, so a loss on them cannot reject: "
    "give data.history_holdout."
)

_PROTECT = (
    "retrain with more protection of history (method=[replay,ewc], a smaller "
    "method.replay.new_fraction)"
)


@dataclass(frozen=True)
class _Rows:
    """The history that is tested.

    Attributes:
        mask: Rows (N,).
        weight: Of each row that the mask keeps; None where all count alike.
        decisive: Whether a loss on them can reject; it cannot where the adopted model was trained
            on them, since un-memorising looks like forgetting.
        set_aside: Rows left out since the adopted model was trained on them.
    """

    mask: Booleans
    weight: Floats | None
    decisive: bool
    set_aside: int


def retention(case: Case) -> list[Check]:
    """Non-inferiority on the union of history holdouts, then against the best champion ever."""
    if case.policy.waived:
        reason = (
            "Retention was waived: history is not looked at, neither all of it nor a holdout, a "
            "class or a slice of it."
        )
        return [_without_test(case, "waived", reason)]
    if not case.history.any():
        reason = (
            "There are no history rows to test on: give data.history or data.history_holdout, or "
            "set gate.retention=waived."
        )
        return [_without_test(case, "not_evaluable", reason)]
    rows = _rows(case)
    return [_against_champion(case, rows), *_against_best(case, rows)]


def _without_test(case: Case, outcome: str, reason: str) -> Check:
    n = int((~case.report.is_new).sum())
    return Check(name="retention", outcome=outcome, n=n, reason=reason, unit=case.unit)


def _rows(case: Case) -> _Rows:
    """Rows that the adopted model had not seen, where they are enough; else all."""
    seen = case.history & case.report.seen_by_champion
    unseen = case.history & ~seen
    z2 = float(stats.norm.isf(case.alpha)) ** 2
    enough = z2 / (case.independent(unseen) + z2) < case.policy.retention.margin
    mask = unseen if seen.any() and enough else case.history
    return _Rows(
        mask=mask,
        weight=weight_column(case.report.holdout[mask], case.policy.retention),
        decisive=enough or not seen.any(),
        set_aside=int(seen.sum()) if enough else 0,
    )


def _outcome(found: Compared, threshold: float, *, decisive: bool) -> str:
    low, high = found.interval
    if low > threshold and found.decides:
        return "pass"
    return "reject" if high < threshold and decisive and found.decides else "inconclusive"


def _against_champion(case: Case, rows: _Rows) -> Check:
    margin = case.policy.retention.margin
    found = compare(case.report, rows.mask, case.alpha, threshold=-margin, weight=rows.weight)
    outcome = _outcome(found, -margin, decisive=rows.decisive)
    marked = _loss_on_marked(case, rows)
    if marked and outcome == "pass":
        outcome = "inconclusive"
    reason = "".join(_sentences(case, rows, found, outcome, marked))
    return _check(case, "retention", rows, found, outcome, margin, reason)


def _sentences(
    case: Case, rows: _Rows, found: Compared, outcome: str, marked: str
) -> Iterator[str]:
    margin = case.policy.retention.margin
    low, high = found.interval
    yield (
        f"History: {change(case, rows.mask, weight=rows.weight)}, at worst "
        f"{signed(low, case.unit, apart=-margin)} with {confidence(case.alpha)} confidence; a loss "
        f"of up to {amount(margin, case.unit, apart=-low)} is allowed."
    )
    yield _counting(case, rows)
    if rows.set_aside:
        yield (
            f" These are the rows that the adopted model had not seen; {rows.set_aside} that it "
            f"was trained on are left out.{marked}"
        )
    if outcome == "inconclusive" and not marked and (rows.decisive or high >= -margin):
        yield more(
            found,
            distance=found.estimate + margin,
            n=int(rows.mask.sum()),
            case=case,
            rows="held-out history rows",
            first=_PROTECT if found.estimate < 0 else "",
            otherwise=_larger_margin(case, low),
        )
    if not rows.decisive:
        yield _UNHEARD


def _larger_margin(case: Case, low: float) -> str:
    """The setting that would pass, and the one that it would contradict."""
    total = case.policy.retention.total
    also = total is not None and -low >= total
    return "allow a larger gate.retention.margin" + (" and gate.retention.total" if also else "")


def _counting(case: Case, rows: _Rows) -> str:
    """What was weighted and what was left out; empty where rows of all history simply count."""
    settings = case.policy.retention
    told = ""
    if rows.weight is not None and settings.half_life is not None:
        told += (
            f" A row counts half as much for every {settings.half_life:g} cycles of age "
            "(gate.retention.half_life)."
        )
    elif rows.weight is not None:
        told += " Each cycle's holdout counts alike, whatever its size (gate.retention.weights)."
    if case.expired:
        names = listed([name.removeprefix("history/") for name in case.expired])
        told += (
            f" Left out as too old: {names}; only the newest {settings.window} count "
            "(gate.retention.window)."
        )
    return told


def _against_best(case: Case, rows: _Rows) -> list[Check]:
    """Against the best champion ever; not asked where that is the present one.

    A point lost in each cycle passes each cycle's own test, and ten are gone in a year.
    """
    case = replace(case, alpha=total_level(case.alpha))
    total, best = case.policy.retention.total, case.report.best
    if total is None or best is None:
        return []
    if np.array_equal(best[rows.mask], case.report.champion.score[rows.mask]):
        return []
    # new rows have no best champion, and are not looked at here
    former = np.where(rows.mask, best, case.report.champion.score)
    report: EvaluationReport = replace(
        case.report, champion=replace(case.report.champion, score=former)
    )
    found = compare(report, rows.mask, case.alpha, threshold=-total, weight=rows.weight)
    outcome = _outcome(found, -total, decisive=rows.decisive)
    low = found.interval[0]
    told = change(replace(case, given=report), rows.mask, weight=rows.weight)
    reason = (
        f"History against the best champion that each holdout ever had: {told}, at worst "
        f"{signed(low, case.unit, apart=-total)} with {confidence(case.alpha)} confidence; a loss "
        f"of up to {amount(total, case.unit, apart=-low)} over all cycles is allowed."
    )
    if outcome == "inconclusive" and rows.decisive:
        reason += more(
            found,
            distance=found.estimate + total,
            n=int(rows.mask.sum()),
            case=case,
            rows="held-out history rows",
            first=_PROTECT if found.estimate < 0 else "",
            otherwise="allow a larger gate.retention.total, or go back to an earlier version "
            "(perennial registry rollback)",
        )
    elif not rows.decisive:
        reason += _UNHEARD
    return [_check(case, "retention/total", rows, found, outcome, total, reason)]


def _check(
    case: Case,
    name: str,
    rows: _Rows,
    found: Compared,
    outcome: str,
    margin: float,
    reason: str,
) -> Check:
    return Check(
        name=name,
        outcome=outcome,
        estimate=found.estimate,
        interval=found.interval,
        threshold=-margin,
        n=int(rows.mask.sum()),
        p_value=found.p_below if outcome == "reject" else found.p_above,
        power=found.power(margin=margin, alternative=0.0, alpha=case.alpha),
        alternative=0.0,
        reason=reason,
        unit=case.unit,
        level=case.alpha,
    )


def _loss_on_marked(case: Case, rows: _Rows) -> str:
    """A sentence where rows that the adopted model was trained on were lost, and truly so.

    Un-memorising them can bring a model down to what the champion scores on history it had not
    seen, and no further: a candidate that is below that, beyond margin and chance, has forgotten.
    It cannot reject, since the rows differ, but nothing is promoted on it either.
    """
    report, margin = case.report, case.policy.retention.margin
    marked = case.history & report.seen_by_champion
    unseen = case.history & ~report.seen_by_champion
    if not rows.set_aside or case.independent(marked) < 2 or case.independent(unseen) < 2:
        return ""
    now = statistics.cluster_means(report.candidate.score[marked], report.cluster[marked])
    bound = statistics.cluster_means(report.champion.score[unseen], report.cluster[unseen])
    lost = compare(report, marked, case.alpha, threshold=-margin).interval[1] < -margin
    if not lost or statistics.welch_below(now, bound - margin) > case.alpha:
        return ""
    return (
        f" But on those it was trained on: {change(case, marked)}, which is more than it can "
        "have known by heart. These rows cannot reject, and nothing is promoted on them: give "
        "data.history_holdout."
    )
