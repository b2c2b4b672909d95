"""``report.html``: one self-contained page that explains a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from perennial.notation import confidence, percent, points
from perennial.reporting import plots, verdict
from perennial.types import EvaluationReport

EXAMPLES = 12
VALUES = 8
MODELS = (("champion", plots.CHAMPION), ("candidate", plots.CANDIDATE))
ORIGINS = (("new", plots.NEW), ("history", plots.HISTORY))
ENVIRONMENT = {
    "git_commit": "git commit of the folder it ran in",
    "git_dirty": "uncommitted changes in that folder",
    "cpu_count": "CPUs",
}


def render_report(
    *,
    result: Mapping[str, Any],
    curve: Sequence[Mapping[str, float]],
    report: EvaluationReport,
    features: Mapping[str, Mapping[str, npt.NDArray[Any]]],
    label_names: Sequence[str],
) -> str:
    """The page.

    Args:
        result: As ``result.json`` keeps it.
        curve: Validation scores by step, the champion's at step 0.
        report: Both models row by row.
        features: Row id to the row's columns, for the flipped examples; a column (H, W) or
            (C, H, W) is shown as a picture.
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
    environment.filters |= {
        "percent": percent,
        "points": points,
        "amount": _amount,
        "certainty": _certainty,
        "confidence": confidence,
    }
    checks = result["decision"]["checks"]
    pictures = {c["name"]: Markup(plots.interval(c)) for c in checks if c["interval"]}  # noqa: S704
    return environment.get_template("report.html.j2").render(
        result=result,
        title=verdict.title(result),
        held_back=verdict.held_back(result),
        headline=verdict.sentence(result),
        rows=_rows(result["metrics"]),
        checks=checks,
        intervals={check["name"]: verdict.interval(check) for check in checks},
        charge=verdict.charge(result["decision"]),
        pictures=pictures,
        figures=_figures(result["metrics"], curve, report),
        flips=_flips(report, features, label_names),
        cost=result["cost"],
        environment=_environment(result["environment"] or {}),
    )


def _figures(
    metrics: Mapping[str, Any], curve: Sequence[Mapping[str, float]], report: EvaluationReport
) -> list[dict[str, Any]]:
    """Title, note, key of the colours and drawing of each plot."""
    classes = "A red line is a loss; the largest stand on top."
    figures = [
        ("Before and after", "Accuracy on held-out rows.", MODELS, plots.bars(metrics)),
        *_learning(curve),
        ("Each class, new data", classes, MODELS, plots.per_class(report, new=True)),
    ]
    if (~report.is_new).any():
        figures.append(("Each class, history", classes, MODELS, plots.per_class(report, new=False)))
    return [
        {"title": title, "note": note, "keys": keys, "svg": Markup(svg)}  # noqa: S704
        for title, note, keys, svg in figures
    ]


def _learning(curve: Sequence[Mapping[str, float]]) -> list[tuple[Any, ...]]:
    if not curve:  # nothing was validated
        return []
    note = "Validation accuracy; dashed is where the champion stood."
    return [("While it learned", note, ORIGINS, plots.learning_curve(curve))]


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
    report: EvaluationReport, features: Mapping[str, Any], label_names: Sequence[str]
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
        "values": [(name, _value(value)) for name, value in list(plain.items())[:VALUES]],
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


def _environment(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a run ran on, named for a reader."""
    said = {
        name: ("no", "yes")[value] if isinstance(value, bool) else str(value)
        for name, value in environment.items()
        if value is not None and not isinstance(value, Mapping)
    }
    if "git_commit" in said:
        said["git_commit"] = said["git_commit"][:12]
    return [(ENVIRONMENT.get(name, name.replace("_", " ")), value) for name, value in said.items()]


def _certainty(probability: float) -> str:
    """A model is never entirely sure."""
    return percent(probability) if probability < 0.9995 else ">99.9%"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"
