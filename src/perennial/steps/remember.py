"""Logits of remembered rows: whose they are, and those that are still missing.

Shapes: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from perennial.data.logits import lacking, put, widened
from perennial.data.rows import OWN, Rows
from perennial.data.store import read_rows_file
from perennial.errors import MethodError
from perennial.evaluation.predict import eval_mode
from perennial.methods.base import Method
from perennial.promotion.registry import Version
from perennial.steps.learner import Learner, output_width
from perennial.types import Floats


def remembered(version: Version | None, kind: str, names: Sequence[str]) -> Rows | None:
    """A version's memory, or None where it has none.

    Args:
        version: Whose.
        kind: ``train`` or ``validation``.
        names: Class names in the order in which logits are wanted.
    """
    path = f"memory/{kind}.arrow"
    if version is None or path not in version.files:
        return None
    rows, _ = read_rows_file(version.open(path), label_names=names)
    if rows.logits_version is None:
        return rows
    own = rows.logits_version == OWN
    return replace(
        rows, logits_version=np.where(own, np.int32(version.number), rows.logits_version)
    )


def stored_dtype(methods: Sequence[Method]) -> str | None:
    """The dtype in which a method wants logits kept; None where no method uses any."""
    return next((m.logits_dtype for m in methods if m.logits_dtype is not None), None)


def complete(
    learner: Learner, rows: Rows, *, dtype: str, version: int, known: int | None = None
) -> Rows:
    """Rows with logits of the learner's present weights, in evaluation mode, where they have none.

    Args:
        learner: Holds the weights.
        rows: N rows; classes may have been appended since their logits were stored.
        dtype: Of all logits, those that are there too.
        version: Whose weights these are; `perennial.data.rows.OWN` where it has no number yet.
        known: Number of classes that the weights know, the first ones; those after them are NaN.
            None for all.

    Raises:
        MethodError: A logit is too large for the dtype.
    """
    if not len(rows):
        return rows
    missing = lacking(rows)
    if rows.logits is not None:
        width = output_width(learner, rows)
        rows = replace(rows, logits=_cast(widened(rows.logits, width), dtype))
    if not missing.any():
        return rows
    learner.model.to(learner.device)
    found = []
    with eval_mode(learner.module):
        for batch in learner.batches(rows.take(missing)):
            logits = learner.task.outputs(learner.module, batch.data)
            found.append(logits.float().cpu().numpy())
    values = np.concatenate(found)
    if known is not None:
        values[:, known:] = np.nan
    return put(rows, missing, _cast(values, dtype), version)


def _cast(logits: Floats, dtype: str) -> Floats:
    most = np.abs(logits[np.isfinite(logits)]).max(initial=0)
    if most > np.finfo(dtype).max:
        raise MethodError(
            f"A logit of {most:g} does not fit {dtype}.",
            where="method.der.dtype",
            mend="use method.der.dtype=float32",
        )
    cast: Floats = logits.astype(dtype, copy=False)
    return cast
