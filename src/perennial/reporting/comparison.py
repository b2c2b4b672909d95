"""A comparison of runs as plain values, and as a table on a terminal.

Takes what `perennial.tracking.compare` found by its attributes, so that neither imports the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.text import Text

from perennial.notation import level, points
from perennial.reporting.console import COLOURS, print_paragraph, print_table

PARTS = ("new", "history")
# on a terminal
ROWS, SETTINGS, UNREAD, WIDE, ROUNDED = 60, 8, 12, 24, 8


class Compared(Protocol):
    """A comparison: see ``perennial.tracking.compare.table.Comparison``."""

    @property
    def rows(self) -> Any:
        """Runs in their order."""

    @property
    def unread(self) -> Any:
        """Runs of which there is nothing to compare."""

    @property
    def score(self) -> Any:
        """By which they are compared."""

    @property
    def reference(self) -> Any:
        """The run that differences are from."""

    @property
    def champion(self) -> Any:
        """Id and levels of the one that all were decided against."""

    @property
    def settings(self) -> Any:
        """Keys of the settings that differ."""

    @property
    def notes(self) -> Any:
        """Sentences."""


def to_dict(found: Compared) -> dict[str, Any]:
    """The comparison as plain values, for ``--json``."""
    score = found.score
    return {
        "schema_version": 1,
        "score": None if score is None else {"name": score.name, "unit": score.unit},
        "reference": None if found.reference is None else found.reference.name,
        "champion": None
        if found.champion is None
        else {"id": found.champion[0], "levels": _plain(found.champion[1])},
        "runs": [
            {
                "run": row.run.name,
                "version": row.run.candidate,
                "model_name": row.run.result["model_name"],
                "created": row.run.result["created"],
                "verdict": row.run.verdict,
                "remark": row.run.remark,
                "levels": _plain(row.levels),
                "difference": _plain(row.against),
                "metrics": (row.run.result["metrics"] or {}).get("candidate"),
                "settings": dict(row.settings),
                "cost": row.run.result["cost"],
            }
            for row in found.rows
        ],
        "unread": [{"run": one.name, "why": one.why} for one in found.unread],
        "notes": list(found.notes),
    }


def print_comparison(found: Compared, console: Console, *, names: Mapping[str, str]) -> None:
    """Print the table, what could not be read, and what a reader must know.

    Args:
        found: The comparison.
        console: Where to; colours only on a terminal.
        names: Key of a setting that differs to its short name.
    """
    if found.rows:
        table = _table(found, names)
        print_table(table, align="ll" + "r" * (len(table[0]) - 2), console=console)
    else:
        console.print("No run to show.", highlight=False)
    for line in _below(found):
        print_paragraph(line, console, indent=2)
    if found.unread:
        console.print(Text(f"\nNothing to compare in {len(found.unread)} more:", style="bold"))
        for one in found.unread[:UNREAD]:
            head = one.why.partition(":")[0]
            told = Text(f"  {one.name}  ")
            told.append(one.why, style=COLOURS.get(head, ""))
            console.print(told, soft_wrap=True)
        if len(found.unread) > UNREAD:
            console.print(f"  and {len(found.unread) - UNREAD} more, in --json", highlight=False)


def label(run: Any) -> str:
    """What a run is called: its version and its folder, as far as there are any."""
    named = [] if run.candidate is None else [run.candidate]
    return " ".join([*named, *([run.name] if run.name not in named else [])])


def brief(run: Any) -> str:
    """Its version, else its folder."""
    return str(run.candidate or run.name)


def verdict(run: Any) -> str:
    """The verdict with its remark."""
    return f"{run.verdict} ({run.remark})" if run.remark else str(run.verdict)


def shown_level(one: Any, unit: str) -> str:
    """A level with its bounds: ``95.3% [93.7, 96.7]``."""
    if one is None:
        return ""
    return f"{level(one.value, unit)}{_bounds(one, unit)}"


def shown_gain(one: Any, unit: str) -> str:
    """A difference with its bounds: ``+1.2 [0.1, 2.4]``."""
    if one is None:
        return ""
    value = points(one.value) if unit == "points" else f"{one.value:+.3g}"
    return f"{value}{_bounds(one, unit, signed=True)}"


def shown_setting(key: str, value: Any) -> str:
    """A setting's value as one writes it on a command line; a dash where it is not there."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    if isinstance(value, float) and len(text) > ROUNDED:  # --json has it whole
        text = f"{value:.4g}"
    if key.endswith("_target_"):  # a constructor is known by its last name
        text = text.rsplit(".", 1)[-1]
    return text if len(text) <= WIDE else f"…{text[1 - WIDE :]}"


