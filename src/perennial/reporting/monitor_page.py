"""``monitor.html``: one page without scripts that shows what moved, how, and since when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from perennial.notation import level
from perennial.reporting import monitor_plots as plots
from perennial.reporting.monitor import (
    TESTS,
    effect_words,
    heading,
    moment_words,
    named,
    ordered,
    score_lines,
    since_words,
    spell,
)
from perennial.reporting.template import pages

# tests in sight beyond those that moved, and windows of the last table
CALM, WINDOWS = 8, 30
TITLES = {"alarm": "Alarm", "calm": "Calm"}


def render_look(told: Mapping[str, Any]) -> str:
    """The page: HTML without scripts and without references to anything outside itself.

    Args:
        told: As ``monitor.json`` keeps it, of a look that was taken.
    """
    drift = told["drift"]
    shifts = ordered(drift) if drift else []
    moved = [one for one in shifts if one["moved"]]
    shown = shifts[: max(len(moved), CALM)]
    scores = plots.scores(told)
    return (
        pages()
        .get_template("monitor.html.j2")
        .render(
            told=told,
            title=TITLES[told["status"]],
            heading=heading(told),
            shown=shown,
            folded=shifts[len(shown) :],
            cards=_cards(told),
            scores=None if scores is None else Markup(scores),  # noqa: S704
            lines=score_lines(told),
            windows=[_window(one, told) for one in reversed(told["windows"][-WINDOWS:])],
            settings=_settings(told),
            name=named,
            tests=TESTS,
            effect=effect_words,
            since=since_words,
            then=plots.THEN,
            now=plots.NOW,
        )
    )


def _cards(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each column that is drawn: then and now, and how far it was off over time."""
    drift = told["drift"]
    if not drift:
        return []
    cards = []
    for picture in drift["pictures"]:
        own = [
            one
            for one in drift["shifts"]
            if (one["of"], one["name"]) == (picture["of"], picture["name"])
        ]
        first = max(own, key=lambda one: (one["moved"], one["effect"]))
        line = plots.effect(first, drift["minimum_effect"])
        drawn = plots.then_and_now(picture)
        cards.append(
            {
                "shift": first,
                "picture": Markup(drawn),  # noqa: S704
                "course": None if line is None else Markup(line),  # noqa: S704
                "unseen": list((first.get("unseen_names") or {}).items())[:5],
            }
        )
    return cards


def _window(one: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, str]:
    unit = told["task"]["unit"]

    def value(found: Mapping[str, Any] | None, key: str) -> str:
        if not found:
            return ""
        ends = found["interval"]
        bounds = f" [{level(ends[0], unit)}, {level(ends[1], unit)}]" if ends else ""
        return f"{level(found[key], unit)}{bounds}"

    alarms = [kind for kind, on in (one["alarm"] or {}).items() if on]
    real = one["realised"]
    return {
        "when": spell(one["time"]) if one["time"] else moment_words(one["looked_at"]),
        "rows": f"{one['rows']:,}",
        "alarm": ", ".join(alarms),
        "realised": value(real, "mean"),
        "labels": f"{real['n']:,}" if real else "",
        "estimated": value(one["estimated"], "now"),
        "own": "own" if one["sha256"] == told["window"]["sha256"] else "",
    }


def _settings(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    checks, drift, found = told["checks"], told["drift"], told["performance"]
    days = checks["every_seconds"] / 86_400
    rate = checks["false_alarms_per_year"]
    kinds = " and ".join(kind for kind in ("drift", "performance") if kind in checks["kinds"])
    settings = [
        ("false alarms put up with", f"{rate:g} a year, for {kinds}"),
        ("a window comes every", f"{days:g} day{'' if days == 1 else 's'}"),
    ]
    if drift:
        settings += [
            ("alarm at an adjusted p-value of", f"{drift['threshold']:.2g}"),
            ("rows of the reference", f"{drift['reference_rows']:,}"),
            ("rows that the window counts for", f"{drift['counted_rows']:,}"),
            ("smallest effect that counts", f"{drift['minimum_effect']:g}"),
            ("smallest shift seen, Kolmogorov–Smirnov", f"{drift['resolution']:.3f}"),
        ]
    if found:
        settings.append(("rows that wait for a label", f"{found['waiting']:,}"))
    return settings
