"""The description of a data set on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from perennial.notation import percent
from perennial.reporting.console import print_line, print_table

CLASSES = 20
# by custom: below 0.1 a column has stayed where it was, from 0.25 on it has moved far
SMALL, LARGE = 0.1, 0.25


def print_check(found: Mapping[str, Any], console: Console) -> None:
    """Print what `perennial.steps.check.check_data` found.

    Args:
        found: Its plain values.
        console: Where to.
    """
    beside = f" beside {found['history_rows']:,} of history" if found["history_rows"] else ""
    print_line(
        console,
        f"data.new: {found['rows']:,} rows{beside}, for {found['champion'] or 'a first version'}",
    )
    print_line(console)
    print_table(_columns(found), align="llrrll", console=console)
    print_line(console)
    if target := _target(found):
        print_table(target, align="lrr", console=console)
        print_line(console)
    for line in _lines(found):
        print_line(console, line)
    print_line(console)
    if not found["unmet"]:
        print_line(console, "NOTHING NEW")
        print_line(console, "  the lineage has met every row of data.new: a cycle would be skipped")
        return
    if found["decides"] is None:
        print_line(console, "IN ORDER")
        return
    print_line(console, "THE GATE COULD NOT DECIDE")
    for key in ("what", "where", "mend"):
        print_line(console, f"  {key + ':':<7}{found['decides'][key]}")


def _columns(found: Mapping[str, Any]) -> list[list[str]]:
    rows = [["column", "kind", "missing", "distinct", "values", "against history"]]
    for one in found["columns"]:
        distinct = "" if one["distinct"] is None else f"{one['distinct']:,}"
        cells = [one["name"], one["kind"], f"{one['missing']:,}", distinct, one["range"]]
        rows.append([*cells, _moved(one["shift"])])
    return rows


def _moved(shift: Mapping[str, float]) -> str:
    if not shift:
        return ""
    told = []
    if "psi" in shift:
        psi = shift["psi"]
        word = "as before" if psi < SMALL else "moved" if psi < LARGE else "moved far"
        told.append(f"{word}, PSI {psi:.2f}")
    if "ks" in shift:
        told.append(f"KS {shift['ks']:.2f}")
    if shift.get("unseen"):
        told.append(f"{percent(shift['unseen'])} never seen")
    return ", ".join(told)


def _target(found: Mapping[str, Any]) -> list[list[str]]:
    """What the targets are, one row for each class or measure."""
    target = found["target"]
    parts = [target["new"], target.get("history")]
    if target["kind"] == "number":
        rows = [["target", "new", "history"]]
        for level in parts[0]["quantiles"]:
            name = {"0.0": "least", "0.5": "median", "1.0": "most"}.get(level)
            told = [f"{part['quantiles'][level]:.6g}" if part else "" for part in parts]
            rows.append([name or f"{percent(float(level))} below", *told])
        return rows
    if target["kind"] == "item":
        items = [f"{part['items']:,}" if part else "" for part in parts]
        head = [percent(part["head"]) if part else "" for part in parts]
        return [
            ["target", "new", "history"],
            ["items", *items],
            ["share of the ten most frequent", *head],
        ]
    return _labels(parts, found["new_classes"], target["kind"])


def _labels(parts: Any, new_classes: Any, kind: str) -> list[list[str]]:
    counts = parts[0].get("counts", {})
    if not counts:
        return []
    unit = {"tokens": "label of a position", "classes": "label (share of rows)"}
    rows = [[unit.get(kind, "label"), "new", "history"]]
    for name in list(counts)[:CLASSES]:
        shares = [_share(part, name) for part in parts]
        rows.append([name + (" (new)" if name in new_classes else ""), *shares])
    if len(counts) > CLASSES:
        rows.append([f"and {len(counts) - CLASSES} others", "", ""])
    return rows


def _share(part: Any, name: str) -> str:
    if not part:
        return ""
    count = part["counts"].get(name, 0)
    return f"{count:,} ({percent(count / max(part['total'], 1))})"


def _lines(found: Mapping[str, Any]) -> list[str]:
    told = []
    if shift := _moved(found["target"]["shift"]):
        told.append(f"targets against history: {shift}")
    if found["time"] is not None:
        told.append(f"time: {found['time'][0]} to {found['time'][1]}")
    told.append(
        f"repetitions: {found['duplicates']:,} rows within, {found['learned']:,} that the lineage "
        "has learned"
    )
    if found["contradictions"]:
        told.append(
            f"contradictions: {found['contradictions']:,} rows have the features of another row, "
            "and another label"
        )
    for name, leak in found["leaks"].items():
        told.append(
            f"holdout {name}: {leak['tied']:,} rows are tied to it (id, content, group), "
            f"{leak['same_features']:,} have the features of one of its rows"
        )
    split = found["split"]
    told.append(
        f"split: {split['train']:,} to train, {split['validation']:,} to validate, "
        f"{split['holdout']:,} held out, {split['left_out']:,} left out"
    )
    return [*told, *found["notes"]]
