"""A window's predictions into the registry, and the labels that have come of them.

Shapes: N rows of a window, K labelled rows.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from perennial.data.rows import Rows
from perennial.errors import ConfigError
from perennial.evaluation.measure import taken
from perennial.monitoring.performance import Joined
from perennial.promotion.registry import Registry, Version
from perennial.steps.arrived import Late
from perennial.steps.predicted import join_labels, keep_predictions, recorded_of
from perennial.tasks.base import Task
from perennial.types import Booleans, Floats, Predictions


def record(
    registry: Registry,
    version: Version,
    *,
    rows: Rows,
    is_labelled: Booleans,
    keyed: bool,
    found: Predictions,
    key: str,
    now: datetime,
    learned: Booleans | None = None,
) -> None:
    """Keep what a version predicted for rows that no window has yet, and the labels that are there.

    Rows whose label is to come are kept where it can be joined to them. Calling it again changes
    nothing.

    Args:
        registry: Where the version lives.
        version: That predicted.
        rows: Of the window (N,).
        is_labelled: Which of them have their label (N,).
        keyed: Whether row ids are the same before and after a label comes.
        found: Its predictions for them.
        key: Fingerprint of the window.
        now: The present time, aware.
        learned: Rows (N,) that the version was trained on, of which nothing is kept: how it does on
            them says nothing of others. None for none.

    Raises:
        DataError: Ids, times or the clock are not as they must be.
        RegistryError: Another process wrote meanwhile.
    """
    known = [one.id for one in recorded_of(registry, version)]
    met = np.isin(rows.id, np.concatenate(known)) if known else np.zeros(len(rows), dtype=bool)
    fresh = ~met & (is_labelled | keyed)
    if learned is not None:
        fresh &= ~learned
    whole = bool(is_labelled[fresh].all())
    if fresh.any():
        keep_predictions(
            registry,
            version,
            window=key,
            ids=rows.id[fresh],
            found=taken(found, fresh),
            time=None if rows.time is None else rows.time[fresh],
            now=now,
            where="data.new",
            labelled=whole,
        )
    late = is_labelled & (met if whole else met | fresh)
    if late.any():
        ids, score = rows.id[late], found.score[late]
        join_labels(registry, version, ids=ids, score=score, now=now, where="data.new")


def record_late(
    registry: Registry, version: Version, late: Late, *, task: Task, now: datetime
) -> Joined:
    """Join labels of a table of their own to what was predicted for their rows.

    Raises:
        ConfigError: A score of the task is no function of prediction and label.
        DataError: Labels of rows that were never predicted, or an id twice.
        RegistryError: Another process wrote meanwhile.
    """
    predicted: dict[str, Any] = {}
    for one in recorded_of(registry, version):
        predicted |= zip(one.id.tolist(), one.predicted, strict=True)
    known = np.array([one in predicted for one in late.ids.tolist()], dtype=bool)
    score = np.zeros(len(late.ids))  # of rows that were never predicted, which are refused
    if known.any():
        rows = np.stack([predicted[one] for one in late.ids[known].tolist()])
        score[known] = scores(task, rows, late.target[known], classes=len(late.label_names))
    return join_labels(
        registry, version, ids=late.ids, score=score, now=now, where="monitor.labels"
    )


def scores(
    task: Task, predicted: npt.NDArray[Any], target: npt.NDArray[Any], *, classes: int
) -> Floats:
    """Scores (K,) of predictions without the inputs, by outputs that would have given them.

    Args:
        task: Scores.
        predicted: (K, ...), as `perennial.types.Predictions` has it.
        target: (K, ...).
        classes: Number of them.

    Raises:
        ConfigError: A score of the task needs more than the prediction.
    """
    given = torch.from_numpy(np.ascontiguousarray(predicted))
    if task.target_kind == "class":
        outputs = torch.nn.functional.one_hot(given.long(), classes).float()
    elif task.target_kind == "classes":
        outputs = (given.float() * 2 - 1) * 40  # probabilities of 0 and 1, whatever the threshold
    elif task.target_kind == "number":
        outputs = given
    else:
        raise ConfigError(
            f"A score of {type(task).__name__} is not known from a prediction and a label alone.",
            where="monitor.labels",
            mend="give the rows again with their labels, in data.new",
        )
    found = task.scores(outputs, (given, torch.from_numpy(np.ascontiguousarray(target))))
    return np.asarray(found.double().numpy(), dtype=np.float64)
