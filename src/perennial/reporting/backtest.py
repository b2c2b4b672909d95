"""The end of a backtest: a table on the terminal, ``backtest.json`` and ``backtest.html``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console

from perennial import files
from perennial.paths import from_here
from perennial.reporting import backtest_plots as plots
from perennial.reporting.console import print_line, print_paragraph, print_table
from perennial.reporting.result import json_safe
from perennial.reporting.template import pages

BACKTEST, PAGE = "backtest.json", "backtest.html"


def spread(sizes: Sequence[int]) -> str:
    """Sizes in words.

    Examples:
        >>> spread([1200, 900, 1000]), spread([1000, 1000])
        ('900 to 1,200', '1,000')
    """
    least, most = min(sizes), max(sizes)
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"


def write_backtest(folder: Path, told: Mapping[str, Any]) -> None:
    """Write record and page durably."""
    files.write_json(folder / BACKTEST, json_safe(told))
    files.write_bytes(folder / PAGE, render_backtest(told).encode())


def print_backtest(told: Mapping[str, Any], console: Console) -> None:
    """Print what each policy came to, which one is recommended, and where the page is.

    Args:
        told: As ``backtest.json`` keeps it.
        console: Where to.
    """
    console.print()
    names = columns(told)
    rows = [[words for _, words in names]]
    rows += [[cell(one, name, told) for name, _ in names] for one in told["policies"]]
    print_table(rows, align="l" + "r" * (len(names) - 1), console=console)
    print_paragraph(footnote(told), console, style="dim")
    console.print()
    print_paragraph(sentence(told), console, style="bold")
    for line in against(told):
        print_paragraph(line, console, indent=2)
    print_line(console, f"  page:   {from_here(Path(told['folder']) / PAGE)}")
    print_line(console, f"  record: {from_here(Path(told['folder']) / BACKTEST)}")


def columns(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Keys and headers of the table; money where some is counted."""
    named = [
        ("policy", "policy"),
        ("mean", told["metric"]),
        ("gain", "over never"),
        ("share", "of the best"),
        ("promoted", "promoted"),
        ("device_seconds", "device-seconds"),
        ("train_rows", "rows trained"),
        ("labels", "labels"),
    ]
    money = told["policies"][0]["money"]
    words = {"device_cost": "for the device", "label_cost": "for labels"}
    return named + [(n, words.get(n, n)) for n, known in money.items() if known is not None]


def cell(account: Mapping[str, Any], name: str, told: Mapping[str, Any]) -> str:
    """One value of the table in words.

    Args:
        account: Of a policy.
        name: A key of `columns`.
        told: As ``backtest.json`` keeps it.
    """
    if name == "policy":
        chosen = account["policy"] == told["recommendation"]["policy"]
        return f"{account['policy']} *" if chosen else str(account["policy"])
    if name == "mean":
        return f"{account['mean']:.4f}"
    if name == "gain":
        return f"{account['gain']:+.4f}"
    if name == "share":
        return "" if account["share"] is None else f"{account['share']:.0%}"
    if name == "promoted":
        return f"{account['promoted']} of {account['cycles']}"
    if name == "device_seconds":
        return f"{account['device_seconds']:.1f}"
    if name in account["money"]:
        return f"{account['money'][name]:,.2f}"
    return f"{account[name]:,}"


def sentence(told: Mapping[str, Any]) -> str:
    """The recommendation.

    Args:
        told: As ``backtest.json`` keeps it.
    """
    found = told["recommendation"]
    own, best = (account(told, found[which]) for which in ("policy", "best"))
    windows = f"{len(told['windows'])} windows"
    if own["policy"] == "never" and found["by"] == "money":
        return f"Take never: over these {windows} no policy earns what it costs."
    if found["by"] == "money":
        net = f"{own['money']['net']:,.2f}"
        return (
            f"Take {own['policy']}: over these {windows} it came out {net} above never retraining, "
            "counted costs paid."
        )
    if own["policy"] == "never":
        return f"Take never: no policy gains over it in these {windows}."
    if own is best:
        return (
            f"Take {own['policy']}: in these {windows} it gains most over never, and none that "
            f"keeps {told['kept']:.0%} of that takes fewer device-seconds."
        )
    cost = own["device_seconds"] / best["device_seconds"]
    return (
        f"Take {own['policy']}: in these {windows} it keeps {own['share']:.0%} of what "
        f"{best['policy']} gains over never, for {cost:.0%} of its device-seconds."
    )