def _bounds(one: Any, unit: str, *, signed: bool = False) -> str:
    if one.interval is None:
        return ""
    low, high = one.interval
    if unit != "points":
        return f" [{low:.3g}, {high:.3g}]"
    if signed:
        return f" [{points(low)}, {points(high)}]"
    return f" [{100 * low:.1f}, {100 * high:.1f}]"


def _table(found: Compared, names: Mapping[str, str]) -> list[list[str]]:
    unit = found.score.unit if found.score else ""
    parts = [part for part in PARTS if any(part in row.levels for row in found.rows)]
    pairs = [part for part in PARTS if any(part in row.against for row in found.rows)]
    keys = _most_telling(found)
    head = ["run", "verdict", *parts, *(f"{part}, paired" for part in pairs)]
    table = [[*head, *(names[key] for key in keys), "steps", "time"]]
    for row in found.rows[:ROWS]:
        cost = row.run.result["cost"] or {}
        table.append(
            [
                label(row.run),
                verdict(row.run),
                *(shown_level(row.levels.get(part), unit) for part in parts),
                *(_pair(found, row, part, unit) for part in pairs),
                *(shown_setting(key, row.settings.get(key)) for key in keys),
                f"{cost['optimizer_steps']:,}" if cost else "",
                f"{cost['wall_seconds']:,.3g} s" if cost else "",
            ]
        )
    if found.champion is not None:
        name, levels = found.champion
        cells = [
            f"{name}, the champion of all",
            "",
            *(shown_level(levels.get(p), unit) for p in parts),
        ]
        table.append(cells + [""] * (len(table[0]) - len(cells)))
    return table


def _pair(found: Compared, row: Any, part: str, unit: str) -> str:
    if row.run is found.reference:
        return "reference"
    return shown_gain(row.against.get(part), unit)


def _most_telling(found: Compared) -> list[str]:
    """Of many settings that differ those with the most values, in the order of their names."""
    values = {key: {str(row.settings.get(key)) for row in found.rows} for key in found.settings}
    kept = sorted(values, key=lambda key: -len(values[key]))[:SETTINGS]
    return [key for key in found.settings if key in kept]


def _below(found: Compared) -> list[str]:
    told: list[str] = []
    if len(found.rows) > ROWS:
        told.append(f"and {len(found.rows) - ROWS} more runs, in the page and in --json")
    if len(found.settings) > SETTINGS:
        told.append(f"{len(found.settings) - SETTINGS} more settings differ; --json has them")
    if found.rows and found.score is not None:
        told.append(explained(found))
    return [*told, *found.notes]


def explained(found: Compared) -> str:
    """What the figures are."""
    name = found.score.name.replace("_", " ")
    told = f"{name[:1].upper()}{name[1:]} of the candidate on held-out rows"
    if found.score.unit == "points":
        told += ", differences in points"
    if found.reference is not None and any(row.against for row in found.rows):
        told += (
            f", paired: minus {brief(found.reference)} on the very rows that both were scored on"
        )
    return f"{told}. Each bound is one-sided at 95%; nothing here is corrected for many looks."


def _plain(levels: Mapping[str, Any]) -> dict[str, Any]:
    return {part: one.to_dict() for part, one in levels.items()}
