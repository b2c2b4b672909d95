"""The gate's sentences: what a product manager reads of a check."""

from __future__ import annotations

import numpy as np

from perennial import statistics
from perennial.notation import percent, places_apart, points
from perennial.promotion.case import Case
from perennial.promotion.comparison import LEAST_FOR_MEANS, LEAST_GROUPS, Compared
from perennial.types import Booleans, Floats

# beyond so many times the rows at hand, their number is no advice
_FORESEEABLE = 20


def change(case: Case, mask: Booleans, *, weight: Floats | None = None) -> str:
    """What a score was and is on some rows.

    Args:
        case: Gives the scores and their unit.
        mask: The rows (N,).
        weight: Of each of the rows that the mask keeps; None where all count alike.
    """
    report = case.report
    before, after = (
        float(np.average(who.score[mask], weights=weight))
        for who in (report.champion, report.candidate)
    )
    rows = f"on {several(int(mask.sum()), 'row')}"
    if case.unit == "points":
        return f"{percent(before)} → {percent(after)}, {points(after - before)} points {rows}"
    sign = -1 if case.policy.score == "loss" else 1
    name = report.score_name.replace("_", " ")
    return f"{name} {sign * before:.4g} → {sign * after:.4g} {rows}"


def amount(value: float, unit: str, *, apart: float | None = None) -> str:
    """A size without its sign: a fraction in points, or a plain number.

    Args:
        value: The size.
        unit: As in `perennial.promotion.policy.Check`.
        apart: A threshold that it must not look like unless it is.

    >>> amount(0.02, "points"), amount(0.02, ""), amount(1.2, "ratio")
    ('2.0 points', '0.02', '1.2 times')
    """
    if unit == "points":
        places = 1 if apart is None else places_apart([value], apart)
        return f"{100 * value:.{places}f} points"
    return f"{value:.4g}" + (" times" if unit == "ratio" else "")


def signed(value: float, unit: str, *, apart: float) -> str:
    """A difference with its sign, told apart from a threshold that it is not.

    >>> signed(-0.0199, "points", apart=-0.02), signed(0.5, "", apart=0.1)
    ('-1.99', '+0.5')
    """
    if unit == "points":
        return points(value, places_apart([value], apart))
    return f"{value:+.4g}"


def p_words(p: float, *, alone: float | None = None) -> str:
    """A p-value, and what it was before Holm's correction.

    >>> p_words(0.034, alone=0.001)
    'p = 0.034 corrected, 0.001 alone'
    """
    return f"p = {p:.2g}" + ("" if alone is None else f" corrected, {alone:.2g} alone")


def listed(names: list[str], *, most: int = 5) -> str:
    """Names in a row, and how many more there are.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return ", ".join(names)


def more(
    found: Compared,
    *,
    distance: float,
    n: int,
    case: Case,
    rows: str,
    first: str = "",
    otherwise: str = "",
) -> str:
    """What would decide: better training, so many rows with 80% power, another policy.

    Args:
        found: The comparison that was undecided; its difference is taken to be the true one.
        distance: Of the estimate from the threshold, to the side that passes.
        n: Rows there are.
        case: Gives the level.
        rows: What rows they are, "held-out history rows".
        first: What to do before anything else, an imperative; empty for nothing.
        otherwise: What else to do, likewise.
    """
    if not found.decides:
        return (
            f" There are {several(found.rows, 'row')} in {several(found.independent, 'group')}, "
            f"and a score that is not right or wrong needs {LEAST_FOR_MEANS} in {LEAST_GROUPS} to "
            "be decided on."
        )
    need = statistics.rows_needed(found.variance, distance=abs(distance), alpha=case.alpha)
    if found.variance == 0 or need is None or need > _FORESEEABLE * n:
        told = ", or ".join(filter(None, [first, otherwise]))
        return f" To decide, {told}: so close to the threshold, more {rows} alone would not do."
    count = f"about {need:,} {rows} in all (now {n:,})" if need > n else f"somewhat more {rows}"
    told = ", or ".join(filter(None, [first, f"collect {count}", otherwise]))
    return f" To decide, {told}."


def several(count: int, noun: str) -> str:
    """A number of things.

    >>> several(1, "row"), several(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
