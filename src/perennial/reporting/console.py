"""The end of a cycle on a terminal: one table, the checks, the verdict, the paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

COLOURS = {
    "promoted": "bold green",
    "rejected": "bold red",
    "inconclusive": "bold yellow",
    "skipped": "bold blue",
    "failed": "bold red",
    "pass": "green",
    "reject": "red",
}
VERDICTS = {
    "promoted": "the candidate is better and has forgotten nothing that matters",
    "rejected": "the champion stays",
    "inconclusive": "the champion stays: the rows do not decide",
}


def print_result(result: Mapping[str, Any], console: Console) -> None:
    """Print a result as a person wants to see it.

    Args:
        result: As ``result.json`` keeps it.
        console: Where to; colours only on a terminal.
    """
    status = str(result["status"])
    console.print()
    if result["metrics"]:
        console.print(_table(result["metrics"]))
    decision = result["decision"]
    for check in decision["checks"] if decision and result["metrics"] else ():
        line = Text("  ")
        line.append(f"{check['outcome']:<13}", style=COLOURS.get(check["outcome"], "yellow"))
        line.append(f"{check['name']:<12} ")
        line.append(_interval(check))
        console.print(line)
        console.print(Padding(Text(check["reason"], style="dim"), (0, 0, 0, 4)))
    console.print()
    console.print(Text(status.upper(), style=COLOURS[status]))
    reason = VERDICTS.get(status, "") if result["metrics"] else result["trigger"]["reason"]
    if status == "failed":
        reason = "registry and champion are as they were"
    console.print(Padding(Text(_sentence(result, reason)), (0, 0, 0, 2)))
    if result["error"]:
        for name in ("what", "where", "mend"):
            if result["error"][name]:
                console.print(Text(f"  {name + ':':<7}{result['error'][name]}"), soft_wrap=True)
    _paths(result, console)


def _sentence(result: Mapping[str, Any], reason: str) -> str:
    decision = result["decision"]
    held_back = decision and decision["verdict"] == "promoted" and not decision["applied"]
    if held_back and result["status"] == "promoted":
        reason += "; the alias stays where it is (promote=false)"
    names = [result[who]["id"] for who in ("champion", "candidate") if result[who]]
    return f"{' → '.join(names)}: {reason}" if names else reason


def _paths(result: Mapping[str, Any], console: Console) -> None:
    shown = {
        "report": result["report"],
        "run": result["tracking"]["url"] or result["tracking"]["directory"],
    }
    for name, path in shown.items():
        if path:
            console.print(Text(f"  {name + ':':<8}{path}"), soft_wrap=True)
    console.print(Text(f"  exit:   {result['exit_code']}"))


def _table(metrics: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("accuracy on")
    for name in ("rows", "champion", "candidate", "difference"):
        table.add_column(name, justify="right")
    parts = [name for name in metrics["champion"] if name in ("new", "history")]
    single = [name for name in metrics["champion"] if name.startswith("history/")]
    for name in parts + (single if len(single) > 1 else []):
        before, after = (metrics[who][name] for who in ("champion", "candidate"))
        change = after["accuracy"] - before["accuracy"]
        table.add_row(
            name,
            f"{before['n']:,}",
            f"{before['accuracy']:.1%}",
            f"{after['accuracy']:.1%}",
            f"{100 * change:+.1f} points",
        )
    return table


def _interval(check: Mapping[str, Any]) -> str:
    if check["estimate"] is None:
        return ""
    low, high = (100 * bound for bound in check["interval"])
    return (
        f"{100 * check['estimate']:+.1f} points [{low:+.1f}, {high:+.1f}], "
        f"must be above {100 * check['threshold']:+.1f}"
    )
