"""The reference that a version carries, and what its model makes of rows to be compared.

Shapes: N rows, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from perennial.data.columns import TEXT
from perennial.errors import ConfigError, RegistryError
from perennial.evaluation.predict import eval_mode
from perennial.monitoring.drift import Represent, Represented
from perennial.monitoring.reference import FACTS, ROWS, Reference, read
from perennial.monitoring.window import Features, as_rows
from perennial.promotion.registry import Version
from perennial.steps.features import features
from perennial.steps.learner import Learner


def reference_of(version: Version) -> Reference:
    """What a version carries to tell drift by, verified.

    Raises:
        RegistryError: It carries nothing, or a file is damaged.
    """
    if ROWS not in version.files or FACTS not in version.files:
        raise RegistryError(
            f"{version.id} carries no reference to tell drift by: it was made without rows of its "
            "own, as an adopted checkpoint without data.history is, or these were forgotten.",
            where=version.id,
            mend="promote a version that was retrained on rows, or watch by trigger=performance or "
            "trigger=schedule",
        )
    return read(version.open(ROWS), version.open(FACTS), version=version.id)


def represent(learner: Learner, label_names: tuple[str, ...]) -> Represent:
    """What a learner's present weights make of raw columns, labels or not.

    Args:
        learner: Model, task and preprocessing.
        label_names: Classes in the order of the outputs.
    """

    def made(columns: Features) -> Represented:
        rows = as_rows(columns)
        try:
            vectors = features(learner, rows)
        except (ConfigError, ValueError):
            vectors = None  # no single layer gives its output, or not one vector a row
        prediction, confidence = _predicted(learner, columns, label_names)
        return Represented(vectors, prediction, confidence)

    return made


def _predicted(
    learner: Learner, columns: Features, names: tuple[str, ...]
) -> tuple[npt.NDArray[Any] | None, npt.NDArray[Any] | None]:
    """Predicted class by name (N,) with its probability (N,), or a predicted number (N,)."""
    kind = learner.task.target_kind
    if kind not in ("class", "number"):
        return None, None
    found, sure = [], []
    with eval_mode(learner.module):
        for batch in learner.batches(as_rows(columns)):
            outputs = learner.task.outputs(learner.module, batch.data)
            found.append(learner.task.predictions(outputs).cpu())
            if (share := learner.task.probabilities(outputs)) is not None:
                sure.append(share.max(dim=1).values.cpu())
    prediction = torch.cat(found).numpy()
    confidence = torch.cat(sure).double().numpy() if sure else None
    if kind == "number":
        return prediction.reshape(len(prediction), -1).mean(axis=1, dtype=np.float64), confidence
    return np.array([names[one] for one in prediction.tolist()], dtype=TEXT), confidence
