"""Checks as ``result.json`` keeps them, for tests."""

from __future__ import annotations

from typing import Any


def check(name: str, outcome: str, low: float, high: float, **changes: Any) -> dict[str, Any]:
    """A check whose estimate lies in the middle of its interval, with a threshold of -2 points."""
    return {
        "name": name,
        "outcome": outcome,
        "estimate": (low + high) / 2,
        "interval": [low, high],
        "threshold": -0.02,
        "n": 600,
        "p_value": 0.2,
        "power": None,
        "alternative": None,
        "reason": f"{name} is told. To decide, collect about 900 rows, or wait.",
        "p_uncorrected": None,
        "level": None,
        "unit": "points",
        "side": "above",
        "veto": name.startswith(("harm/", "slice/")),
        **changes,
    }


def untested(name: str, outcome: str = "not_evaluable", **changes: Any) -> dict[str, Any]:
    """A check that compared nothing."""
    nothing = dict.fromkeys(("estimate", "interval", "threshold", "p_value"))
    return {**check(name, outcome, 0.0, 0.0), **nothing, **changes}
