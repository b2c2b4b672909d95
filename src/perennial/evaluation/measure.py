"""Any torchmetrics metric of predictions and labels, by its name, with an interval.

Shapes: N rows, C classes, K clusters, R replicates.
"""

from __future__ import annotations

import difflib
import inspect
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torchmetrics
from torch import Tensor
from torchmetrics import Metric

from perennial.data.targets import IGNORED
from perennial.errors import ConfigError, EvaluationError
from perennial.types import Booleans, EvaluationReport, Measured, Predictions, Strings

REPLICATES = 200

_ROOMS = {
    "class": ("classification", "nominal"),
    "classes": ("classification",),
    "tokens": ("classification",),
    "number": ("regression",),
}


class Asked(Protocol):
    """What the policy asks of a metric; see ``perennial.promotion.policy``."""

    @property
    def metric(self) -> str:
        """Class name."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Of its constructor."""

    @property
    def rows(self) -> str:
        """``new``, ``history`` or a holdout."""

    @property
    def key(self) -> str:
        """Names it in the report."""


def measured(report: EvaluationReport, asked: Iterable[Asked]) -> dict[str, Measured]:
    """What is asked of the candidate, by key; nothing for a holdout that is not there.

    Raises:
        ConfigError: A metric does not exist or does not take what it is given.
        EvaluationError: The rows give no number.
    """
    found = {}
    for one in asked:
        mask = _rows(report, one.rows)
        if mask.any():
            found[one.key] = measure(
                one.metric,
                one.arguments,
                predictions=taken(report.candidate, mask),
                label=report.label[mask],
                cluster=report.cluster[mask],
                classes=len(report.label_names),
                kind=report.target_kind,
            )
    return found


def measure(
    name: str,
    arguments: Mapping[str, Any],
    *,
    predictions: Predictions,
    label: npt.NDArray[Any],
    cluster: Strings,
    classes: int,
    kind: str = "class",
    replicates: int = REPLICATES,
) -> Measured:
    """A metric over all rows, and over resampled clusters.

    It is fed with probabilities where it takes them, else with predicted labels. Clusters are drawn
    with replacement, as many as there are, by a fixed seed (Davison & Hinkley, Bootstrap Methods
    and their Application, 1997, section 3.8).

    Args:
        name: Class name, ``MulticlassF1Score``.
        arguments: Of its constructor; ``task`` and the number of classes are filled in.
        predictions: Of one model (N, ...).
        label: Targets (N, ...).
        cluster: Rows with one cluster (N,) are dependent.
        classes: C; 0 for a task without classes.
        kind: What the targets are.
        replicates: R.

    Raises:
        ConfigError: As `build_metric`, or it does not take the predictions.
        EvaluationError: The rows are one group, or give no finite number.
    """
    metric = build_metric(name, arguments, classes=classes, kind=kind)
    target = torch.from_numpy(np.ascontiguousarray(label))
    with warnings.catch_warnings():
        # of what is absent from the rows: a class, a positive example
        warnings.simplefilter("ignore")
        given, value = _first_value(metric, name, predictions, target)
        drawn = np.array(
            [
                _value(metric, given[index], target[index])
                for index in map(torch.from_numpy, _resampled(cluster, replicates, name))
            ]
        )
    finite = drawn[np.isfinite(drawn)]
    if not math.isfinite(value) or 2 * len(finite) < replicates:
        raise EvaluationError(
            f"{name} is no finite number on {len(label)} rows"
            f"{'' if not math.isfinite(value) else ', or on most resamples of them'}.",
            where="gate.bounds",
            mend="ask it of more rows, or ask another metric",
        )
    assert metric.higher_is_better is not None
    return Measured(
        value=value, replicates=finite, higher_is_better=metric.higher_is_better, n=len(label)
    )


def point(
    name: str, *, predictions: Predictions, label: npt.NDArray[Any], classes: int, kind: str
) -> float:
    """A metric over all rows, fed as `measure` feeds it; NaN where the rows give no number.

    Args:
        name: Class name.
        predictions: Of one model (N, ...).
        label: Targets (N, ...).
        classes: C; 0 for a task without classes.
        kind: What the targets are.

    Raises:
        ConfigError: As `build_metric`, or it does not take the predictions.
    """
    metric = build_metric(name, {}, classes=classes, kind=kind)
    with warnings.catch_warnings():
        # of what is absent from the rows: a class, a positive example
        warnings.simplefilter("ignore")
        target = torch.from_numpy(np.ascontiguousarray(label))
        return _first_value(metric, name, predictions, target)[1]


