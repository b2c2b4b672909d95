"""What would change a decision: derived from its checks, in a few sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from perennial.notation import places_apart
from perennial.reporting.forest import Check, clearance, family, ranked, untested
from perennial.reporting.verdict import amounts, value

CLOSEST = 3
SHOWN = 6
PROTECT = (
    "protect history more (method=[replay,ewc], method.replay.new_fraction, method.ewc.strength)"
)
LEARN = "let it learn more of the new rows (trainer.max_steps, optimizer.lr)"
# family of checks, or one check, to what there is to try and the setting that says what is asked
MENDS: Mapping[str, tuple[str, str]] = {
    "retention": (PROTECT, "gate.retention.margin"),
    "retention/total": (PROTECT, "gate.retention.total"),
    "harm": (PROTECT, "gate.retention.margin, or gate.retention.window where old rows mislead"),
    "improvement": (LEARN, "gate.improvement.minimum_effect"),
    "slice": ("collect rows of this slice", "gate.slices.margin"),
    "bound": ("look at the rows that the metric counts", "gate.bounds"),
    "calibration": (
        "train for fewer steps (trainer.max_steps, trainer.patience)",
        "gate.calibration",
    ),
    "serving": ("a smaller model, or more rounds on a quiet machine", "gate.serving"),
    "sanity": ("look at the rows: a constant output, a leaked label, over-fitting", "gate.sanity"),
    "flips": (PROTECT, "gate.flips"),
}
CUSTOM = ("look at what this check of yours measures", "gate.checks")


def what_would_change(decision: Mapping[str, Any]) -> list[dict[str, str]]:
    """The checks that a different decision hangs on, the heaviest first.

    Of a promotion, those that came closest to their thresholds.

    Args:
        decision: As ``result.json`` keeps it.

    Returns:
        For each its ``name``, ``outcome`` and a ``text``.
    """
    checks: Sequence[Check] = decision["checks"]
    if decision["verdict"] == "promoted":
        return _closest(checks)
    wanted = {"reject"} if decision["verdict"] == "rejected" else {"inconclusive", "not_evaluable"}
    found = [one for one in checks if one["outcome"] in wanted and _has_say(one)]
    if decision["verdict"] == "rejected":
        # once these are mended, what was undecided is next
        found += [one for one in checks if one["outcome"] == "inconclusive"]
    found = ranked(found)
    told = [_item(check, _missing(check)) for check in found[:SHOWN]]
    if len(found) > SHOWN:
        told.append({"name": f"{len(found) - SHOWN} more", "outcome": "", "text": "see below."})
    return told


def _has_say(check: Check) -> bool:
    """A veto that could not be tested has none; of the others only what is always asked."""
    return check["outcome"] != "not_evaluable" or check["name"] in ("retention", "improvement")


def _closest(checks: Sequence[Check]) -> list[dict[str, str]]:
    blank = untested(checks)
    passed = [one for one in checks if one["outcome"] == "pass" and one not in blank]
    near = sorted((one for one in passed if math.isfinite(clearance(one))), key=clearance)
    return [_item(check, _spare(check)) for check in near[:CLOSEST]]


def _item(check: Check, text: str) -> dict[str, str]:
    return {"name": str(check["name"]), "outcome": str(check["outcome"]), "text": text}


def _spare(check: Check) -> str:
    """How far a check that passed is from its threshold."""
    bound, threshold, gap = _distance(check)
    beyond = "below" if check["side"] == "above" else "above"
    if _numeric_gap(check) <= 0:  # an exact test and an interval may differ by a hair
        return f"passes by its test; its bound, {bound}, does not clear {threshold}."
    if check["veto"]:
        return (
            f"{gap} from a veto: its interval reaches {bound}, and wholly {beyond} {threshold} "
            "would reject."
        )
    return f"{gap} to spare: its bound is {bound}, and {beyond} {threshold} it would not pass."


def _missing(check: Check) -> str:
    """What a check that did not pass lacks, and what to do."""
    attempt, setting = MENDS.get(str(check["name"]), MENDS.get(family(check), CUSTOM))
    look = f"To try: {attempt}. What is asked: {setting}."
    if check["outcome"] == "not_evaluable" or untested([check]):
        return str(check["reason"])
    bound, threshold, gap = _distance(check)
    if check["outcome"] == "inconclusive":
        return f"the bound, {bound}, is {gap} from {threshold}, which it must clear. {look}"
    far = f", {gap} beyond {threshold}" if _numeric_gap(check) > 0 else ""
    return f"at best {bound}{far}. {look}"


def _numeric_gap(check: Check) -> float:
    """From the threshold to the bound that speaks, counted in the direction of the outcome."""
    distance = _speaking(check) - float(check["threshold"])
    return distance if (check["side"] == "above") == (check["outcome"] == "pass") else -distance


def _speaking(check: Check) -> float:
    """The bound that a pass clears, or the opposite one, which a reject and a veto rest on."""
    low, high = check["interval"]
    near, far = (low, high) if check["side"] == "above" else (high, low)
    return float(far if check["veto"] or check["outcome"] == "reject" else near)


def _distance(check: Check) -> tuple[str, str, str]:
    """The bound that speaks, the threshold and what lies between, in words."""
    bound, threshold = _speaking(check), float(check["threshold"])
    shown, asked = amounts([bound], threshold, unit=check["unit"])
    gap = abs(bound - threshold)
    if check["unit"] == "points":
        return shown, asked, f"{100 * gap:.{places_apart([bound], threshold)}f} points"
    return shown, asked, value(check, of=gap)
