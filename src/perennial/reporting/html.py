"""``report.html``: one self-contained page that explains a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from perennial.reporting import plots
from perennial.types import EvaluationReport

EXAMPLES = 12
HEADLINES = {
    "promoted": "The candidate is better on new data and has forgotten nothing that matters.",
    "rejected": "The champion stays: the candidate failed a check.",
    "inconclusive": "The champion stays: the held-out rows do not decide.",
}

ALWAYS = "The candidate serves whatever the verdict: promotion was set to always."


def render_report(
    *,
    result: Mapping[str, Any],
    curve: Sequence[Mapping[str, float]],
    report: EvaluationReport,
    images: Mapping[str, npt.NDArray[Any]] | None,
    label_names: Sequence[str],
) -> str:
    """The page.

    Args:
        result: As ``result.json`` keeps it.
        curve: Validation scores by step, the champion's at step 0.
        report: Both models row by row.
        images: Row id to image (H, W) or (C, H, W), for the flipped examples.
        label_names: In the order of the labels.

    Returns:
        HTML without scripts and without references to anything outside itself.
    """
    environment = Environment(
        loader=PackageLoader("perennial.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "points": _points, "amount": _amount}
    checks = result["decision"]["checks"]
    pictures = {c["name"]: Markup(plots.interval(c)) for c in checks if c["interval"]}  # noqa: S704
    figures = [
        ("Before and after", "Accuracy on held-out rows.", plots.bars(result["metrics"])),
        *(
            [
                (
                    "While it learned",
                    "Validation accuracy; dashed is where the champion stood.",
                    plots.learning_curve(curve),
                )
            ]
            if curve
            else []
        ),
        (
            "Each class, new data",
            "Grey is the champion, colour the candidate.",
            plots.per_class(report, new=True),
        ),
    ]
    if (~report.is_new).any():
        figures.append(
            (
                "Each class, history",
                "Losses stand on top, in red.",
                plots.per_class(report, new=False),
            )
        )
    return environment.get_template("report.html.j2").render(
        result=result,
        headline=_headline(result),
        rows=_rows(result["metrics"]),
        checks=checks,
        pictures=pictures,
        figures=[(title, note, Markup(svg)) for title, note, svg in figures],  # noqa: S704
        flips=_flips(report, images or {}, label_names),
        cost=result["cost"],
        environment=result["environment"] or {},
    )


def _headline(result: Mapping[str, Any]) -> str:
    against = result["decision"]["applied"] and result["status"] != "promoted"
    return ALWAYS if against else HEADLINES[result["status"]]


def _rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = list(metrics["champion"])
    return [
        {
            "name": name,
            "n": metrics["champion"][name]["n"],
            "champion": metrics["champion"][name]["accuracy"],
            "candidate": metrics["candidate"][name]["accuracy"],
            "sub": name.startswith("history/"),
        }
        for name in names
        if not (
            name.startswith("history/") and sum(one.startswith("history/") for one in names) == 1
        )
    ]


def _flips(
    report: EvaluationReport, images: Mapping[str, Any], label_names: Sequence[str]
) -> list[dict[str, Any]]:
    groups = []
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
                        "examples": [
                            _example(report, row, images, label_names) for row in found[:EXAMPLES]
                        ],
                    }
                )
    return groups


def _example(
    report: EvaluationReport, row: int, images: Mapping[str, Any], label_names: Sequence[str]
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
    return {
        "id": row_id,
        "image": plots.thumbnail(images[row_id]) if row_id in images else None,
        "label": label_names[int(report.label[row])],
        **told,
    }


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"
