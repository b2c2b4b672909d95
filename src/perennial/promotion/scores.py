"""What is compared row by row, as functions of stored predictions.

Shapes: N rows, C classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.errors import EvaluationError
from perennial.types import EvaluationReport, Floats, Integers, Predictions

NAMES = {"loss": "loss", "reciprocal_rank": "reciprocal rank", "ndcg": "NDCG"}


def scored(report: EvaluationReport, kind: str) -> EvaluationReport:
    """The report with the scores that a policy compares, higher ones better.

    Args:
        report: Both models on the same rows.
        kind: ``task``, ``loss``, ``reciprocal_rank`` or ``ndcg``.

    Raises:
        EvaluationError: The kind needs probabilities, and there are none.
    """
    if kind == "task":
        return report
    champion, candidate = (
        replace(who, score=row_scores(kind, who, report.label))
        for who in (report.champion, report.candidate)
    )
    return replace(
        report, champion=champion, candidate=candidate, best=None, score_name=NAMES[kind]
    )


def row_scores(kind: str, predictions: Predictions, label: npt.NDArray[Any]) -> Floats:
    """Per-example scores (N,) of one kind.

    Args:
        kind: As in `scored`.
        predictions: One model over N rows.
        label: True labels (N,), of one class a row where their rank is asked.
    """
    if kind == "task":
        return predictions.score
    if kind == "loss":
        return -predictions.loss
    if predictions.probabilities is None or label.ndim != 1:
        raise EvaluationError(
            f"gate.score={kind} ranks the true label among the probabilities, and the task has "
            "none of one class a row.",
            where="gate.score",
            mend="set gate.score=task or gate.score=loss",
        )
    ranks = label_ranks(predictions.probabilities, label)
    return 1 / ranks if kind == "reciprocal_rank" else ndcg(ranks)


def label_ranks(probabilities: Floats, label: Integers) -> Floats:
    """Rank of the true label among the classes (N,), 1 for the most probable one.

    Classes that are equally probable share the mean of their ranks, so that a model that cannot
    tell them apart gains nothing by their order.

    >>> label_ranks(np.array([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2]]), np.array([1, 0])).tolist()
    [2.0, 1.5]
    """
    own = probabilities[np.arange(len(label)), label][:, None]
    above = (probabilities > own).sum(axis=1)
    equal = (probabilities == own).sum(axis=1)
    ranks: Floats = above + (equal + 1) / 2
    return ranks


def ndcg(ranks: Floats) -> Floats:
    """Normalised discounted cumulative gain where one class is relevant, 1 / log2(1 + rank).

    Järvelin & Kekäläinen, ACM Transactions on Information Systems 20, 2002; the ideal gain is 1.

    >>> ndcg(np.array([1.0, 3.0])).tolist()
    [1.0, 0.5]
    """
    gain: Floats = 1 / np.log2(1 + ranks)
    return gain


def unit(report: EvaluationReport, kind: str) -> str:
    """How differences of the score are shown: ``points`` for shares of rows, else empty."""
    return report.score_unit if kind == "task" else ""
