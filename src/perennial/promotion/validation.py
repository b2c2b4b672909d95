"""What a report must be before anything is decided on it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from perennial.errors import EvaluationError
from perennial.promotion.words import several
from perennial.types import EvaluationReport, Floats, Predictions

# softmax in half precision sums to 1 within this
_SUM = 0.01


def validate(report: EvaluationReport) -> None:
    """Refuse a report on which nothing can be decided.

    Raises:
        EvaluationError: Rows are missing or twice, differ between the models, or carry values that
            are no finite numbers; names the first thing that is wrong.
    """
    for problems in (_lengths, _rows, _numbers, _labels, _best):
        for problem in problems(report):
            raise EvaluationError(
                problem, where="evaluation", mend="nothing is promoted; check the model's outputs"
            )


def _models(report: EvaluationReport) -> tuple[tuple[str, Predictions], ...]:
    return ("champion", report.champion), ("candidate", report.candidate)


def _lengths(report: EvaluationReport) -> Iterator[str]:
    n = len(report)
    columns = {
        "cluster": report.cluster,
        "holdout": report.holdout,
        "label": report.label,
        "seen_by_champion": report.seen_by_champion,
        **{f"slice {name}": values for name, values in report.slices.items()},
        **({} if report.best is None else {"best score": report.best}),
    }
    for name, values in columns.items():
        if len(values) != n:
            yield f"There are {n} rows and {len(values)} values of {name}."
    for who, one in _models(report):
        parts = {"scores": one.score, "losses": one.loss, "predictions": one.prediction}
        if one.probabilities is not None:
            parts["probabilities"] = one.probabilities
        for name, values in parts.items():
            if len(values) != n:
                yield (
                    "Champion and candidate were not scored on the same rows: there are "
                    f"{n} of them and {len(values)} {name} of the {who}."
                )


def _rows(report: EvaluationReport) -> Iterator[str]:
    if not report.is_new.any():
        yield "There are no predictions on new rows."
    order = np.lexsort((report.row_id, report.holdout))
    row, holdout = report.row_id[order], report.holdout[order]
    twice = (row[1:] == row[:-1]) & (holdout[1:] == holdout[:-1])
    if twice.any():
        first = int(np.flatnonzero(twice)[0])
        yield f"Row {row[first]} has more than one prediction in holdout {holdout[first]}."


def _numbers(report: EvaluationReport) -> Iterator[str]:
    for who, one in _models(report):
        parts = {"score": one.score, "loss": one.loss}
        if one.probabilities is not None:
            parts["probability"] = one.probabilities
        for name, values in parts.items():
            wrong = ~np.isfinite(values)
            if wrong.any():
                rows = int(wrong.reshape(len(values), -1).any(axis=1).sum())
                yield f"A {name} of the {who} is not a finite number, on {several(rows, 'row')}."
    if report.fitted is not None:
        fitted = report.fitted
        if not len(fitted.champion) == len(fitted.candidate) == len(fitted.cluster):
            yield "Champion and candidate were not scored on the same training rows."
        elif not np.isfinite([*fitted.champion, *fitted.candidate]).all():
            yield "A score on the training rows is not a finite number."


def _labels(report: EvaluationReport) -> Iterator[str]:
    classes = len(report.label_names)
    if not classes:
        return
    columns = {"label": report.label} if report.target_kind != "tokens" else {}
    for who, one in _models(report):
        columns[f"prediction of the {who}"] = one.prediction
        if one.probabilities is not None and one.probabilities.shape[1:] != (classes,):
            yield (
                f"There are {classes} classes, and the probabilities of the {who} have the shape "
                f"{one.probabilities.shape}."
            )
        elif one.probabilities is not None:
            # several classes at once have a probability each
            sums = report.target_kind == "class"
            yield from _shares(who, one.probabilities, sums=sums)
    for name, values in columns.items():
        wrong = (values < 0) | (values >= classes)
        if wrong.any():
            yield (
                f"A {name} is {int(values[wrong][0])}, and the {classes} classes count from 0 to "
                f"{classes - 1}."
            )


def _shares(who: str, probabilities: Floats, *, sums: bool) -> Iterator[str]:
    wrong = ((probabilities < 0) | (probabilities > 1)).any(axis=1)
    if sums:
        wrong |= np.abs(probabilities.sum(axis=1) - 1) > _SUM
    if wrong.any():
        rows = several(int(wrong.sum()), "row")
        what = "shares that sum to 1" if sums else "between 0 and 1"
        yield f"The probabilities of the {who} are not {what}, on {rows}."


def _best(report: EvaluationReport) -> Iterator[str]:
    if report.best is None:
        return
    missing = ~np.isfinite(report.best) & ~report.is_new
    if missing.any():
        rows = several(int(missing.sum()), "history row")
        yield (
            f"The best champion's score is missing on {rows}, first in "
            f"{report.holdout[missing][0]}."
        )
