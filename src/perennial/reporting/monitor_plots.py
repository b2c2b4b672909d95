"""Plots of a look at new rows: columns then and now, effects over time, and the score.

Grey is what was when the version was made, orange are new rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perennial.notation import level
from perennial.reporting.plots import CHAMPION, NEW, Score, as_svg, bare_axes, scaled

THEN, NOW = CHAMPION, NEW
_SMALL = (3.4, 1.7)
_WIDE = (7.4, 2.9)
_NAME = 18


def then_and_now(picture: Mapping[str, Any]) -> str:
    """Shares of a column's values when the version was made and in the window."""
    title = f"{picture['name']}, shares then and now"
    if picture["kind"] == "number":
        return _numbers(picture, title)
    return _categories(picture, title)


def _numbers(picture: Mapping[str, Any], title: str) -> str:
    figure, axes = bare_axes(*_SMALL)
    edges = np.array(picture["edges"])
    for side, colour, alpha in (("then", THEN, 0.45), ("now", NOW, 0.0)):
        shares = 100 * np.array(picture[side])
        axes.stairs(shares, edges, fill=True, color=colour, alpha=alpha, linewidth=0)
        axes.stairs(shares, edges, color=colour, linewidth=1.6 if side == "now" else 1.0)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("rows, %")
    if picture["values"]:
        axes.set_xlabel(picture["values"])
    axes.locator_params(nbins=4, axis="both")
    middle = [float(np.average((edges[1:] + edges[:-1]) / 2, weights=picture[s])) for s in _SIDES]
    return as_svg(figure, f"{title}: mean about {middle[0]:.3g} then, {middle[1]:.3g} now")


_SIDES = ("then", "now")


def _categories(picture: Mapping[str, Any], title: str) -> str:
    names = picture["names"]
    figure, axes = bare_axes(_SMALL[0], max(_SMALL[1], 0.45 + 0.26 * len(names)))
    for side, colour, shift in (("then", THEN, -0.2), ("now", NOW, 0.2)):
        places = np.arange(len(names)) + shift
        axes.barh(places, 100 * np.array(picture[side]), height=0.36, color=colour)
    shown = [name if len(name) <= _NAME else name[: _NAME - 1] + "…" for name in names]
    axes.set_yticks(range(len(names)), shown)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("rows, %")
    axes.locator_params(nbins=4, axis="x")
    words = "; ".join(
        f"{name} {a:.0%} to {b:.0%}"
        for name, a, b in zip(names, picture["then"], picture["now"], strict=True)
    )
    return as_svg(figure, f"{title}: {words}")


def effect(shift: Mapping[str, Any], floor: float) -> str | None:
    """How far something was off in earlier windows, and in the stretches of this one.

    Args:
        shift: As ``monitor.json`` keeps it.
        floor: The effect from which on a column counts.
    """
    before = [one for one in shift["before"] if one is not None]
    within = shift["within"] or [shift["effect"]]
    if len(before) + len(within) < 2:
        return None
    figure, axes = bare_axes(_SMALL[0], 1.25)
    axes.axhline(floor, color=THEN, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(range(-len(before), 0), before, "-o", color=THEN, linewidth=1.2, markersize=3.5)
    # as wide as a third of the earlier ones, so that its stretches are told apart
    width = max(1.0, len(before) / 3) if len(within) > 1 else 1.0
    places = [width * (place + 0.5) / len(within) - 0.5 for place in range(len(within))]
    axes.plot(places, within, "-o", color=NOW, linewidth=1.6, markersize=3.5)
    axes.set_ylim(bottom=0)
    axes.set_xlim(-len(before) - 0.5, width - 0.3)
    axes.set_xticks([-len(before), width / 2 - 0.5] if before else [width / 2 - 0.5])
    axes.set_xticklabels([f"{len(before)} before", "now"] if before else ["now"])
    axes.locator_params(nbins=3, axis="y")
    axes.set_ylabel("effect")
    words = ", ".join(f"{one:.2g}" for one in before) or "no earlier window"
    return as_svg(
        figure,
        f"Effect of {shift['name']} in earlier windows: {words}; in the stretches of this one: "
        + ", ".join(f"{one:.2g}" for one in within),
    )


def scores(told: Mapping[str, Any]) -> str | None:
    """The realised and the estimated score of each window; None of fewer than two."""
    windows = [one for one in told["windows"] if one["realised"] or one["estimated"]]
    found = told["performance"]
    if len(windows) < 2 or not found:
        return None
    score = Score(told["task"]["score"].replace("_", " "), told["task"]["unit"])
    figure, axes = bare_axes(*_WIDE)
    factor, then = score.factor, found["realised"]["then"]["mean"]
    axes.axhline(factor * then, color=THEN, linewidth=1.2, linestyle=(0, (4, 3)))
    drawn = [factor * then]
    for kind, key, filled, shift in (("realised", "mean", True, 0), ("estimated", "now", False, 1)):
        known = [(place, one[kind]) for place, one in enumerate(windows) if one[kind]]
        places = [place + 0.16 * shift for place, _ in known]
        values = [factor * one[key] for _, one in known]
        face = NOW if filled else "none"
        for place, (_, one) in zip(places, known, strict=True):
            if one["interval"]:
                ends = [factor * end for end in one["interval"]]
                axes.plot([place, place], ends, color=NOW, linewidth=1.2, alpha=0.7)
                drawn += ends
        mark = "o" if filled else "s"
        axes.plot(places, values, mark, color=NOW, markerfacecolor=face, markersize=6)
        drawn += values
    scaled(axes, drawn, score)
    _named(axes, windows)
    axes.set_ylabel(score.axis)
    return as_svg(figure, _score_words(windows, score, then))


def _named(axes: Any, windows: Sequence[Mapping[str, Any]]) -> None:
    step = -(-len(windows) // 8)
    places = list(range(0, len(windows), step))
    axes.set_xticks(places, [_day(windows[place]) for place in places])
    axes.set_xlim(-0.6, len(windows) - 0.4)
    axes.set_xlabel("window")


def _day(window: Mapping[str, Any]) -> str:
    text = window["time"][0] if window["time"] else window["looked_at"]
    return str(text).partition("T")[0][:10]


def _score_words(windows: Sequence[Mapping[str, Any]], score: Score, then: float) -> str:
    told = "; ".join(
        _day(one)
        + "".join(
            f", {kind} {level(one[kind][key], score.unit)}"
            for kind, key in (("realised", "mean"), ("estimated", "now"))
            if one[kind]
        )
        for one in windows[-20:]
    )
    return f"{score.title} by window, {level(then, score.unit)} when the version was made: {told}"
