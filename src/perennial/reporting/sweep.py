"""The end of a sweep: a table on the terminal, ``sweep.json`` and ``sweep.html``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console

from perennial import files
from perennial.notation import gain, level
from perennial.paths import from_here
from perennial.reporting import sweep_plots
from perennial.reporting.console import print_line, print_paragraph, print_table
from perennial.reporting.result import json_safe
from perennial.reporting.template import pages
from perennial.sweeping.space import shown

SWEEP, PAGE = "sweep.json", "sweep.html"
LINES = 12
COLUMNS = ("history", "new", "combined")
NAMES = {"history": "retention", "new": "plasticity", "combined": "combined"}


def write_sweep(folder: Path, sweep: Mapping[str, Any]) -> None:
    """Write record and page durably."""
    files.write_json(folder / SWEEP, json_safe(sweep))
    files.write_bytes(folder / PAGE, render_sweep(sweep).encode())


def print_sweep(sweep: Mapping[str, Any], console: Console, *, folder: Path) -> None:
    """Print what came of a sweep: its best trials, which one is chosen, and where the page is.

    Args:
        sweep: As ``sweep.json`` keeps it.
        console: Where to.
        folder: Of the sweep.
    """
    ordered, unit = in_order(sweep), sweep["unit"]
    names = parameters(sweep)
    rows = [["", "trial", *names, *NAMES.values()]]
    rows += [
        [
            mark(one, sweep),
            str(one["number"]),
            *[shown(one["params"][name]) for name in names],
            *_scores(one["scores"], unit),
        ]
        for one in ordered[:LINES]
    ]
    stood = sweep["champion"]["scores"]
    rows.append(["", sweep["champion"]["id"], *([""] * len(names)), *_scores(stood, unit)])
    console.print()
    align = "ll" + "r" * (len(names) + len(COLUMNS))
    print_table(rows, align=align, console=console)
    if len(ordered) > LINES:
        print_line(console, f"and {len(ordered) - LINES} more trials, in the page")
    print_line(console, "* on the Pareto set of retention and plasticity, all on validation rows")
    for one in sweep["trials"]:
        if one["state"] == "failed":
            print_line(console, f"trial {one['number']} failed: {one['reason']}")
    console.print()
    print_paragraph(sentence(sweep), console, style="bold")
    if sweep["chosen"]:
        print_line(console, f"  apply: {sweep['chosen']['command']}")
    print_line(console, f"  page:  {from_here(folder / PAGE)}")


def _scores(scores: Mapping[str, float], unit: str) -> list[str]:
    return [level(scores[name], unit) if name in scores else "" for name in COLUMNS]


def sentence(sweep: Mapping[str, Any]) -> str:
    """What was found."""
    if sweep["recommendation"]:
        return str(sweep["recommendation"])
    chosen, unit = sweep["chosen"], sweep["unit"]
    settings, stood = sweep["settings"], sweep["champion"]["scores"]
    if chosen is None:
        if not sweep["counts"]["finished"]:
            return "No trial came to its end."
        lost = gain(settings["budget"], unit).lstrip("+")
        return f"No trial stays within {lost} of the champion's retention."
    one = next(trial for trial in sweep["trials"] if trial["number"] == chosen["number"])
    against = [
        f"{NAMES[name]} {level(one['scores'][name], unit)}"
        + (f" ({gain(one['scores'][name] - stood[name], unit)})" if name in stood else "")
        for name in ("history", "new")
        if name in one["scores"]
    ]
    what = "the best combined score"
    if settings["choose"] == "budget":
        lost = gain(settings["budget"], unit).lstrip("+")
        what = f"the largest plasticity within {lost} of the champion's retention"
    return f"Trial {chosen['number']} has {what}: {', '.join(against)}."


def headline(sweep: Mapping[str, Any]) -> str:
    """How many trials came to which end.

    >>> headline({"counts": {"finished": 18, "pruned": 2, "failed": 0}})
    '18 trials finished, 2 pruned'
    """
    finished, pruned, failed = (sweep["counts"][k] for k in ("finished", "pruned", "failed"))
    said = [f"{finished} trial{'s' * (finished != 1)} finished"]
    said += [f"{count} {word}" for count, word in ((pruned, "pruned"), (failed, "failed")) if count]
    return ", ".join(said)


def in_order(sweep: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Finished trials, the chosen one first, then by their combined score."""
    chosen = (sweep["chosen"] or {}).get("number")
    finished = [one for one in sweep["trials"] if one["state"] == "finished"]
    return sorted(
        finished,
        key=lambda one: (one["number"] != chosen, -one["scores"].get("combined", 0.0)),
    )


def parameters(sweep: Mapping[str, Any]) -> list[str]:
    """Names of what was searched."""
    return list(dict.fromkeys(name for one in sweep["trials"] for name in one["params"]))


def mark(trial: Mapping[str, Any], sweep: Mapping[str, Any]) -> str:
    """``>`` for the chosen trial, ``*`` for the Pareto set."""
    chosen = (sweep["chosen"] or {}).get("number")
    return f"{'>' if trial['number'] == chosen else ''}{'*' if trial['pareto'] else ''}"


def render_sweep(sweep: Mapping[str, Any]) -> str:
    """The page: HTML without scripts and without references to anything outside itself."""
    environment = pages()
    environment.filters |= {
        "level": lambda value: level(value, sweep["unit"]),
        "shown": shown,
    }
    stopped = [one for one in sweep["trials"] if one["state"] != "finished"]
    return environment.get_template("sweep.html.j2").render(
        sweep=sweep,
        headline=headline(sweep),
        lead=sentence(sweep),
        trials=in_order(sweep),
        stopped=stopped,
        parameters=parameters(sweep),
        columns=[(name, NAMES[name]) for name in COLUMNS],
        chosen=(sweep["chosen"] or {}).get("number"),
        frontier=_markup(sweep_plots.frontier(sweep)),
        effects=[(name, _markup(sweep_plots.effect(sweep, name))) for name in _told(sweep)],
        settings=_settings(sweep),
    )


def _told(sweep: Mapping[str, Any]) -> list[str]:
    """Parameters whose effect can be drawn: several values among what finished."""
    finished = [one["params"] for one in sweep["trials"] if one["state"] == "finished"]
    return [n for n in parameters(sweep) if len({str(p.get(n)) for p in finished}) > 1]


def _settings(sweep: Mapping[str, Any]) -> list[tuple[str, str]]:
    settings = sweep["settings"]
    pruner = settings["pruner"]
    return [
        ("sampler", str(settings["sampler"])),
        ("seed", str(settings["seed"])),
        ("maximised", ", ".join(settings["objectives"])),
        ("pruner", f"{pruner[0]}, from step {pruner[1]}" if pruner else "none"),
        ("chosen by", _rule(settings, sweep["unit"])),
        ("champion", str(sweep["champion"]["id"])),
    ]


def _rule(settings: Mapping[str, Any], unit: str) -> str:
    if settings["choose"] == "combined":
        return "combined score"
    return f"plasticity within {gain(settings['budget'], unit).lstrip('+')} of retention"


def _markup(svg: str | None) -> Markup | None:
    return None if svg is None else Markup(svg)  # noqa: S704