def against(told: Mapping[str, Any]) -> list[str]:
    """What can be told of the recommended policy against the others.

    Args:
        told: As ``backtest.json`` keeps it.
    """
    found = told["recommendation"]
    sure = [one for one in found["differences"] if one["told_apart"]]
    open_ = [one["policy"] for one in found["differences"] if not one["told_apart"]]
    lines = []
    for words, above in (("Above", True), ("Below", False)):
        named = [
            f"{one['policy']} by {_interval(one)}" for one in sure if (one["mean"] > 0) == above
        ]
        if named:
            lines.append(f"{words} {', '.join(named)} a window.")
    lines += _failures(told)
    if open_:
        lines.append(f"Cannot be told apart from {_listed(open_)}.")
    if "never" in open_:
        lines.append(
            "So these windows do not show that retraining pays; more or larger ones might."
        )
    return lines


def _failures(told: Mapping[str, Any]) -> list[str]:
    """Cycles that could not use their rows, and triggers that could not look at them."""
    lines = []
    for one in told["policies"]:
        steps = one["windows"]
        failed = [s for s in steps if s["cycle"] and s["cycle"]["verdict"] == "failed"]
        blind = [s for s in steps if s["trigger"] and s["trigger"]["evidence"].get("failed")]
        if failed:
            reason = failed[0]["cycle"]["reason"]
            lines.append(f"{one['policy']}: the cycle after {_after(failed)} failed. {reason}")
        if blind:
            lines.append(f"{one['policy']}, after {_after(blind)}: {blind[0]['trigger']['reason']}")
    return lines


def _after(steps: Sequence[Mapping[str, Any]]) -> str:
    return _listed([str(step["window"]) for step in steps])


def footnote(told: Mapping[str, Any]) -> str:
    """What the numbers are, and what is not counted.

    Args:
        told: As ``backtest.json`` keeps it.
    """
    prices = {
        "cost.device_hour": told["prices"]["device_hour"],
        "cost.label": told["prices"]["label"],
        "value.per_point": told["prices"]["per_point"],
    }
    missing = [key for key, price in prices.items() if price is None]
    money = f" Not counted in money, being null: {', '.join(missing)}." if missing else ""
    better = "" if told["higher_is_better"] else ", lower is better"
    return (
        f"* recommended. {told['metric']}{better}: mean over the windows, each scored before the "
        "version learns of it. Device-seconds are those of training after the first version, which "
        f"all policies share; labels are distinct rows.{money}"
    )


def account(told: Mapping[str, Any], policy: str) -> Mapping[str, Any]:
    """A policy's own part of the record."""
    found: Mapping[str, Any] = next(one for one in told["policies"] if one["policy"] == policy)
    return found


def _interval(difference: Mapping[str, Any]) -> str:
    low, high = sorted(abs(end) for end in difference["interval"])
    return f"{abs(difference['mean']):.4g} ({low:.4g} to {high:.4g})"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def render_backtest(told: Mapping[str, Any]) -> str:
    """The page: HTML without scripts and without references to anything outside itself.

    Args:
        told: As ``backtest.json`` keeps it.
    """
    return (
        pages()
        .get_template("backtest.html.j2")
        .render(
            told=told,
            lead=sentence(told),
            against=against(told),
            footnote=footnote(told),
            columns=columns(told),
            cell=lambda one, name: cell(one, name, told),
            key=[(one["policy"], plots.look(told, one["policy"])) for one in told["policies"]],
            courses=Markup(plots.courses(told)),  # noqa: S704
            costs=Markup(plots.costs(told)),  # noqa: S704
            settings=_settings(told),
        )
    )


def _settings(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    timeline = told["timeline"]
    sizes = [window["rows"] for window in told["windows"]]
    return [
        ("windows", f"{timeline['key']} {timeline['first']} to {timeline['last']}"),
        ("rows of a window", spread(sizes)),
        ("rows that found the lineage", f"{told['founding_rows']:,}"),
        ("length of a window", f"{timeline['days']:g} days"),
        ("labels are there after", f"{timeline['label_delay']} windows"),
        ("serves", "what the gate promotes" if timeline["promotion"] == "gate" else "every one"),
    ]
