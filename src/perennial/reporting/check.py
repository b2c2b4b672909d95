"""The description of a data set on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from perennial.notation import percent
from perennial.reporting.console import print_table

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
    _line(
        console,
        f"data.new: {found['rows']:,} rows{beside}, for {found['champion'] or 'a first version'}",
    )
    _line(console)
    print_table(_columns(found), align="llrrll", console=console)
    _line(console)
    print_table(_labels(found), align="lrr", console=console)
    _line(console)
    for line in _lines(found):
        _line(console, line)
    _line(console)
    if found["decides"] is None:
        _line(console, "IN ORDER")
        return
    _line(console, "THE GATE COULD NOT DECIDE")
    for key in ("what", "where", "mend"):
        _line(console, f"  {key + ':':<7}{found['decides'][key]}")


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


def _labels(found: Mapping[str, Any]) -> list[list[str]]:
    new, old = found["labels"]["new"], found["labels"].get("history", {})
    rows = [["label", "new", "history"]]
    totals = [sum(part.values()) or 1 for part in (new, old)]
    for name in list(new)[:CLASSES]:
        counts = [part.get(name, 0) for part in (new, old)]
        shares = [
            f"{count:,} ({percent(count / total)})" if part else ""
            for count, total, part in zip(counts, totals, (new, old), strict=True)
        ]
        rows.append([name + (" (new)" if name in found["new_classes"] else ""), *shares])
    if len(new) > CLASSES:
        rows.append([f"and {len(new) - CLASSES} others", "", ""])
    return rows


def _lines(found: Mapping[str, Any]) -> list[str]:
    told = []
    if found["label_shift"] is not None:
        told.append(f"labels: PSI {found['label_shift']:.2f} against history")
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


def _line(console: Console, text: str = "") -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
