"""The end of a cycle on a terminal: one table, the checks, the verdict, the paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from perennial.notation import gain, level
from perennial.paths import from_here
from perennial.reporting import verdict
from perennial.reporting.layout import columns, paragraph
from perennial.reporting.order import ranked

COLOURS = {
    "promoted": "bold green",
    "rejected": "bold red",
    "inconclusive": "bold yellow",
    "skipped": "bold blue",
    "pruned": "bold blue",
    "failed": "bold red",
    "pass": "green",
    "reject": "red",
}
HELD_BACK = "bold yellow"
# lines of a kind, before the rest is folded into one
VETOES = 5
REASONS = 4
HOLDOUTS = 6


def print_result(result: Mapping[str, Any], console: Console, *, first: bool = False) -> None:
    """Print a result as a person wants to see it.

    Args:
        result: As ``result.json`` keeps it.
        console: Where to; colours only on a terminal.
        first: Whether nothing was printed before, so that no empty line leads.
    """
    status = str(result["status"])
    if result["metrics"]:
        print_line(console)
        print_table(_table(result["metrics"], result["task"]), align="lrrrr", console=console)
        _checks(result["decision"], console)
    if not first:
        print_line(console)
    style = HELD_BACK if verdict.held_back(result) else COLOURS[status]
    head, brackets, tail = verdict.title(result).partition(" (")
    print_line(console, head.upper() + brackets + tail, style=style)
    print_paragraph(verdict.sentence(result), console, indent=2)
    if result["error"]:
        for name in ("what", "where", "mend"):
            if result["error"][name]:
                print_line(console, f"  {name + ':':<7}{result['error'][name]}")
    _paths(result, console)


def print_table(rows: Sequence[Sequence[str]], *, align: str, console: Console) -> None:
    """Print rows in aligned columns, the header first.

    Args:
        rows: Cells; see `perennial.reporting.layout.columns`.
        align: ``l`` or ``r`` for each column.
        console: Where to.
    """
    header, *lines = columns(rows, align=align)
    print_line(console, header, style="bold")
    for line in lines:
        print_line(console, line)


def _checks(decision: Mapping[str, Any], console: Console) -> None:
    """A line for each check, and under what did not pass its words; most vetoes share a line."""
    vetoes = ranked([one for one in decision["checks"] if one["veto"]])
    calm = [one for one in vetoes if one["outcome"] == "pass"]
    calm = calm if len(calm) > VETOES else []
    loud = [one for one in vetoes if one not in calm]
    shown = [*(one for one in decision["checks"] if not one["veto"]), *loud[:VETOES]]
    lines = columns([_cells(check) for check in shown], align="lrl") if shown else []
    reasons = 0
    for check, line in zip(shown, lines, strict=True):
        _outcome(check["outcome"], line, console)
        if check["outcome"] != "pass" and (reasons := reasons + 1) <= REASONS:
            print_paragraph(check["reason"], console, indent=4, style="dim")
    if len(loud) > VETOES:
        more = len(loud) - VETOES
        print_line(console, f"  and {more} more veto{'es' if more > 1 else ''}, in the report")
    if calm:
        _outcome("pass", f"{len(calm)} vetoes; closest: {_briefly(calm[0])}", console)
    if charged := verdict.charge(decision):
        print_paragraph(charged, console, indent=2)


def _briefly(check: Mapping[str, Any]) -> str:
    estimate, bounds, must = verdict.interval_parts(check)
    against = f"against {must.rpartition(' ')[2]}" if must else ""
    words = " ".join(filter(None, [estimate, bounds.rstrip(","), against]))
    return ", ".join(filter(None, [str(check["name"]), words]))


def _cells(check: Mapping[str, Any]) -> list[str]:
    estimate, bounds, must = verdict.interval_parts(check)
    return [check["name"], estimate, " ".join(filter(None, [bounds, must]))]


def _outcome(outcome: str, line: str, console: Console) -> None:
    text = Text("  ")
    text.append(f"{outcome.replace('_', ' '):<14}", style=COLOURS.get(outcome, "yellow"))
    text.append(f" {line}")
    text.rstrip()
    console.print(text, soft_wrap=True)


def _paths(result: Mapping[str, Any], console: Console) -> None:
    places = {
        "report": result["report"],
        "run": result["tracking"]["url"] or result["tracking"]["directory"],
    }
    for name, path in places.items():
        if path:
            shown = path if "://" in path else from_here(Path(path))
            print_line(console, f"  {name + ':':<8}{shown}")
    print_line(console, f"  exit:   {result['exit_code']}")


def print_line(console: Console, text: str = "", *, style: str = "") -> None:
    """One line, left to the terminal to fold: a path must stay whole in a file."""
    console.print(Text(text, style=style), soft_wrap=True)


def print_paragraph(text: str, console: Console, *, indent: int = 0, style: str = "") -> None:
    """Sentences, folded to the terminal's width."""
    for line in paragraph(text, width=console.width, indent=indent):
        print_line(console, line, style=style)


def _table(metrics: Mapping[str, Any], task: Mapping[str, str]) -> list[list[str]]:
    """The score before and after: new, history, and of many single holdouts the worst changes."""
    score, unit = task["score"], task["unit"]
    shown = score.replace("_", " ")
    rows = [[f"{shown} on", "rows", "champion", "candidate", "difference"]]
    parts = [name for name in metrics["champion"] if name in ("new", "history")]
    single = [name for name in metrics["champion"] if name.startswith("history/")]

    def change(name: str) -> float:
        before, after = (metrics[who][name] for who in ("champion", "candidate"))
        return float(after[score] - before[score])

    if len(single) > HOLDOUTS:
        worst = sorted(single, key=change)[: HOLDOUTS - 1]
        folded = [name for name in single if name not in worst]
        single = [name for name in single if name in worst]
    else:
        folded = []
    for name in parts + (single if len(single) > 1 else []):
        before, after = (metrics[who][name] for who in ("champion", "candidate"))
        rows.append(
            [
                name,
                f"{before['n']:,}",
                level(before[score], unit),
                level(after[score], unit),
                gain(change(name), unit),
            ]
        )
    if folded:
        least = gain(min(map(change, folded)), unit)
        rows.append([f"{len(folded)} more holdouts", "", "", "", f"from {least} up"])
    return rows
