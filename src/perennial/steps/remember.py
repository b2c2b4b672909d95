"""Remembered rows as a version keeps them, and the logits that are still missing.

Shapes: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from perennial.data.logits import lacking, put, widened
from perennial.data.memory import Remembered
from perennial.data.rows import OWN, Rows, concatenate
from perennial.data.shards import read_index
from perennial.data.store import read_rows_file
from perennial.errors import MethodError
from perennial.evaluation.predict import eval_mode
from perennial.methods.base import Method
from perennial.promotion.registry import Version
from perennial.steps.learner import Learner, output_width
from perennial.types import Floats


def index_path(kind: str) -> str:
    """Path inside a version of the index of its memory of ``train`` or ``validation`` rows."""
    return f"memory/{kind}.arrow"


def shard_path(kind: str, sha256: str) -> str:
    """Path inside a version of a file of remembered rows."""
    return f"memory/{kind}/{sha256[:16]}.arrow"


def remembered(version: Version | None, kind: str, names: Sequence[str]) -> Remembered | None:
    """A version's memory, or None where it keeps no row.

    Args:
        version: Whose.
        kind: ``train`` or ``validation``.
        names: Class names in the order in which logits are wanted.
    """
    if version is None or index_path(kind) not in version.files:
        return None
    index = read_index(version.open(index_path(kind)))
    if not len(index.shard):
        return None
    numbers = {
        name: version.number if one.version == OWN else one.version
        for name, one in index.shards.items()
    }
    order, parts = [], []
    for name, number in numbers.items():
        order.append(np.flatnonzero(index.shard == name))
        path = version.open(shard_path(kind, name))
        rows = read_rows_file(path, label_names=names)[0].take(index.place[order[-1]])
        parts.append(_of_version(rows, number))
    return Remembered(
        concatenate(parts).take(np.argsort(np.concatenate(order))),
        index.cycle,
        index.shard,
        index.place,
        {name: replace(one, version=numbers[name]) for name, one in index.shards.items()},
    )


def _of_version(rows: Rows, number: int) -> Rows:
    """Rows whose logits say by number which version gave them."""
    if rows.logits_version is None:
        return rows
    own = rows.logits_version == OWN
    return replace(rows, logits_version=np.where(own, np.int32(number), rows.logits_version))


def stored_dtype(methods: Sequence[Method]) -> str | None:
    """The dtype in which a method wants logits kept; None where no method uses any."""
    return next((m.logits_dtype for m in methods if m.logits_dtype is not None), None)


def logits_bytes(dtype: str | None, names: Sequence[str]) -> int:
    """What a remembered row takes besides, where logits are kept with it."""
    return 0 if dtype is None else len(names) * np.dtype(dtype).itemsize + 4


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
