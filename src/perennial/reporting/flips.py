"""Rows on which only one of the two models is right: how many, and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perennial.reporting import plots
from perennial.types import EvaluationReport

EXAMPLES = 12
VALUES = 8
WIDEST = 92.0


def counts(report: EvaluationReport) -> list[dict[str, Any]]:
    """Rows lost (right before, wrong now) and gained, for new and for history.

    None where a row is not of one class, which is met or missed.

    Returns:
        ``part``, ``n``, ``lost``, ``gained``, ``net``, and ``width`` of both bars in percent of
        half the picture, on one scale of shares.
    """
    if report.target_kind != "class":
        return []
    change = report.candidate.score - report.champion.score
    found: list[dict[str, Any]] = []
    for part, rows in (("new", report.is_new), ("history", ~report.is_new)):
        if n := int(rows.sum()):
            lost, gained = (int((rows & mask).sum()) for mask in (change < 0, change > 0))
            found.append({"part": part, "n": n, "lost": lost, "gained": gained})
    widest = max((max(one["lost"], one["gained"]) / one["n"] for one in found), default=0.0)
    return [
        {
            **one,
            "net": (one["gained"] - one["lost"]) / one["n"],
            "width": {
                name: round(WIDEST * one[name] / one["n"] / (widest or 1.0), 3)
                for name in ("lost", "gained")
            },
        }
        for one in found
    ]


def examples(
    report: EvaluationReport, features: Mapping[str, Any], label_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Groups of flipped rows, each with its title, count and first rows.

    Args:
        report: Both models row by row.
        features: Row id to the row's columns.
        label_names: In the order of the labels.
    """
    groups: list[dict[str, Any]] = []
    if report.target_kind != "class":
        return groups
    change = report.candidate.score - report.champion.score
    for part, rows in (("history", ~report.is_new), ("new", report.is_new)):
        for title, mask in (("right → wrong", change < 0), ("wrong → right", change > 0)):
            found = np.flatnonzero(rows & mask)
            if len(found):
                groups.append(
                    {
                        "title": f"{part.capitalize()}: {title}",
                        "count": len(found),
                        "bad": title.startswith("right"),
                        "tabular": not any(map(_is_picture, _columns(features))),
                        "examples": [
                            _example(report, row, features, label_names) for row in found[:EXAMPLES]
                        ],
                    }
                )
    return groups


def _example(
    report: EvaluationReport, row: int, features: Mapping[str, Any], label_names: Sequence[str]
) -> dict[str, Any]:
    row_id = str(report.row_id[row])
    told = {
        who: {
            "label": label_names[int(predictions.prediction[row])],
            "p": None
            if predictions.probabilities is None
            else float(predictions.probabilities[row].max()),
        }
        for who, predictions in (("champion", report.champion), ("candidate", report.candidate))
    }
    columns = features.get(row_id, {})
    image = next((values for values in columns.values() if _is_picture(values)), None)
    plain = {name: values for name, values in columns.items() if not _is_picture(values)}
    return {
        "id": row_id,
        "image": None if image is None else plots.thumbnail(image),
        "values": [
            *((name, str(values[row])) for name, values in report.slices.items() if values[row]),
            *((name, _value(value)) for name, value in list(plain.items())[:VALUES]),
        ],
        "more": max(0, len(plain) - VALUES),
        "label": label_names[int(report.label[row])],
        **told,
    }


def _columns(features: Mapping[str, Any]) -> Sequence[Any]:
    return list(next(iter(features.values()), {}).values())


def _is_picture(values: Any) -> bool:
    shape = np.shape(values)
    return len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))


def _value(value: Any) -> str:
    """A row's value of one column: a number, a short text, or the shape of what is larger."""
    array = np.asarray(value)
    if array.size != 1:
        return f"{' × '.join(map(str, array.shape))} values"
    item = array.item()
    if isinstance(item, float):
        return f"{item:.4g}"
    text = str(item)
    return text if len(text) <= 40 else text[:39] + "…"
