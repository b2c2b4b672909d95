"""Logits kept with rows: which version gave them, and which class each column is.

Shapes: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from perennial.data.rows import UNKNOWN, Rows
from perennial.types import Booleans, Floats, Integers


def without_logits(rows: Rows) -> Rows:
    """The rows as a run keeps them that uses no stored logits."""
    return replace(rows, logits=None, logits_version=None)


def lacking(rows: Rows) -> Booleans:
    """Which rows (N,) have no stored logits."""
    if rows.logits_version is None:
        return np.ones(len(rows), dtype=bool)
    mask: Booleans = rows.logits_version == UNKNOWN
    return mask


def aligned(logits: Floats, own: Sequence[str], names: Sequence[str]) -> Floats:
    """Columns of logits (N, C') in the order of other class names, (N, C).

    A class without a column is NaN, a column whose class is gone is left out. Where the names are
    the same nothing is copied.

    Args:
        logits: One column per name in ``own``.
        own: Distinct class names of the columns.
        names: Class names that are wanted.
    """
    if tuple(own) == tuple(names):
        return logits
    place = {name: column for column, name in enumerate(own)}
    found = np.full((len(logits), len(names)), np.nan, dtype=logits.dtype)
    for column, name in enumerate(names):
        if name in place:
            found[:, column] = logits[:, place[name]]
    return found


def widened(logits: Floats, width: int) -> Floats:
    """Logits (N, C') with NaN for the classes that were appended since, (N, width)."""
    assert logits.shape[1] <= width, "classes are appended, never taken away"
    return np.pad(logits, ((0, 0), (0, width - logits.shape[1])), constant_values=np.nan)


def recalled(rows: Rows, remembered: Rows) -> Rows:
    """Rows with the logits of remembered ones of the same id, where they have none themselves."""
    known = remembered.take(~lacking(remembered))
    if known.logits is None or known.logits_version is None or not len(known):
        return rows
    order = np.argsort(known.id)
    place = np.searchsorted(known.id, rows.id, sorter=order)
    place = order[np.minimum(place, len(order) - 1)]
    found = (known.id[place] == rows.id) & lacking(rows)
    if not found.any():
        return rows
    return put(rows, found, known.logits[place[found]], known.logits_version[place[found]])


def put(rows: Rows, mask: Booleans, logits: Floats, version: Integers | int) -> Rows:
    """Rows with other logits in some of them.

    Args:
        rows: N rows.
        mask: Which ones (N,).
        logits: Theirs (mask.sum(), C); where no row has any yet, their dtype is that of all.
        version: Which gave them; see `perennial.data.rows.Rows`.
    """
    if rows.logits is None or rows.logits_version is None:
        values = np.full((len(rows), logits.shape[1]), np.nan, dtype=logits.dtype)
        versions: Integers = np.full(len(rows), UNKNOWN, dtype=np.int32)
    else:
        values, versions = rows.logits.copy(), rows.logits_version.copy()
    values[mask] = logits
    versions[mask] = version
    return replace(rows, logits=values, logits_version=versions)
