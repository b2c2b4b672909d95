"""What a version remembers: the memory after its cycle, in files that versions share.

Shapes: N rows, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from perennial.data.learned import Learned, Ties
from perennial.data.logits import lacking, recalled, without_logits
from perennial.data.memory import Memory, Remembered, union
from perennial.data.rows import OWN, Rows
from perennial.data.shards import index_of, to_write, write_index, written
from perennial.data.standing import standing
from perennial.data.store import write_rows
from perennial.steps.features import features
from perennial.steps.history import recall
from perennial.steps.learner import Learner
from perennial.steps.lineage import Lineage
from perennial.steps.remember import complete, index_path, logits_bytes, shard_path
from perennial.types import Floats

KINDS = ("train", "validation")


def memory_files(
    kind: str,
    rows: Rows,
    *,
    memory: Memory,
    learner: Learner,
    names: Sequence[str],
    folder: Path,
    number: int,
    held: Learned,
    ties: Ties,
    lineage: Lineage | None = None,
    history: Rows | None = None,
    logits: str | None = None,
) -> dict[str, Path]:
    """Path inside the version to file: the index, and every shard it points into.

    Args:
        kind: ``train`` or ``validation``.
        rows: What this cycle learned, or validated on.
        memory: Selects what is remembered.
        learner: Holds the candidate's weights.
        names: Class names.
        folder: Work folder; what is new is written there.
        number: Of this cycle.
        held: Every held-out row; what is tied to one is not remembered.
        ties: What ties rows to these.
        lineage: Of the champion, whose memory goes on, or None for the first version.
        history: What was replayed, with logits for remembered rows that have none yet.
        logits: Dtype of the logits that training rows are kept with, where a method uses them.
    """
    logits = logits if kind == "train" else None
    previous = _previous(kind, names, lineage, held=held, ties=ties)
    if previous is not None and history is not None:
        previous = _filled(previous, recalled(previous.rows, history))
    new = Remembered.fresh(replace(rows, slices={}), number)  # only holdouts are looked at by them
    by: dict[str, Floats] = {}
    if memory.needs_features(kind) and len(rows):
        both = union([new] if previous is None else [previous, new]).rows
        by = {
            "features": features(learner, both),
            "weight": _standing(previous, len(both), lineage, kind, names, held, ties),
        }
    after = memory.update(previous, new, kind=kind, logits_bytes=logits_bytes(logits, names), **by)
    if logits is not None:
        after = _filled(after, complete(learner, after.rows, dtype=logits, version=OWN))
    return _files(kind, after, lineage, bound=memory.bound, names=names, folder=folder)


def _previous(
    kind: str, names: Sequence[str], lineage: Lineage | None, *, held: Learned, ties: Ties
) -> Remembered | None:
    """What the champion remembers, and others that served and met what it has not."""
    parts = []
    for version in (lineage.champion, *lineage.former) if lineage else ():
        stored = recall(version, kind, names, held=held, ties=ties)
        if stored is None or lineage is None:
            continue
        numbers = lineage.numbers_in(version)
        cycle = np.array([numbers[one] for one in stored.cycle.tolist()], dtype=np.int32)
        parts.append(replace(stored, cycle=cycle))
    return union(parts) if parts else None


def _filled(memory: Remembered, rows: Rows) -> Remembered:
    """The memory with logits where there were none: such rows are written anew."""
    return memory.changed(rows, lacking(memory.rows) & ~lacking(rows))


def _standing(
    previous: Remembered | None,
    count: int,
    lineage: Lineage | None,
    kind: str,
    names: Sequence[str],
    held: Learned,
    ties: Ties,
) -> Floats:
    """How many learned rows each of ``count`` stands for, remembered ones first."""
    if previous is None or lineage is None:
        return np.ones(count)
    whole = lineage.learned_in(kind, names, held=held, ties=ties)
    return np.concatenate([standing(previous.rows, whole), np.ones(count - len(previous))])


def _files(
    kind: str,
    memory: Remembered,
    lineage: Lineage | None,
    *,
    bound: str,
    names: Sequence[str],
    folder: Path,
) -> dict[str, Path]:
    files: dict[str, Path] = {}
    which = to_write(memory)
    if which.any():
        rows = memory.rows.take(which)
        rows = without_logits(rows) if lacking(rows).all() else rows
        path = folder / f"memory-{kind}.arrow"
        sha256 = write_rows(path, rows, label_names=names)
        files[shard_path(kind, sha256)] = path
        memory = written(memory, which, sha256, OWN)
    for name in memory.shards:
        if (path_inside := shard_path(kind, name)) not in files:
            files[path_inside] = _found(path_inside, lineage)
    index = folder / f"memory-{kind}-index.arrow"
    write_index(index, index_of(memory, bound))
    return files | {index_path(kind): index}


def _found(path: str, lineage: Lineage | None) -> Path:
    assert lineage is not None
    keepers = (lineage.champion, *lineage.former)
    return next(version for version in keepers if path in version.files).open(path)
