"""The page of a decision that was taken again: drawn from what the version keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.data.rows import Rows
from perennial.promotion.registry import Version
from perennial.reporting.html import render_report
from perennial.steps.again import stored_report
from perennial.steps.judge import distinct
from perennial.steps.lineage import holdouts
from perennial.types import EvaluationReport


def page_again(version: Version, result: Mapping[str, Any]) -> bytes:
    """The page of a version's present decision; without the curve of its training.

    Args:
        version: The candidate.
        result: As ``result.json`` keeps it.
    """
    report = stored_report(version)
    own = f"history/{report.cycle_name}"
    rows = {f"history/{stem}": held for stem, held in holdouts(version).items()}
    if own in rows:
        rows["new"] = rows.pop(own)
    return render_report(
        result=result,
        curve=(),
        report=report,
        features=flipped_rows(report, rows),
        label_names=report.label_names,
    ).encode()


def flipped_rows(
    report: EvaluationReport, held: Mapping[str, Rows]
) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """Row id to the columns of each row whose score changed.

    Args:
        report: Both models row by row.
        held: Holdout to its rows.
    """
    changed = report.champion.score != report.candidate.score
    found: dict[str, dict[str, npt.NDArray[Any]]] = {}
    for holdout, rows in held.items():
        ids = report.row_id[changed & (report.holdout == holdout)]
        own = distinct(rows.id)
        chosen = np.isin(own, ids)
        part = rows.take(chosen)
        found |= {
            row_id: {name: values[row] for name, values in part.features.items()}
            for row, row_id in enumerate(own[chosen].tolist())
        }
    return found