def build_metric(
    name: str, arguments: Mapping[str, Any], *, classes: int, kind: str = "class"
) -> Metric:
    """The metric, with ``task`` and the number of classes filled in where its constructor takes it.

    Args:
        name: Class name.
        arguments: Of its constructor.
        classes: Number of them; 0 for a task without classes.
        kind: What the targets are.

    Raises:
        ConfigError: There is no such metric for the task, it has no direction, or it refuses the
            arguments.
    """
    known = _metrics(kind, classes)
    words = _kind(kind, classes)
    if not known:
        raise ConfigError(
            f"Bounds are asked, and predictions of {words} are kept in no form that a metric "
            "takes.",
            where="gate.bounds",
            mend="leave gate.bounds empty; the task's own score is compared anyway",
        )
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        raise ConfigError(
            f"There is no metric {name!r} for {words}.",
            where="gate.bounds",
            mend=(f"did you mean {' or '.join(close)}? " if close else "")
            + f"give the name of a class of torchmetrics for {words}",
        )
    filled = dict(arguments)
    parameters = inspect.signature(known[name]).parameters
    own, count = (
        ("multilabel", "num_labels") if kind == "classes" else ("multiclass", "num_classes")
    )
    if "task" in parameters:
        filled.setdefault("task", own)
    if count in parameters and filled.get("task", own) == own:
        filled.setdefault(count, classes)
    if kind == "tokens" and "ignore_index" in parameters:
        filled.setdefault("ignore_index", IGNORED)
    try:
        with warnings.catch_warnings():
            # that it keeps all rows, which are here anyway
            warnings.simplefilter("ignore")
            metric: Metric = known[name](**filled)
    # each metric refuses arguments in a way of its own
    except Exception as error:
        taken = [key for key in parameters if key not in ("args", "kwargs")]
        raise ConfigError(
            f"{name} cannot be built: {str(error) or type(error).__name__}",
            where="gate.bounds",
            mend=f"its arguments are {', '.join(taken)}",
        ) from error
    if metric.higher_is_better is None:
        raise ConfigError(
            f"{name} does not say whether higher is better, so it can have neither floor nor "
            "ceiling.",
            where="gate.bounds",
            mend="ask a metric with a direction, such as MulticlassF1Score",
        )
    return metric


def _metrics(kind: str, classes: int) -> dict[str, Any]:
    """Name to class, of what fits the targets."""
    rooms = _ROOMS.get(kind, ())
    unfit: tuple[str, ...] = ("Multilabel", "Binary")
    if kind == "class" and classes == 2:
        unfit = ("Multilabel",)
    elif kind == "classes":
        unfit = ("Multiclass", "Binary")
    return {
        name: found
        for room in rooms
        for name, found in vars(getattr(torchmetrics, room)).items()
        if inspect.isclass(found) and issubclass(found, Metric) and not name.startswith(unfit)
    }


def _kind(kind: str, classes: int) -> str:
    words = {
        "class": f"classification into {classes} classes",
        "classes": f"{classes} labels",
        "tokens": f"positions of {classes} classes",
        "number": "regression",
        "item": "a ranking",
        "none": "a language model",
    }
    return words[kind]


def _first_value(
    metric: Metric, name: str, predictions: Predictions, target: Tensor
) -> tuple[Tensor, float]:
    """What the metric takes of the predictions, and its value over all rows."""
    trouble: Exception | None = None
    for given in _offers(metric, predictions):
        try:
            value = _computed(metric, given, target)
        # each metric refuses inputs in a way of its own
        except Exception as error:
            trouble = error
            continue
        if value.numel() != 1:
            raise ConfigError(
                f"{name} gives {value.numel()} numbers where one is held against a limit.",
                where="gate.bounds",
                mend="let its arguments average them: {average: macro}",
            )
        return given, float(value)
    raise ConfigError(
        f"{name} does not take the stored predictions: {trouble}",
        where="gate.bounds",
        mend="ask a metric of predictions and labels, such as MulticlassF1Score",
    ) from trouble


def _offers(metric: Metric, predictions: Predictions) -> list[Tensor]:
    """What a metric may be fed with; binary ones take the second class's probability alone."""
    labels = torch.from_numpy(np.ascontiguousarray(predictions.prediction))
    if predictions.probabilities is None:
        return [labels]
    probabilities = torch.from_numpy(np.ascontiguousarray(predictions.probabilities))
    if type(metric).__name__.startswith("Binary") and probabilities.shape[1] == 2:
        return [probabilities[:, 1]]
    return [probabilities, labels]


def _computed(metric: Metric, given: Tensor, target: Tensor) -> Tensor:
    metric.reset()
    metric.update(given, target)
    value: Tensor = metric.compute()
    return value


def _value(metric: Metric, given: Tensor, target: Tensor) -> float:
    return float(_computed(metric, given, target))


def _resampled(cluster: Strings, replicates: int, name: str) -> list[npt.NDArray[np.int64]]:
    """Row indices of each replicate: whole clusters, as many as there are, with replacement."""
    _, index, size = np.unique(cluster, return_inverse=True, return_counts=True)
    if len(size) < 2:
        raise EvaluationError(
            f"All rows that {name} is asked of are in one group: its error cannot be told.",
            where="gate.bounds, data.group_column",
            mend="ask it of rows of several groups",
        )
    order, start = np.argsort(index, kind="stable"), np.cumsum(size) - size
    generator = np.random.default_rng(0)
    found = []
    for _ in range(replicates):
        chosen = generator.integers(0, len(size), len(size))
        length = size[chosen]
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        found.append(order[np.repeat(start[chosen], length) + within])
    return found


def _rows(report: EvaluationReport, on: str) -> Booleans:
    if on == "history":
        return ~report.is_new
    mask: Booleans = report.holdout == on
    return mask


def taken(predictions: Predictions, mask: Booleans) -> Predictions:
    """Those of some rows.

    Args:
        predictions: Over N rows.
        mask: Which (N,).
    """
    probabilities = predictions.probabilities
    return Predictions(
        prediction=predictions.prediction[mask],
        score=predictions.score[mask],
        loss=predictions.loss[mask],
        probabilities=None if probabilities is None else probabilities[mask],
    )
