"""The end of a look at new rows: a table on the terminal, ``monitor.json`` and ``monitor.html``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console

from perennial import files
from perennial.errors import StorageError
from perennial.monitoring.performance.estimated import AREA
from perennial.notation import level
from perennial.paths import from_here
from perennial.reporting.console import print_line, print_paragraph, print_table

RECORD, PAGE = "monitor.json", "monitor.html"
SCHEMA_FILE = Path(__file__).parent / "monitor.schema.json"
COLOURS = {"calm": "bold green", "alarm": "bold red", "failed": "bold red"}
# tests on the terminal: all that moved up to so many, and of the rest the farthest
SHOWN, CALM = 20, 5
TESTS = {
    "ks": "Kolmogorov–Smirnov",
    "chi_square": "χ²",
    "missing": "share missing",
    "mmd": "maximum mean discrepancy",
    "classifier": "classifier two-sample test",
}


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of ``monitor.json``."""
    loaded: dict[str, Any] = json.loads(SCHEMA_FILE.read_text())
    return loaded


def write_record(path: Path, told: Mapping[str, Any]) -> None:
    """Write ``monitor.json`` durably; where no disk takes it, it goes to standard error."""
    try:
        files.write_json(path, dict(told))
    except StorageError as error:
        sys.stderr.write(f"perennial: {error}\n{json.dumps(told, indent=2)}\n")


def print_look(told: Mapping[str, Any], console: Console) -> None:
    """Print what was found, the answer, and where the page is.

    Args:
        told: As ``monitor.json`` keeps it.
        console: Where to.
    """
    if told["error"]:
        print_line(console, "FAILED", style=COLOURS["failed"])
        for key in ("what", "where", "mend"):
            if told["error"][key]:
                print_line(console, f"  {key + ':':<7}{told['error'][key]}")
        print_line(console, f"  exit:   {told['exit_code']}")
        return
    print_line(console, heading(told))
    if told["drift"]:
        print_line(console)
        _shifts(told["drift"], console)
    print_line(console)
    _scores(told, console)
    for note in told["notes"]:
        print_paragraph(note, console, style="dim")
    print_line(console)
    print_line(console, told["status"].upper(), style=COLOURS[told["status"]])
    print_paragraph(told["reason"], console, indent=2)
    if told["page"]:
        print_line(console, f"  page:   {from_here(Path(told['page']))}")
    if run := told["tracking"]["url"] or told["tracking"]["directory"]:
        print_line(console, f"  run:    {run if '://' in run else from_here(Path(run))}")
    print_line(console, f"  exit:   {told['exit_code']}")


def heading(told: Mapping[str, Any]) -> str:
    """What was looked at, in one line."""
    window = told["window"]
    time = f", {spell(window['time'])}" if window["time"] else ""
    labelled = window["labelled"]
    labels = {0: "no label yet", window["rows"]: "all labelled"}.get(
        labelled, f"{labelled:,} labelled"
    )
    return f"{told['version']} on {window['rows']:,} rows ({labels}){time}"


def spell(time: list[str]) -> str:
    """From and to, each as short as it says all.

    >>> spell(["2026-11-26T08:30:00", "2026-11-26T09:00:00"]), spell(["3", "7"])
    ('2026-11-26 08:30:00 to 09:00:00', '3 to 7')
    """
    first, last = (moment_words(one) for one in time)
    if first == last:
        return first
    day, _, clock = last.partition(" ")
    return f"{first} to {clock if clock and first.startswith(day + ' ') else last}"


def moment_words(text: str) -> str:
    """A time of a row without a clock time of nothing but zeros.

    >>> moment_words("2026-11-26T00:00:00.000000000"), moment_words("2026-11-26T08:30:00")
    ('2026-11-26', '2026-11-26 08:30:00')
    """
    day, _, clock = text.partition("T")
    clock = clock.partition(".")[0].partition("+")[0]
    return day if not clock.strip("0:") else f"{day} {clock}"


def named(shift: Mapping[str, Any]) -> str:
    """What a test is about."""
    if shift["of"] == "rows":
        return "all columns together"
    if shift["of"] == "features":
        return "the model's features"
    of = "the model's " if shift["of"] == "prediction" else ""
    return f"{of}{shift['name']}"


def ordered(drift: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All tests: what moved, the surest first, then the rest, the farthest first."""
    return sorted(
        drift["shifts"],
        key=lambda one: (not one["moved"], one["q"] if one["moved"] else 0, -one["effect"]),
    )


def since_words(shift: Mapping[str, Any]) -> str:
    """From when on something has moved; empty where it has not."""
    found = shift["since"]
    if not found:
        return ""
    when = found["time"] or found["looked_at"]
    more = f", {found['windows']} windows" if found["windows"] > 1 else ""
    return f"{moment_words(when)}{more}"


def effect_words(shift: Mapping[str, Any]) -> str:
    """How far something moved."""
    value = f"{shift['effect']:.3g}"
    return f"{value} {shift['unit']}" if shift["unit"] else value


def _shifts(drift: Mapping[str, Any], console: Console) -> None:
    every = ordered(drift)
    moved = sum(one["moved"] for one in every)
    shown = every[: max(min(moved, SHOWN), CALM)]
    rows = [["", "compared", "test", "effect", "p", "q", "since"]]
    rows += [
        [
            "moved" if one["moved"] else "",
            named(one),
            TESTS[one["test"]],
            effect_words(one),
            f"{one['p']:.2g}",
            f"{one['q']:.2g}",
            since_words(one),
        ]
        for one in shown
    ]
    print_table(rows, align="lllrrrl", console=console)
    if len(every) > len(shown):
        print_line(console, f"and {len(every) - len(shown)} more tests, in the page", style="dim")


def score_lines(told: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What is known of the score: its name, its value with interval, and of what."""
    found = told["performance"]
    if not found:
        return []
    unit = told["task"]["unit"]

    def value(mean: float, interval: Any) -> str:
        bounds = f" [{level(interval[0], unit)}, {level(interval[1], unit)}]" if interval else ""
        return f"{level(mean, unit)}{bounds}"

    then, now = found["realised"]["then"], found["realised"]["now"]
    lines = [("when made", value(then["mean"], then["interval"]), f"{then['n']:,} held-out rows")]
    if now:
        of = f"newest {now['n']:,} of {found['scored']:,} rows whose label came"
        lines.append(("realised", value(now["mean"], now["interval"]), of))
    for one in found["estimated"]["estimates"]:
        area = one["how"] == AREA
        of = f"was {level(one['then'], unit)} when made" if area else f"by {one['how']}"
        name = "estimated AUC" if area else "estimated"
        lines.append((name, value(one["now"], one["interval"]), f"newest window, {of}"))
    return lines


def _scores(told: Mapping[str, Any], console: Console) -> None:
    if told["untold"]:
        print_paragraph(told["untold"], console)
    if not told["performance"]:
        return
    rows = [[told["task"]["score"].replace("_", " "), "", ""], *map(list, score_lines(told))]
    print_table(rows, align="lrl", console=console)
    found = told["performance"]
    if found["estimated"]["estimates"]:
        print_paragraph(found["estimated"]["caution"], console, style="dim")
    else:
        print_paragraph(f"not estimated: {found['estimated']['missing']}", console, style="dim")
    if found["waiting"]:
        print_line(console, f"{found['waiting']:,} rows wait for their label", style="dim")
