"""Plots of a backtest: the score over time under each policy, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perennial.reporting.plots import CANDIDATE, CHAMPION, as_svg, bare_axes

# told apart without colour too, by their marks
_COLOURS = ("#d9822b", "#12908e", "#a855b8", "#c2410c", "#5b8c2a", "#7a6bd1", "#b08900")
_MARKS = ("s", "^", "D", "v", "P", "X", "p")
_SHAPES = {
    "o": "M9 4a5 5 0 1 0 .01 0z",
    "s": "M4.5 4.5h9v9h-9z",
    "^": "M9 3.5l5.5 10h-11z",
    "D": "M9 3l6 6-6 6-6-6z",
    "v": "M9 14.5l-5.5-10h11z",
    "P": "M7 3.5h4V7h3.5v4H11v3.5H7V11H3.5V7H7z",
    "X": "M4 6l2-2 3 3 3-3 2 2-3 3 3 3-2 2-3-3-3 3-2-2 3-3z",
    "p": "M9 3.5l5.5 4.2-2.100 6.300H5.600L3.5 7.700z",
}
SPENT = ("device_cost", "label_cost")
_SIZE = (7.4, 3.2)
_SMALL = (5.2, 2.9)


@dataclass(frozen=True)
class Look:
    """How a policy is drawn.

    Attributes:
        colour: Of line and mark.
        mark: Of the plotting library.
        shape: The mark as an SVG path in a box of 18.
    """

    colour: str
    mark: str
    shape: str


def look(told: Mapping[str, Any], policy: str) -> Look:
    """How a policy is drawn: ``never`` as a champion is, the recommended one as a candidate."""
    chosen = told["recommendation"]["policy"]
    if policy == "never":
        return Look(CHAMPION, "o", _SHAPES["o"])
    if policy == chosen:
        return Look(CANDIDATE, "o", _SHAPES["o"])
    others = [one["policy"] for one in told["policies"] if one["policy"] not in ("never", chosen)]
    place = others.index(policy) % len(_MARKS)
    return Look(_COLOURS[place], _MARKS[place], _SHAPES[_MARKS[place]])


def courses(told: Mapping[str, Any]) -> str:
    """The score of each window under each policy; a filled mark follows a promotion."""
    figure, axes = bare_axes(*_SIZE)
    numbers = [one["window"] for one in told["windows"]]
    for one in _drawn(told):
        style, scores = look(told, one["policy"]), one["scores"]
        main = one["policy"] == told["recommendation"]["policy"]
        line = (0, (4, 3)) if one["policy"] == "never" else "-"
        width = 2.4 if main else 1.2
        axes.plot(numbers, scores, color=style.colour, linewidth=width, linestyle=line, alpha=0.85)
        fresh = [_promoted(step) for step in [None, *one["windows"][:-1]]]
        for filled in (True, False):
            at = [place for place, new in enumerate(fresh) if new is filled]
            axes.plot(
                [numbers[place] for place in at],
                [scores[place] for place in at],
                style.mark,
                color=style.colour,
                markerfacecolor=style.colour if filled else "none",
                markersize=6,
            )
    axes.set_xticks(numbers[:: -(-len(numbers) // 20)])
    axes.set_xlabel(str(told["timeline"]["key"]))
    axes.set_ylabel(_axis(told))
    words = "; ".join(
        f"{one['policy']} {one['scores'][0]:.4f} to {one['scores'][-1]:.4f}"
        for one in told["policies"]
    )
    return as_svg(
        figure, f"{told['metric']} of each window under each policy, first to last: {words}"
    )


def costs(told: Mapping[str, Any]) -> str:
    """Mean score against what a policy cost: money where it is counted, else device-seconds."""
    figure, axes = bare_axes(*_SMALL)
    money = any(told["policies"][0]["money"][name] is not None for name in SPENT)
    for one in _drawn(told):
        style, main = look(told, one["policy"]), one["policy"] == told["recommendation"]["policy"]
        spent = sum(one["money"][name] or 0.0 for name in SPENT)
        axes.plot(
            spent if money else one["device_seconds"],
            one["mean"],
            style.mark,
            color=style.colour,
            markersize=10 if main else 7,
        )
    axes.margins(0.12)
    axes.set_xlabel("money spent" if money else "device-seconds of training")
    axes.set_ylabel(_axis(told))
    words = "; ".join(
        f"{one['policy']} {one['mean']:.4f} at {one['device_seconds']:.1f} s"
        for one in told["policies"]
    )
    return as_svg(figure, f"Mean {told['metric']} against cost: {words}")


def _promoted(step: Mapping[str, Any] | None) -> bool:
    """Whether the version that serves next is a new one."""
    return step is not None and step["cycle"] is not None and bool(step["cycle"]["applied"])


def _drawn(told: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Policies in the order in which they are drawn, the recommended one last, on top."""
    chosen = told["recommendation"]["policy"]
    return sorted(told["policies"], key=lambda one: one["policy"] == chosen)


def _axis(told: Mapping[str, Any]) -> str:
    return f"{told['metric']}{'' if told['higher_is_better'] else ' (lower is better)'}"
