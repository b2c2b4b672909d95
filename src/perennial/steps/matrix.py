"""The accuracy matrix of a lineage: each version of the champion's line on each cycle's holdout.

A version carries it as rows that name themselves, since neither rows nor columns follow from a
number: a rollback leaves versions out, and brings in later the holdouts that they had added.

Shapes: T versions by H holdouts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from perennial.evaluation.forgetting import summary
from perennial.steps.lineage import number_of
from perennial.types import EvaluationReport

CANDIDATE = "candidate"


def row(version: int | str, scores: Mapping[str, float], learned: Iterable[str]) -> dict[str, Any]:
    """One version.

    Args:
        version: Its number.
        scores: Holdout to mean score.
        learned: The holdouts whose cycles it was the first in its line to learn; a test set of the
            user's own counts for the champion that it first tested.
    """
    return {"version": version, "scores": dict(scores), "learned": sorted(learned, key=number_of)}


def grown(
    rows: Sequence[Mapping[str, Any]],
    report: EvaluationReport,
    *,
    champion: int,
    learned: Iterable[str],
    given: Iterable[str] = (),
) -> list[dict[str, Any]]:
    """The rows of the candidate: its champion's, whose last one is scored anew, and its own.

    Args:
        rows: The champion's, its own row last.
        report: Both models on every holdout.
        champion: Its number.
        learned: Holdouts whose cycles the candidate is the first to learn.
        given: Those that the user gave in this cycle.
    """
    completed = row(champion, _means(report, "champion"), [*rows[-1]["learned"], *given])
    return [
        *(dict(one) for one in rows[:-1]),
        completed,
        row(CANDIDATE, _means(report, "candidate"), learned),
    ]


def measures(rows: Sequence[Mapping[str, Any]], initial: Mapping[str, float]) -> dict[str, Any]:
    """Forgetting and transfer of the last version, and the matrix with its names.

    Args:
        rows: As `grown` gives them.
        initial: Holdout to the mean score of a model that learned nothing.

    Returns:
        As `perennial.evaluation.forgetting.summary`, with ``versions``, the rows' numbers (T,), and
        ``holdouts``, the columns' names (H,), which are those that the last version was scored on.
    """
    names = sorted(rows[-1]["scores"], key=number_of)
    matrix = np.array([[one["scores"].get(name, np.nan) for name in names] for one in rows])
    by = {name: index for index, one in enumerate(rows) for name in one["learned"]}
    return {
        **summary(
            matrix,
            np.array([initial.get(name, np.nan) for name in names]),
            learned=np.array([by[name] for name in names], dtype=np.int64),
        ),
        "versions": [one["version"] for one in rows],
        "holdouts": names,
    }


def _means(report: EvaluationReport, who: str) -> dict[str, float]:
    score, cycle = getattr(report, who).score, report.cycle
    return {name: float(score[cycle == name].mean()) for name in dict.fromkeys(cycle.tolist())}
