"""In which order checks are told, everywhere: in the sentence, on the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Check = Mapping[str, Any]

ORDER = ("reject", "inconclusive", "pass", "not_evaluable", "waived")
# where nothing has changed, in a check's unit
_MIDDLE = {"ratio": 1.0}


def ranked(checks: Sequence[Check]) -> list[Check]:
    """The worst first: by outcome; what rejects by `excess`, the rest by `clearance`."""
    return sorted(checks, key=lambda one: (ORDER.index(one["outcome"]), _within(one)))


def clearance(check: Check) -> float:
    """How far the bound that decides is from its threshold, in margins; see `excess`.

    Positive where the check passed by its bound; infinite without an interval, or where nothing
    is left to chance. A veto is decided by the far bound: it rejects where that is beyond too.
    """
    if check["interval"] is None or check["threshold"] is None:
        return math.inf
    low, high = check["interval"]
    above = check["side"] == "above"
    bound = low if above != check["veto"] else high
    distance = bound - check["threshold"] if above else check["threshold"] - bound
    return distance / _margin(check) if high > low else math.copysign(math.inf, distance)


def excess(check: Check) -> float:
    """How far the whole interval of a check that rejects lies beyond its threshold, in margins.

    A margin is what the threshold allows: its distance from where nothing has changed, or half an
    interval where it allows nothing. Infinite without an interval: what rejects by a plain fact,
    such as constant predictions, comes first.
    """
    if check["interval"] is None or check["threshold"] is None:
        return math.inf
    low, high = check["interval"]
    above = check["side"] == "above"
    beyond = check["threshold"] - high if above else low - check["threshold"]
    margin = _margin(check)
    return float(beyond / margin) if margin else math.copysign(math.inf, beyond)


def _margin(check: Check) -> float:
    low, high = check["interval"]
    margin = abs(check["threshold"] - _MIDDLE.get(check["unit"], 0.0)) or (high - low) / 2
    return float(margin)


def _within(check: Check) -> float:
    return -excess(check) if check["outcome"] == "reject" else clearance(check)
