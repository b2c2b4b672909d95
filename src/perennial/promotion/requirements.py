"""What must hold before any training, so that there is something to decide after it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from scipy import stats

from perennial import statistics
from perennial.errors import DataError
from perennial.promotion.checks.slices import require_slices
from perennial.promotion.comparison import LEAST_FOR_MEANS, LEAST_GROUPS
from perennial.promotion.holdouts import effective, in_window
from perennial.promotion.policy import Policy, level, total_level

__all__ = ["require_decidable", "require_slices"]


def require_decidable(
    rows: Mapping[str, int], policy: Policy, *, decision_number: int = 1, binary: bool = True
) -> None:
    """Refuse holdouts too small to decide anything.

    Args:
        rows: ``new`` and each history holdout to its independent rows, a group of dependent ones
            counting once. Without any history holdout, retention is not asked for.
        policy: What must be shown.
        decision_number: The how-manieth decision on this new holdout it will be.
        binary: Whether the task's scores are 0 or 1.

    Raises:
        DataError: Even no discordant row could not clear the margin, z² / (n + z²) >= margin; even
            a candidate that is right wherever the champion is wrong could not be significant; or a
            minimum effect is nearer to 0 than what so few rows can tell from nothing.
    """
    alpha = level(policy, decision_number)
    repeated = (
        f" This is decision {decision_number} on the same new rows, so each test is at "
        f"{alpha:.2g}: collect new rows instead of trying again."
        if decision_number > 1
        else ""
    )
    # margins of other scores are not shares, and no number of rows follows from them alone
    if policy.score == "task" and binary:
        _history(rows, policy, alpha, repeated)
        _effect(rows["new"], policy, alpha, repeated)
    else:
        _means(rows, policy, binary=binary)
    _new(rows["new"], policy, alpha, repeated)


def _history(rows: Mapping[str, int], policy: Policy, alpha: float, repeated: str) -> None:
    kept = in_window(rows, policy.retention)
    if policy.waived or not kept:
        return
    n = effective(rows, policy.retention)
    asked = [(policy.retention.margin, alpha)]
    if policy.retention.total is not None:
        asked.append((policy.retention.total, total_level(alpha)))
    short = [
        (margin, z2)
        for margin, each in asked
        if (z2 := float(stats.norm.isf(each)) ** 2) / (n + z2) >= margin
    ]
    if not short:
        return
    margin, z2 = max(short, key=lambda item: _least(item[1], item[0]))
    counted = sum(rows[name] for name in kept)
    weighted = "" if round(n) == counted else f", worth {n:.0f} equally weighted ones"
    raise DataError(
        f"The history holdout has {counted} independent rows{weighted}, a group or the copies of "
        "a row counting once: even with no difference at all they could not show that less than "
        f"{margin:.1%} is lost.{repeated}",
        where="data.history holdout",
        mend=f"hold out at least {_least(z2, margin)} rows (data.holdout_fraction, "
        "data.history_holdout), allow a larger gate.retention.margin, or set gate.retention=waived",
    )


def _means(rows: Mapping[str, int], policy: Policy, *, binary: bool) -> None:
    """A mean of scores that are not right or wrong is not decided on with a few rows."""
    kept = [] if policy.waived else in_window(rows, policy.retention)
    counts = {"new": rows["new"], **({"history": sum(rows[one] for one in kept)} if kept else {})}
    for name, count in counts.items():
        if count < LEAST_GROUPS:
            raise DataError(
                f"The {name} holdout has {count} independent rows, a group or rows of equal "
                f"content counting once, and {_scored(policy, binary)} is not decided on with "
                f"fewer than {LEAST_FOR_MEANS} rows in {LEAST_GROUPS} groups.",
                where=f"data.{name} holdout",
                mend=f"hold out at least {LEAST_FOR_MEANS} rows that differ (data.duplicates says "
                "how many repeat another; of a recommender, data.group_column=USER tells the rows "
                "of users apart who met the same items)"
                + (", or set gate.score=task" if binary else ""),
            )


def _scored(policy: Policy, binary: bool) -> str:
    if policy.score == "task" and not binary:
        return "a score that is not only right or wrong"
    return f"gate.score={policy.score}"


def _effect(n: int, policy: Policy, alpha: float, repeated: str) -> None:
    effect = policy.improvement.minimum_effect
    z2 = float(stats.norm.isf(alpha)) ** 2
    if effect == 0 or z2 / (n + z2) < abs(effect):
        return
    raise DataError(
        f"gate.improvement.minimum_effect is {effect:.2%}, and the new holdout has {n} independent "
        f"rows: even with no difference at all they leave up to {z2 / (n + z2):.2%} open."
        f"{repeated}",
        where="gate.improvement.minimum_effect",
        mend=f"hold out at least {_least(z2, abs(effect))} new rows, or set an effect further from "
        "0, or 0",
    )


def _new(n: int, policy: Policy, alpha: float, repeated: str) -> None:
    if n >= 1 and _best_p(n, policy) <= alpha:
        return
    need = next(n for n in itertools.count(1) if _best_p(n, policy) <= alpha)
    raise DataError(
        f"The new holdout has {n} independent rows, a group or the copies of a row counting "
        f"once: no result on them could be significant.{repeated}",
        where="data.new holdout",
        mend=f"hold out at least {need} new rows, better several hundred: "
        "collect more, or raise data.holdout_fraction",
    )


def _best_p(n: int, policy: Policy) -> float:
    """p-value of a candidate that is right wherever the champion is wrong, and that everywhere."""
    effect = policy.improvement.minimum_effect
    if effect == 0 or policy.score != "task":
        return statistics.mcnemar(n, 0)
    return statistics.tango_test(n, 0, n, delta=effect)


def _least(z2: float, margin: float) -> int:
    """Rows with z² / (n + z²) below the margin."""
    return math.floor(z2 / margin - z2) + 1
