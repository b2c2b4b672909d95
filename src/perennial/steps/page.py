"""The page of a decision: what goes into it, and how it is drawn again from a version's files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.data.images import seen
from perennial.data.rows import Rows
from perennial.promotion.registry import Registry, Version
from perennial.reporting.html import render_report
from perennial.reporting.result import PAGE, RESULT
from perennial.steps.again import stored_report
from perennial.steps.judge import distinct
from perennial.steps.lineage import holdouts, number_of
from perennial.types import EvaluationReport


def drawn(
    report: EvaluationReport,
    held: Mapping[str, Rows],
    *,
    result: Mapping[str, Any],
    curve: Sequence[Mapping[str, float]],
    versions: Sequence[Mapping[str, Any]],
) -> bytes:
    """The page of a decision.

    Args:
        report: Both models row by row.
        held: Holdout to its rows.
        result: As ``result.json`` keeps it.
        curve: Validation scores by step.
        versions: The lineage's course, see `course`.
    """
    return render_report(
        result=result,
        curve=curve,
        report=report,
        features=_flipped_rows(report, held),
        label_names=report.label_names,
        versions=versions,
    ).encode()


def page_again(
    version: Version,
    result: Mapping[str, Any],
    *,
    curve: Sequence[Mapping[str, float]] = (),
    versions: Sequence[Mapping[str, Any]] = (),
) -> bytes:
    """The page of a version's decision, drawn from its files.

    Args:
        version: The candidate.
        result: As ``result.json`` keeps it.
        curve: Validation scores by step; a later decision shows none.
        versions: The lineage's course, likewise.
    """
    report = stored_report(version)
    own = f"history/{report.cycle_name}"
    rows = {f"history/{stem}": held for stem, held in holdouts(version).items()}
    if own in rows:
        rows["new"] = rows.pop(own)
    return drawn(report, rows, result=result, curve=curve, versions=versions)


def redrawn(registry: Registry, version: Version, path: str) -> bytes:
    """A page of a version as it was drawn, from the files that the version has now.

    Args:
        registry: Keeps the lineage's course.
        version: The candidate.
        path: Of the page inside the version.
    """
    result: dict[str, Any] = json.loads(version.read_text(path.replace(PAGE, RESULT)))
    if path != PAGE:
        return page_again(version, result)
    score = str(version.manifest["task"]["score"]["name"])
    earlier = course(registry, version.name, before=version.number, score=score)
    return page_again(
        version,
        result,
        curve=(result["validation"] or {}).get("curve", ()),
        versions=[*earlier, at(version.number, result, score)],
    )


def course(registry: Registry, name: str, *, before: int, score: str) -> list[dict[str, Any]]:
    """Each version of a lineage below a number: its scores, and whether it ever served.

    Args:
        registry: Where they are.
        name: The lineage.
        before: The number.
        score: Name of the task's score.
    """
    decided = {one.candidate: one.applied for one in registry.cycles(name)}
    return [
        {
            "number": version.number,
            "served": decided.get(version.number, True),
            **_scores(version.manifest["metrics"], score),
        }
        for version in registry.versions(name)
        if version.number < before
    ]


def at(number: int, result: Mapping[str, Any], score: str) -> dict[str, Any]:
    """The candidate's place in its lineage's course."""
    applied = result["decision"]["applied"]
    return {"number": number, "served": applied, **_scores(result["metrics"]["candidate"], score)}


def _scores(metrics: Mapping[str, Any], score: str) -> dict[str, float | None]:
    """Scores on new rows and on the oldest holdout.

    All of history is on more rows in each version, and tells nothing of one beside the other.
    """
    scores = {part: measured.get(score) for part, measured in metrics.items()}
    held = sorted((part for part in scores if part.startswith("history/")), key=number_of)
    return {"new": scores.get("new"), "history": scores[held[0]] if held else None}


def _flipped_rows(
    report: EvaluationReport, held: Mapping[str, Rows]
) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """Row id to the columns of each row whose score changed."""
    changed = report.champion.score != report.candidate.score
    found: dict[str, dict[str, npt.NDArray[Any]]] = {}
    for holdout, rows in held.items():
        ids = report.row_id[changed & (report.holdout == holdout)]
        own = distinct(rows.id)
        chosen = np.isin(own, ids)
        columns = seen(rows.take(chosen))
        found |= {
            row_id: {name: values[row] for name, values in columns.items()}
            for row, row_id in enumerate(own[chosen].tolist())
        }
    return found
