"""Plots of a sweep: the frontier of retention and plasticity, and each parameter's effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perennial.notation import level
from perennial.reporting.plots import (
    CANDIDATE,
    CHAMPION,
    HISTORY,
    NEW,
    Score,
    as_svg,
    bare_axes,
    scaled,
)

Sweep = Mapping[str, Any]
_SIZE = (4.0, 2.9)
_SMALL = (3.6, 2.2)
LEAST_SPAN = 10


def frontier(sweep: Sweep) -> str | None:
    """Retention against plasticity of validation rows; None where no trial has both.

    The Pareto set is filled and joined, what it beats is hollow, the chosen trial is ringed, the
    champion is the grey diamond, and a retention budget is the dashed line.
    """
    score = Score(unit=sweep["unit"])
    points = [one for one in sweep["trials"] if {"history", "new"} <= set(one["scores"])]
    if not points:
        return None
    figure, axes = bare_axes(*_SIZE)

    def at(scores: Mapping[str, float]) -> tuple[float, float]:
        return score.factor * scores["history"], score.factor * scores["new"]

    beaten = [at(one["scores"]) for one in points if not one["pareto"]]
    front = sorted(at(one["scores"]) for one in points if one["pareto"])
    if beaten:
        axes.scatter(*_split(beaten), s=26, facecolors="none", edgecolors=CANDIDATE, zorder=3)
    axes.plot(*_split(front), color=CANDIDATE, linewidth=1.3, alpha=0.55)
    axes.scatter(*_split(front), s=34, color=CANDIDATE, zorder=4)
    chosen = (sweep["chosen"] or {}).get("number")
    for one in points:
        if one["number"] == chosen:
            x, y = at(one["scores"])
            axes.scatter([x], [y], s=130, facecolors="none", edgecolors=NEW, linewidths=2, zorder=5)
    stood = sweep["champion"]["scores"]
    everything = [at(one["scores"]) for one in points]
    if {"history", "new"} <= set(stood):
        x, y = at(stood)
        everything.append((x, y))
        axes.scatter([x], [y], s=60, color=CHAMPION, marker="D", zorder=4)
        if sweep["settings"]["choose"] == "budget":
            limit = x - score.factor * sweep["settings"]["budget"]
            everything.append((limit, y))
            axes.axvline(limit, color=CHAMPION, linewidth=1.2, linestyle=(0, (4, 3)))
    _roomy(axes, everything, least=LEAST_SPAN if sweep["unit"] == "points" else 0)
    axes.set_xlabel(f"retention{', %' if sweep['unit'] == 'points' else ''} (history)")
    axes.set_ylabel(f"plasticity{', %' if sweep['unit'] == 'points' else ''} (new rows)")
    words = "Retention and plasticity of the trials' validation rows: " + "; ".join(
        f"trial {one['number']} {level(one['scores']['history'], sweep['unit'])} and "
        f"{level(one['scores']['new'], sweep['unit'])}"
        for one in points
        if one["pareto"]
    )
    return as_svg(figure, words)


def effect(sweep: Sweep, name: str) -> str:
    """Scores of new rows and history over one parameter's values."""
    score = Score(unit=sweep["unit"])
    finished = [one for one in sweep["trials"] if one["state"] == "finished"]
    space = next((one for one in sweep["space"] if one["name"] == name), None)
    named = bool(space and space["choices"])
    figure, axes = bare_axes(*_SMALL)
    labels = list(space["choices"]) if space and named else []
    numbers = _numbers(labels) if labels else None
    drawn: list[float] = []
    for part, colour, marker in (("new", NEW, "s"), ("history", HISTORY, "o")):
        pairs = [
            (
                numbers[str(one["params"][name])]
                if numbers
                else labels.index(str(one["params"][name]))
                if labels
                else float(one["params"][name]),
                score.factor * one["scores"][part],
            )
            for one in finished
            if part in one["scores"]
        ]
        if pairs:
            axes.scatter(*_split(pairs), s=20, color=colour, marker=marker, alpha=0.85)
            drawn += [value for _, value in pairs]
    if space and space["log"]:
        axes.set_xscale("log")
        # the library's own labels are formulas
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
    if labels and numbers is None:
        axes.set_xticks(range(len(labels)), [label[:18] for label in labels])
        axes.set_xlim(-0.5, len(labels) - 0.5)
    scaled(axes, drawn, score)
    axes.set_ylabel("score, %" if sweep["unit"] == "points" else "score")
    return as_svg(figure, f"Validation scores of new rows and history over {name}")


def _numbers(labels: Sequence[str]) -> dict[str, float] | None:
    """Choices as numbers, where all of them are."""
    try:
        return {label: float(label) for label in labels}
    except ValueError:
        return None


def _roomy(axes: Any, points: Sequence[tuple[float, float]], *, least: float) -> None:
    """Room for a mark that stands on an end; a point lost must not look like a fall."""
    for values, limit in zip(
        zip(*points, strict=True), (axes.set_xlim, axes.set_ylim), strict=True
    ):
        low, high = min(values), max(values)
        room = max(0.08 * (high - low), (least - (high - low)) / 2) or 1.0
        limit(low - room, high + room)


def _split(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in pairs], [y for _, y in pairs]
