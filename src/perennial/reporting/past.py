"""What became of a lineage: its matrix of scores as coloured cells, and its measures in words.

Shapes: T versions by H holdouts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perennial.notation import gain, level

LATEST = 40
ROOMY, TIGHT = 8, 16
LEAST_SPAN = 0.2
LIGHT, DARK = (234, 241, 251), (8, 48, 107)
MEASURES = (
    ("average_accuracy", "average accuracy", "mean over all holdouts"),
    ("forgetting", "forgetting", "mean loss against the best version before, on earlier holdouts"),
    ("backward_transfer", "backward transfer", "mean change since a holdout's rows were new"),
    ("forward_transfer", "forward transfer", "advantage on new rows before learning them"),
)


def measures(forgetting: Mapping[str, Any], task: Mapping[str, str]) -> list[dict[str, str]]:
    """Those that are known, each with its name, its value and what it means.

    Args:
        forgetting: Of a result.
        task: Likewise: name and unit of the score.
    """
    unit = task["unit"]
    told = []
    for key, name, meaning in MEASURES:
        if (amount := forgetting.get(key)) is not None:
            shown = (level if key == "average_accuracy" else gain)(amount, unit)
            if key == "forgetting":  # a loss, so that a plus sign would read as good news
                size = gain(abs(amount), unit).lstrip("+")
                shown = f"{size} {'lost' if amount > 0 else 'gained'}" if amount else "none"
            name = name.replace("accuracy", task["score"].replace("_", " "))
            told.append({"name": name, "value": shown, "meaning": meaning})
    return told


def heat_map(forgetting: Mapping[str, Any], unit: str = "points") -> dict[str, Any] | None:
    """The matrix of scores, its newest rows and columns; None where there is but one version.

    Args:
        forgetting: ``matrix`` (T, H), a number or None a cell, with ``versions`` and ``holdouts``.
        unit: Of the score.

    Returns:
        ``holdouts``, and ``rows`` of ``version`` and ``cells``: text, words and colours.
    """
    if len(forgetting["matrix"]) < 2:
        return None
    holdouts = list(forgetting["holdouts"])[-LATEST:]
    matrix = [row[-LATEST:] for row in forgetting["matrix"][-LATEST:]]
    known = [value for row in matrix for value in row if value is not None]
    low, high = _span(known, unit)
    rows = [
        {
            "version": version,
            "cells": [
                _cell(
                    value,
                    (low, high),
                    count=len(holdouts),
                    where=f"{version} on {holdout}",
                    unit=unit,
                )
                for holdout, value in zip(holdouts, row, strict=True)
            ],
        }
        for version, row in zip(list(forgetting["versions"])[-LATEST:], matrix, strict=True)
    ]
    left_out = max(0, len(forgetting["matrix"]) - LATEST)
    return {"holdouts": holdouts, "rows": rows, "left_out": left_out, "ends": (low, high)}


def _span(known: Sequence[float], unit: str) -> tuple[float, float]:
    """Ends of the colours, 20 points apart at the least: a point lost must not look like a fall.

    Of a score in another unit the least is a fifth of the largest.
    """
    low, high = min(known, default=0.0), max(known, default=1.0)
    if unit != "points":
        return (low, max(high, low + (LEAST_SPAN * max(abs(low), abs(high)) or 1.0)))
    if high - low < LEAST_SPAN:
        low = max(0.0, high - LEAST_SPAN)
        high = low + LEAST_SPAN
    return low, high


def _cell(
    value: float | None, ends: tuple[float, float], *, count: int, where: str, unit: str
) -> dict[str, str]:
    if value is None:
        return {"text": "", "words": f"{where}: not measured", "fill": "", "ink": ""}
    share = (value - ends[0]) / (ends[1] - ends[0])
    mixed = [round(a + share * (b - a)) for a, b in zip(LIGHT, DARK, strict=True)]
    places = 1 if count <= ROOMY else 0
    return {
        "text": _short(value, unit, places) if count <= TIGHT else "",
        "words": f"{where}: {level(value, unit)}",
        "fill": "#{:02x}{:02x}{:02x}".format(*mixed),
        # whichever of the two stands out more on the fill
        "ink": "#ffffff" if share > 0.625 else "#000000",
    }


def _short(value: float, unit: str, places: int) -> str:
    return f"{100 * value:.{places}f}" if unit == "points" else f"{value:.3g}"
