"""What would change a decision: derived from its checks, in a few sentences."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from perennial.notation import places_apart
from perennial.reporting.forest import family, untested
from perennial.reporting.order import Check, clearance, ranked
from perennial.reporting.verdict import amounts, value

CLOSEST = 3
SHOWN = 6
PROTECT = (
    "Protect history more: method=[replay,ewc], method.replay.new_fraction, method.ewc.strength"
)
# a check, or its family, to what may mend it and the setting that says what is asked
MENDS: Mapping[str, tuple[str, str]] = {
    "retention": (PROTECT, "gate.retention.margin"),
    "retention/total": (PROTECT, "gate.retention.total"),
    "harm": (PROTECT, "gate.retention.margin"),
    "flips": (PROTECT, "gate.flips"),
    "improvement": (
        "Learn the new rows better: trainer.max_steps, optimizer.lr, or more of them",
        "gate.improvement.minimum_effect",
    ),
    "slice": ("Train on more rows of these slices", "gate.slices.margin"),
    "bound": ("Look at the rows that the metric counts", "gate.bounds"),
    "calibration": ("Train for fewer steps: trainer.max_steps", "gate.calibration"),
    "serving": ("Serve a smaller model", "gate.serving"),
    "sanity": ("Look at data and training first: this is no result to trust", "gate.sanity"),
}
CUSTOM = ("Look at what your own check measures", "gate.checks")


def what_would_change(decision: Mapping[str, Any]) -> list[dict[str, str]]:
    """The checks that the decision hangs on, the heaviest first.

    Of a promotion, those that came closest to their thresholds.

    Args:
        decision: As ``result.json`` keeps it.

    Returns:
        For each its ``name``, ``outcome`` and a ``text``.
    """
    if decision["verdict"] == "promoted":
        near = [one for one in decision["checks"] if math.isfinite(clearance(one))]
        near = sorted((one for one in near if one["outcome"] == "pass"), key=clearance)
        return [_item(check, _spare(check)) for check in near[:CLOSEST]]
    found = _open(decision)
    told = [_item(check, _missing(check)) for check in found[:SHOWN]]
    if len(found) > SHOWN:
        more = f"{len(found) - SHOWN} more"
        told.append({"name": more, "outcome": "", "text": "they stand among the checks."})
    return told


def to_try(decision: Mapping[str, Any]) -> list[str]:
    """What may mend the checks that rejected, each remedy once, with the settings behind them."""
    rejected = [one for one in decision["checks"] if one["outcome"] == "reject"]
    remedies: dict[str, list[str]] = {}
    for check in ranked(rejected):
        remedy, setting = MENDS.get(str(check["name"]), MENDS.get(family(check), CUSTOM))
        settings = remedies.setdefault(remedy, [])
        if setting not in settings:
            settings.append(setting)
    return [
        f"{remedy}. How much is asked: {', '.join(settings)}."
        for remedy, settings in remedies.items()
    ]


def _open(decision: Mapping[str, Any]) -> list[Check]:
    """What rejected, and what would be undecided once that is mended."""
    checks: Sequence[Check] = decision["checks"]
    found = [one for one in checks if one["outcome"] in ("reject", "inconclusive")]
    # a veto that could not be tested has no say
    found += [one for one in checks if one["outcome"] == "not_evaluable" and not one["veto"]]
    return ranked(found)


def _item(check: Check, text: str) -> dict[str, str]:
    return {"name": str(check["name"]), "outcome": str(check["outcome"]), "text": text}


def _spare(check: Check) -> str:
    """How far a check that passed is from its threshold."""
    bound, threshold, gap = _distance(check)
    beyond = "below" if check["side"] == "above" else "above"
    if _gap(check) <= 0:  # an exact test and an interval may differ by a hair
        return f"passes by its test; its bound, {bound}, does not clear {threshold}."
    if check["veto"]:
        return (
            f"{gap} from a veto: its interval reaches {bound}, and one that lies wholly "
            f"{beyond} {threshold} rejects."
        )
    return f"{gap} to spare: its bound is {bound}, and {beyond} {threshold} it would not pass."


def _missing(check: Check) -> str:
    """What a check that did not pass lacks; an undecided one says itself what would decide."""
    if untested([check]) or _gap(check) <= 0:  # the reason tells what decided
        return str(check["reason"])
    bound, threshold, gap = _distance(check)
    if check["outcome"] == "inconclusive":
        return f"{gap} are missing: its bound is {bound}, the threshold {threshold}. {_last(check)}"
    return (
        f"{gap} are missing even at best: its interval ends at {bound}, and {threshold} is asked."
    )


def _last(check: Check) -> str:
    """The last sentence of a check's reason."""
    return re.split(r"(?<=[.!?]) (?=[A-Z])", str(check["reason"]))[-1]


def _speaking(check: Check) -> float:
    """The bound that a pass clears, or the opposite one, which a reject and a veto rest on."""
    low, high = check["interval"]
    near, far = (low, high) if check["side"] == "above" else (high, low)
    return float(far if check["veto"] or check["outcome"] == "reject" else near)


def _gap(check: Check) -> float:
    """From the threshold to the bound that speaks, counted in the direction of the outcome."""
    distance = _speaking(check) - float(check["threshold"])
    return distance if (check["side"] == "above") == (check["outcome"] == "pass") else -distance


def _distance(check: Check) -> tuple[str, str, str]:
    """The bound that speaks, the threshold and what lies between, in words."""
    bound, threshold = _speaking(check), float(check["threshold"])
    shown, asked = amounts([bound], threshold, unit=check["unit"])
    gap = abs(bound - threshold)
    if check["unit"] == "points":
        return shown, asked, f"{100 * gap:.{places_apart([bound], threshold)}f} points"
    return shown, asked, value(check, of=gap)
