"""Which rows a bounded memory keeps: functions of row ids alone.

Bottom-k sampling: a row's priority is a uniform hash of (seed, row id), and the k rows of lowest
priority stay. Over n distinct rows each is kept with probability exactly k/n, and every set of k
rows is equally likely, as with Vitter's reservoir (1985, Algorithm R); but no state besides the
rows is needed, so the sample does not depend on order, batch size, ranks or interruptions, and
the sample of a union comes from the samples of its parts (Cohen & Kaplan, 2007).
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.types import Strings


def priorities(ids: Strings, *, seed: int) -> npt.NDArray[np.uint64]:
    """Uniform 64-bit hashes (N,) of (seed, row id); the lowest are kept."""
    start = hashlib.blake2b(f"perennial-memory\0{seed}\0".encode(), digest_size=8)
    values = bytearray()
    for row in ids.tolist():
        digest = start.copy()
        digest.update(row.encode())
        values += digest.digest()
    return np.frombuffer(bytes(values), dtype="<u8").astype(np.uint64)


def reservoir(ids: Strings, capacity: int, seed: int) -> npt.NDArray[np.int64]:
    """Positions of the rows to keep, lowest priority first.

    Args:
        ids: Distinct row ids (N,).
        capacity: Rows to keep, at least 1.
        seed: Of the lineage's memory.

    Returns:
        min(N, capacity) positions. Their ids, and the order of these, do not depend on the order
        of ``ids``.
    """
    order = np.lexsort((ids, priorities(ids, seed=seed)))
    return order[:capacity].astype(np.int64)


def class_balanced(
    ids: Strings, label: npt.NDArray[np.integer[Any]], capacity: int, seed: int
) -> npt.NDArray[np.int64]:
    """Positions of the rows to keep, with as many of each class as there can be.

    In turn the row of lowest priority of every class, then the second of each, and so on: a small
    class is kept whole, and what it leaves goes to the others. Within a class the sample is
    uniform. As with `reservoir`, the sample of a union comes from the samples of its parts: a
    row that K others precede is preceded by K others after any more rows have come.

    Args:
        ids: Distinct row ids (N,).
        label: Class of each row (N,).
        capacity: K, rows to keep, at least 1.
        seed: Of the lineage's memory.
    """
    priority = priorities(ids, seed=seed)
    by_class = np.lexsort((ids, priority, label))
    starts = np.concatenate([[0], np.flatnonzero(np.diff(label[by_class])) + 1]).astype(np.int64)
    sizes = np.diff(np.append(starts, len(ids)))
    rank = np.empty(len(ids), dtype=np.int64)
    rank[by_class] = np.arange(len(ids)) - np.repeat(starts, sizes) if len(ids) else 0
    order = np.lexsort((ids, priority, rank))
    return order[:capacity].astype(np.int64)
