"""A decision's checks as one picture: each interval against its threshold.

What compares candidate with champion by the score lies on one scale; ratios lie on another, and
every other figure has a scale of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from perennial.notation import confidence, points
from perennial.reporting.order import Check, ranked
from perennial.reporting.scale import Scale, window
from perennial.reporting.verdict import interval, interval_parts

SHOWN = 10
REACH = 4
SHAPES = {"pass": "circle", "inconclusive": "diamond", "reject": "square"}
# of these, estimate and threshold are differences of one score
BY_SCORE = ("retention", "improvement", "harm", "slice")
PLAIN = Scale(0.0, 1.0)


def family(check: Check) -> str:
    """What kind of question it is: the name up to its first slash."""
    return str(check["name"]).partition("/")[0]


def pictures(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """The parts of the picture, each with a title, rows, those folded away, and ticks.

    Args:
        checks: Of one decision; those that compared nothing are left to `untested`.
    """
    drawn = [check for check in checks if _is_drawn(check)]
    scored = [check for check in drawn if family(check) in BY_SCORE]
    rest = ranked([check for check in drawn if check not in scored])
    ratios = [check for check in rest if check["unit"] == "ratio"]
    others = [check for check in rest if check not in ratios]
    asked = [check for check in scored if not check["veto"]]
    vetoes = ranked([check for check in scored if check["veto"]])
    common = _common(asked, vetoes)
    ratio = window(_values(ratios), middle=1.0) if ratios else PLAIN
    unit = ", points" if scored and scored[0]["unit"] == "points" else ""
    parts = [
        (f"Candidate minus champion{unit}", asked, common, 0.0),
        (f"Harm vetoes{unit}", vetoes, common, 0.0),
        ("Candidate over champion, what serving costs", ratios, ratio, 1.0),
        ("Other limits, each on its own scale", others, None, None),
    ]
    return [
        {
            "title": title,
            "rows": [_row(check, scale, middle) for check in members[:SHOWN]],
            "folded": [_row(check, scale, middle) for check in members[SHOWN:]],
            "ticks": [] if scale is None else _ticks(scale, members[0]["unit"]),
        }
        for title, members, scale, middle in parts
        if members
    ]


def untested(checks: Sequence[Check]) -> list[Check]:
    """Checks without an interval: waived, not evaluable, or not of numbers."""
    return [check for check in checks if not _is_drawn(check)]


def _is_drawn(check: Check) -> bool:
    figures = (check["interval"], check["estimate"], check["threshold"])
    return check["outcome"] in SHAPES and None not in figures


def _values(checks: Sequence[Check]) -> list[float]:
    return [
        figure
        for check in checks
        for figure in (*check["interval"], check["estimate"], check["threshold"])
    ]


def _common(asked: Sequence[Check], vetoes: Sequence[Check]) -> Scale:
    """Wide enough for what rejects, for thresholds, and for what lies about them.

    A gain of 80 points is an arrow: it would press the margins into a hair's breadth.
    """
    shown = [*asked, *vetoes]
    if not shown:
        return PLAIN
    reach = REACH * max(abs(check["threshold"]) for check in shown) or math.inf
    rejecting = [check for check in shown if check["outcome"] == "reject"]
    near = [min(max(value, -reach), reach) for value in _values(shown)]
    return window([*near, *_values(rejecting)])


def _ticks(scale: Scale, unit: str) -> list[dict[str, Any]]:
    values = scale.ticks()
    return [{"at": scale.place(tick), "text": _tick(tick, values, unit)} for tick in values]


def _tick(tick: float, values: Sequence[float], unit: str) -> str:
    step = abs(values[1] - values[0]) if len(values) > 1 else abs(tick) or 1.0
    if unit == "points":
        return points(tick, _places(100 * step))
    return f"{tick:.{_places(step)}f}" + ("×" if unit == "ratio" else "")


def _places(step: float) -> int:
    return max(0, -math.floor(math.log10(step) + 1e-9))


def _row(check: Check, scale: Scale | None, middle: float | None) -> dict[str, Any]:
    """One check, placed: percents of the width, which ends are cut, and its words."""
    own = window(_values([check]), middle=check["threshold"]) if scale is None else None
    scale = scale or own
    assert scale is not None
    low, high = check["interval"]
    threshold = scale.place(check["threshold"])
    above = check["side"] == "above"
    return {
        "name": check["name"],
        "outcome": check["outcome"],
        "shape": SHAPES[check["outcome"]],
        "low": scale.place(low),
        "high": scale.place(high),
        "at": scale.place(check["estimate"]),
        "cut": scale.beyond(check["estimate"]),
        "cut_low": scale.beyond(low) < 0,
        "cut_high": scale.beyond(high) > 0,
        "threshold": threshold,
        "middle": None if middle is None else scale.place(middle),
        "forbidden": (0.0, threshold) if above else (threshold, round(100 - threshold, 3)),
        "estimate": interval_parts(check)[0],
        "span": interval_parts(check)[1].rstrip(","),
        "words": interval(check),
        "p": _p(check),
        "limit": "" if own is None else interval_parts(check)[2].rpartition(" ")[2],
        "n": check["n"],
        "veto": check["veto"],
    }


def certainty(decision: Mapping[str, Any]) -> str:
    """At which confidence the bounds of the picture are, and whose are at another.

    Args:
        decision: As ``result.json`` keeps it.
    """
    told = f"each at {confidence(decision['alpha'])}"
    drawn = [check for check in decision["checks"] if _is_drawn(check)]
    other = [one for one in drawn if one["level"] not in (None, decision["alpha"])]
    alone = [f"{one['name']} at {confidence(one['level'])}" for one in other if not one["veto"]]
    levels = sorted({one["level"] for one in other if one["veto"]}, reverse=True)
    if levels:
        ends = [confidence(level) for level in (levels[0], levels[-1])]
        alone.append(f"harm vetoes at {' to '.join(dict.fromkeys(ends))} by Holm's correction")
    return ", ".join([told, *alone])


def _p(check: Check) -> str:
    """What a correction made of the p-value; empty where there was none."""
    if check["p_value"] is None or check["p_uncorrected"] is None:
        return ""
    return f"p = {check['p_value']:.2g} corrected, {check['p_uncorrected']:.2g} alone"
