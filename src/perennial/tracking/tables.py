"""Tables beside a run: parts of the rows, and the rows on which one model alone is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from perennial.types import EvaluationReport, Strings

FLIPPED_ROWS = 200
# a column with more values is an id or a number; the gate refuses to look at it, too
MOST_VALUES = 50


@dataclass(frozen=True)
class Table:
    """Columns and rows of plain values."""

    columns: tuple[str, ...]
    rows: list[list[Any]]


def slices(report: EvaluationReport) -> Table:
    """Mean score of both models on each part of new rows and of history, and its row count.

    Parts are those by the slice columns, and by true label where a row is of one class.
    """
    columns: dict[str, Strings] = {
        name: values
        for name, values in sorted(report.slices.items())
        if len(np.unique(values)) <= MOST_VALUES
    }
    if report.has_one_class:
        columns["class"] = np.array(report.label_names)[report.label]
    rows: list[list[Any]] = []
    for part, within in (("new", report.is_new), ("history", ~report.is_new)):
        for column, values in columns.items():
            for value in np.unique(values[within & (values != "")]).tolist():
                mask = within & (values == value)
                champion = float(report.champion.score[mask].mean())
                candidate = float(report.candidate.score[mask].mean())
                rows.append(
                    [part, column, value, int(mask.sum()), champion, candidate,
                     candidate - champion]
                )  # fmt: skip
    named = ("rows", "column", "value", "n", "champion", "candidate", "change")
    return Table(named, rows)


def checks(decision: Mapping[str, Any]) -> Table:
    """Every question that the gate asked, as it was answered.

    Args:
        decision: As ``result.json`` keeps it.
    """
    names = ("name", "outcome", "estimate", "lower", "upper", "threshold", "n", "p_value", "unit")
    rows = []
    for check in decision["checks"]:
        lower, upper = check["interval"] or (None, None)
        each = {**check, "lower": lower, "upper": upper}
        rows.append([each[name] for name in names])
    return Table(names, rows)


def flips(report: EvaluationReport, *, most: int = FLIPPED_ROWS) -> Table:
    """Rows that one model alone has right: ids and answers, and none of the row's features.

    Empty where a row is not of one class, which is met or missed.

    Args:
        report: Both models row by row.
        most: Rows at most. Where there are more, each of lost and gained rows of history and of new
            rows gets a like share, and the first ones stand for the rest.
    """
    columns = ("id", "rows", "holdout", "change", "label", "champion", "candidate")
    if not report.has_one_class:
        return Table(columns, [])
    change = report.candidate.score - report.champion.score
    groups = [
        (word, np.flatnonzero(rows & mask))
        for rows in (~report.is_new, report.is_new)
        for word, mask in (("lost", change < 0), ("gained", change > 0))
    ]
    sizes = _shares([len(found) for _, found in groups], most)
    rows = [
        _flip(report, row, word)
        for (word, found), size in zip(groups, sizes, strict=True)
        for row in found[:size].tolist()
    ]
    return Table(columns, rows)


def _shares(sizes: list[int], most: int) -> list[int]:
    """As much of each size as an equal division of ``most`` allows; what one leaves others get."""
    given = [0] * len(sizes)
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    for place, which in enumerate(order):
        given[which] = min(sizes[which], (most - sum(given)) // (len(order) - place))
    return given


def _flip(report: EvaluationReport, row: int, word: str) -> list[Any]:
    names = report.label_names
    holdout = str(report.holdout[row])
    return [
        str(report.row_id[row]),
        "new" if holdout == "new" else "history",
        holdout,
        word,
        names[int(report.label[row])],
        names[int(report.champion.prediction[row])],
        names[int(report.candidate.prediction[row])],
    ]
