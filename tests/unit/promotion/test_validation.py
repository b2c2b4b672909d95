"""Reports that nothing is decided on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perennial.errors import EvaluationError
from perennial.promotion.gate import decide
from perennial.promotion.policy import Policy
from perennial.types import EvaluationReport, Fitted
from support.reports import BETTER, KEPT, make_report

Change = Callable[[EvaluationReport], dict[str, Any]]


def twice(report: EvaluationReport) -> dict[str, Any]:
    row_id = report.row_id.copy()
    row_id[200] = row_id[300]
    return {"row_id": row_id}


def with_probabilities(report: EvaluationReport, shape: tuple[int, ...], value: float) -> Any:
    probabilities = np.full((len(report), *shape), 0.5)
    probabilities[7] = value
    return {"candidate": replace(report.candidate, probabilities=probabilities)}


def with_label(report: EvaluationReport, value: int) -> dict[str, Any]:
    label = report.label.copy()
    label[3] = value
    return {"label": label}


def with_best(report: EvaluationReport, row: int) -> dict[str, Any]:
    best = report.champion.score.copy()
    best[report.is_new] = np.nan
    best[row] = np.nan
    return {"best": best}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (twice, "Row r300 has more than one prediction in holdout history/0"),
        (lambda r: {"label": r.label[:-1]}, "700 rows and 699 values of label"),
        (lambda r: {"slices": {"region": r.row_id[:-2]}}, "698 values of slice region"),
        (lambda r: {"best": np.ones(3)}, "3 values of best score"),
        (
            lambda r: {"champion": replace(r.champion, loss=r.champion.loss[1:])},
            "not scored on the same rows: there are 700 of them and 699 losses of the champion",
        ),
        (
            lambda r: {"candidate": replace(r.candidate, probabilities=np.ones((2, 2)))},
            "2 probabilities of the candidate",
        ),
        (
            lambda r: with_probabilities(r, (2,), np.nan),
            r"probability of the cand.* on 1 row\.",
        ),
        (lambda r: with_probabilities(r, (3,), 0.5), "2 classes, and .*candidate .*shape"),
        (lambda r: with_label(r, -1), "A label is -1"),
        (lambda r: with_label(r, 2), "A label is 2, and the 2 classes count from 0 to 1"),
        (
            lambda r: {"candidate": replace(r.candidate, prediction=r.candidate.prediction + 2)},
            "prediction of the candidate is",
        ),
        (lambda r: with_best(r, 250), "missing on 1 history row, first in history/0"),
        (
            lambda r: {"fitted": Fitted(np.ones(3), np.ones(2), np.array(["a", "b", "c"]))},
            "same training rows",
        ),
        (
            lambda r: {"fitted": Fitted(np.ones(2), np.array([1, np.nan]), np.array(["a", "b"]))},
            "training rows is not a finite number",
        ),
    ],
)
def test_a_report_that_is_not_whole_is_refused(change: Change, words: str) -> None:
    report = make_report(BETTER, KEPT)
    decide(report, Policy())
    with pytest.raises(EvaluationError, match=words) as caught:
        decide(replace(report, **change(report)), Policy())
    assert caught.value.mend is not None
    assert "nothing is promoted" in caught.value.mend


def test_best_may_lack_new_rows_and_two_holdouts_may_share_a_row() -> None:
    report = make_report(BETTER, KEPT, KEPT)
    row_id = report.row_id.copy()
    row_id[700:] = row_id[100:700]
    decide(replace(report, row_id=row_id, **with_best(report, 0)), Policy())
