"""The end of a cycle on a terminal: one table, the checks, the verdict, the paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from perennial.notation import percent, points
from perennial.reporting import verdict
from perennial.reporting.layout import columns, paragraph

COLOURS = {
    "promoted": "bold green",
    "rejected": "bold red",
    "inconclusive": "bold yellow",
    "skipped": "bold blue",
    "failed": "bold red",
    "pass": "green",
    "reject": "red",
}
HELD_BACK = "bold yellow"


def print_result(result: Mapping[str, Any], console: Console) -> None:
    """Print a result as a person wants to see it.

    Args:
        result: As ``result.json`` keeps it.
        console: Where to; colours only on a terminal.
    """
    status = str(result["status"])
    if result["metrics"]:
        _line(console)
        print_table(_table(result["metrics"]), align="lrrrr", console=console)
        _checks(result["decision"], console)
    _line(console)
    style = HELD_BACK if verdict.held_back(result) else COLOURS[status]
    head, brackets, tail = verdict.title(result).partition(" (")
    _line(console, head.upper() + brackets + tail, style=style)
    _paragraph(verdict.sentence(result), console, indent=2)
    if result["error"]:
        for name in ("what", "where", "mend"):
            if result["error"][name]:
                _line(console, f"  {name + ':':<7}{result['error'][name]}")
    _paths(result, console)


def print_table(rows: Sequence[Sequence[str]], *, align: str, console: Console) -> None:
    """Print rows in aligned columns, the header first.

    Args:
        rows: Cells; see `perennial.reporting.layout.columns`.
        align: ``l`` or ``r`` for each column.
        console: Where to.
    """
    header, *lines = columns(rows, align=align)
    _line(console, header, style="bold")
    for line in lines:
        _line(console, line)


def _checks(decision: Mapping[str, Any], console: Console) -> None:
    width = max((len(check["name"]) for check in decision["checks"]), default=0)
    for check in decision["checks"]:
        line = Text("  ")
        line.append(f"{check['outcome']:<13}", style=COLOURS.get(check["outcome"], "yellow"))
        line.append(f"{check['name']:<{width}}  {verdict.interval(check)}")
        line.rstrip()
        console.print(line, soft_wrap=True)
        _paragraph(check["reason"], console, indent=4, style="dim")
    if charged := verdict.charge(decision):
        _paragraph(charged, console, indent=2)


def _paths(result: Mapping[str, Any], console: Console) -> None:
    shown = {
        "report": result["report"],
        "run": result["tracking"]["url"] or result["tracking"]["directory"],
    }
    for name, path in shown.items():
        if path:
            _line(console, f"  {name + ':':<8}{path}")
    _line(console, f"  exit:   {result['exit_code']}")


def _line(console: Console, text: str = "", *, style: str = "") -> None:
    """One line, left to the terminal to fold: a path must stay whole in a file."""
    console.print(Text(text, style=style), soft_wrap=True)


def _paragraph(text: str, console: Console, *, indent: int, style: str = "") -> None:
    for line in paragraph(text, width=console.width, indent=indent):
        _line(console, line, style=style)


def _table(metrics: Mapping[str, Any]) -> list[list[str]]:
    rows = [["accuracy on", "rows", "champion", "candidate", "difference"]]
    parts = [name for name in metrics["champion"] if name in ("new", "history")]
    single = [name for name in metrics["champion"] if name.startswith("history/")]
    for name in parts + (single if len(single) > 1 else []):
        before, after = (metrics[who][name] for who in ("champion", "candidate"))
        rows.append(
            [
                name,
                f"{before['n']:,}",
                percent(before["accuracy"]),
                percent(after["accuracy"]),
                f"{points(after['accuracy'] - before['accuracy'])} points",
            ]
        )
    return rows
