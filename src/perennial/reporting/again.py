"""A decision on stored predictions, on a terminal: each check as it was then and as it is now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from perennial.reporting import verdict
from perennial.reporting.console import COLOURS, print_paragraph, print_table

ABSENT = "not asked"


def print_again(result: Mapping[str, Any], console: Console) -> None:
    """Print what changed, the checks, and the verdict.

    Args:
        result: As `perennial.steps.again.result_again` gives it.
        console: Where to.
    """
    before, decision = result["before"], result["decision"]
    day = before["decided_at"][:16].replace("T", " ")
    print_paragraph(
        f"{result['candidate']['id']} against {result['champion']['id']}, {before['verdict']} on "
        f"{day} UTC",
        console,
    )
    for name, (old, new) in result["changes"].items():
        print_paragraph(f"{name}: {_shown(old)} then, {_shown(new)} now", console, indent=2)
    rows = compared(before["decision"]["checks"], decision["checks"])
    print_table([["then", "now", "check", ""], *rows], align="llll", console=console)
    for check in decision["checks"]:
        if check["outcome"] not in ("pass", "waived"):
            print_paragraph(check["reason"], console, indent=2)
    if charged := verdict.charge(decision):
        print_paragraph(charged, console, indent=2)
    console.print()
    _title(result, console)
    print_paragraph(sentence(result), console, indent=2)
    if result["report"]:
        console.print(f"  report: {result['report']}", highlight=False, soft_wrap=True)
    console.print(f"  exit:   {result['exit_code']}", highlight=False)


def sentence(result: Mapping[str, Any]) -> str:
    """What the decision means: for who serves where it was recorded, else for the candidate.

    Args:
        result: As `perennial.steps.again.result_again` gives it.
    """
    if result["recorded"]:
        return verdict.sentence(result)
    champion, candidate = result["champion"]["id"], result["candidate"]["id"]
    kept = f"nothing was recorded, and {result['serves']} serves as before"
    if promoting := result["promoting"]:
        kept += (
            f"; promote=true records it as decision {promoting['decision_number']} on these new "
            f"rows, each test at {promoting['alpha']:.2g}"
        )
        if promoting["verdict"] != result["status"]:
            kept += f", and would be {promoting['verdict']}"
    if result["status"] == "promoted":
        return f"{candidate} passes every check against {champion}; {kept}"
    # of who serves this says nothing: a decision that is not recorded changes nothing
    _, _, why = verdict.sentence(result).partition("; ")
    return f"{why}; {kept}"


def _title(result: Mapping[str, Any], console: Console) -> None:
    status, before = str(result["status"]), result["before"]["verdict"]
    line = Text(status.upper(), COLOURS[status])
    if status != before:
        line.append(f" (was {before})", style="default not bold")
    console.print(line)


def compared(then: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[list[str]]:
    """Rows of a table: outcome then, outcome now, name, and estimate with bounds.

    Vetoes that pass, or pass and are not asked the other time, are one row of a kind.

    Args:
        then: Checks of the recorded decision.
        now: Checks of the new one.
    """
    before = {check["name"]: check for check in then}
    after = {check["name"]: check for check in now}
    rows: list[list[str]] = []
    quiet: Counter[tuple[str, str]] = Counter()
    for name in dict.fromkeys([*after, *before]):
        old, new = before.get(name), after.get(name)
        was, now_is = (check["outcome"] if check else ABSENT for check in (old, new))
        if (new or old or {})["veto"] and {was, now_is} <= {"pass", ABSENT}:
            quiet[was, now_is] += 1
            continue
        rows.append([was, now_is, name, verdict.interval(new) if new else ""])
    return rows + [
        [was, now_is, f"{count} veto{'es' if count > 1 else ''}", ""]
        for (was, now_is), count in quiet.items()
    ]


def _shown(value: Any) -> str:
    """A setting's value as it is written in YAML."""
    if isinstance(value, Mapping):
        told = [f"{name}={_shown(one)}" for name, one in value.items() if one is not None]
        return f"({', '.join(told)})"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "not set" if value is None else str(value)
