"""What the lineage has learned before, to replay from and to validate on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from perennial.data.forgotten import without_forgotten
from perennial.data.learned import Learned, Ties, changed_ids, tied
from perennial.data.logits import recalled
from perennial.data.memory import Remembered
from perennial.data.opening import shown
from perennial.data.partitions import covers
from perennial.data.rows import Rows, concatenate
from perennial.data.standing import standing
from perennial.errors import ConfigError, DataError
from perennial.promotion.registry import Version
from perennial.steps.collect import Data
from perennial.steps.lineage import Lineage, number_of, relabelled
from perennial.steps.remember import index_path, remembered
from perennial.types import Booleans, Floats


@dataclass(frozen=True)
class History:
    """History to replay from and to validate on.

    Attributes:
        train: Training rows, or None where there are none.
        validation: Validation rows, or None.
        weight: How many learned rows each training row stands for (N,): those of a source count
            once, remembered ones for the rows of cycles whose source is gone. None without rows.
        missing: Source to the number of its training rows that neither it nor memory gives.
        fingerprints: Source name to SHA-256, and ``memory`` where it was drawn on.
        notes: Lines for the user.
    """

    train: Rows | None = None
    validation: Rows | None = None
    weight: Floats | None = None
    missing: Mapping[str, int] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def collect_history(
    data: Data, *, lineage: Lineage, learned: Learned, names: Sequence[str], source: str
) -> History:
    """History from every source that can still be read, and from memory for the rest.

    A cycle's source stands for it while it can be read and holds any row that was learned in it:
    rows taken out of it have left, and memory does not bring them back. Rows of a source get the
    logits that memory keeps for their ids.

    Args:
        data: The sources.
        lineage: Carries memory and the names of earlier sources.
        learned: Tells which row had which role.
        names: Class names, the champion's and after them those of new classes.
        source: ``all``, or ``memory`` to draw from memory alone.

    Raises:
        ConfigError: ``source`` is neither.
        DataError: A source that the user named is unreadable.
    """
    if source not in ("all", "memory"):
        raise ConfigError(
            f"history is {source!r}.", where="history", mend="use history=all or history=memory"
        )
    pools = _Pools(
        [
            f"{version.id} served once, and what it learned is history for {lineage.champion.id}"
            for version in lineage.former
        ]
    )
    if source == "all":
        _read_sources(pools, data, lineage=lineage, learned=learned, names=names)
    read = len(_joined(pools.rows["train"]) or ())
    gone = _left_to_memory(pools, data, lineage=lineage, learned=learned, names=names)
    for version in (lineage.champion, *lineage.former):
        for kind, pool in pools.rows.items():
            stored = recall(version, kind, names, held=learned.held, ties=data.ties)
            if stored is None:
                continue
            kept = stored.rows
            pool[:] = [recalled(rows, kept) for rows in pool]
            wanted = np.concatenate([kept.id[:0], *(rows.id for rows in gone[kind].values())])
            if len(extra := _unmet(kept.take(np.isin(kept.id, wanted)), pool)):
                name = "memory" if version is lineage.champion else f"memory of {version.id}"
                pools.fingerprints[name] = version.files[index_path("train")]
                pool.append(extra)
    train = _joined(pools.rows["train"])
    history = History(
        train=train,
        validation=_joined(pools.rows["validation"]),
        fingerprints=pools.fingerprints,
        notes=tuple(pools.notes),
    )
    return history if train is None else replace(history, **_counted(train, read, gone, lineage))


@dataclass
class _Pools:
    """What is collected, under way: rows by role, and the cycles whose sources were read."""

    notes: list[str]
    rows: dict[str, list[Rows]] = field(default_factory=lambda: {"train": [], "validation": []})
    fingerprints: dict[str, str] = field(default_factory=dict)
    covered: dict[str, str] = field(default_factory=dict)


def _read_sources(
    pools: _Pools, data: Data, *, lineage: Lineage, learned: Learned, names: Sequence[str]
) -> None:
    """Add the rows of every source that can still be read."""
    manifest = lineage.champion.manifest
    for key, spec, cycles in _sources(data, lineage):
        try:
            # only what was learned may know more classes than the champion does
            known = manifest["label_names"] if key == "history" else names
            read = data.read(
                spec, name=key, label_names=known, schema=manifest["schema"], holds_out=False
            )
        except DataError:
            if key == "history":
                raise
            pools.notes.append(f"{key}: no longer readable, its rows come from memory")
            continue
        read, left_out = without_forgotten(read, lineage.forgotten, key)
        pools.notes += [left_out] if left_out else []
        pools.fingerprints[key] = read.fingerprint
        parts, told = _learned_parts(read.rows, learned, data, key)
        pools.notes += told
        pools.covered |= dict.fromkeys(cycles, key)
        for kind, pool in pools.rows.items():
            pool.append(_unmet(parts[kind], pool))


def _left_to_memory(
    pools: _Pools, data: Data, *, lineage: Lineage, learned: Learned, names: Sequence[str]
) -> dict[str, dict[str, Rows]]:
    """Rows by role and cycle that no source gave, of cycles that no source stands for."""
    known = {
        kind: lineage.learned_in(kind, names, held=learned.held, ties=data.ties)
        for kind in pools.rows
    }
    keys = ("id", "content") if data.ties.by_content else ("id",)
    gone: dict[str, dict[str, Rows]] = {kind: {} for kind in pools.rows}
    for cycle in lineage.cycles:
        learned_there = {kind: known[kind][cycle] for kind in pools.rows}
        lost = {kind: _lost(learned_there[kind], pools.rows[kind], keys) for kind in pools.rows}
        number = len(learned_there["train"])
        if cycle not in pools.covered:
            left = True
        elif left := all(mask.all() for mask in lost.values()):
            if number:
                pools.notes.append(
                    f"{pools.covered[cycle]}: no row of {cycle} is in it now, they come from memory"
                )
        elif taken := int(lost["train"].sum()):
            pools.notes.append(
                f"{pools.covered[cycle]}: {taken} of {number} training rows of {cycle} have left "
                "it, and are no longer history"
            )
        if left:
            for kind, mask in lost.items():
                gone[kind][cycle] = learned_there[kind].take(mask)
    return gone


def _lost(rows: Rows, pool: Sequence[Rows], keys: Sequence[str]) -> Booleans:
    """Which rows (N,) are in no pool, by any of their keys."""
    lost = np.ones(len(rows), dtype=bool)
    for other in pool:
        for key in keys:
            lost &= ~np.isin(getattr(rows, key), getattr(other, key))
    return lost


def _counted(
    train: Rows, read: int, gone: Mapping[str, Mapping[str, Rows]], lineage: Lineage
) -> dict[str, Any]:
    """Weights of training rows, of which the first ones were read, and how many are missing."""
    sample = train.take(slice(read, None))
    missing = {}
    for cycle, rows in gone["train"].items():
        if number := len(np.setdiff1d(rows.id, sample.id)):
            source = lineage.sources.get(cycle)
            missing[f"{shown(source)} ({cycle})" if source else cycle] = number
    return {
        "weight": np.concatenate([np.ones(read), standing(sample, gone["train"])]),
        "missing": missing,
    }


def _learned_parts(
    rows: Rows, learned: Learned, data: Data, key: str
) -> tuple[dict[str, Rows], list[str]]:
    """A source's rows by the role in which they were learned, and lines for the user.

    A row's content tells more than its id, which may have been given anew; what is tied to a
    held-out row in any way is left out.
    """
    role = np.full(len(rows), "", dtype="<U10")
    keys = ("id", "content") if data.ties.by_content else ("id",)
    for name in keys:  # the later one overrules, and training overrules validation
        for kind in ("holdout", "validation", "train"):
            known = getattr(learned.only(learned.role == kind), name)
            role[np.isin(getattr(rows, name), known)] = kind
    held = tied(rows, learned.held, data.ties)
    told = []
    if unknown := int(((role == "") & ~held).sum()):
        told.append(f"{key}: {unknown} rows left out, which no version was trained or held on")
    if changed := int(changed_ids(rows, learned).sum()):
        told.append(
            f"{key}: {changed} ids stand for other rows than were learned (data.id_column="
            f"{data.id_column}); such rows are known by their content"
        )
    if hidden := int((held & ~np.isin(rows.id, learned.held.id)).sum()):
        told.append(f"{key}: {hidden} rows left out, held out under another id or with their group")
    parts = {kind: rows.take((role == kind) & ~held) for kind in ("train", "validation")}
    if data.duplicates == "drop":
        parts = {kind: _once(part) for kind, part in parts.items()}
    return parts, told


def _once(rows: Rows) -> Rows:
    _, first = np.unique(rows.content, return_index=True)
    return rows.take(np.sort(first))


def recall(
    version: Version, kind: str, names: Sequence[str], *, held: Learned, ties: Ties
) -> Remembered | None:
    """A version's memory, without what was held out since; None where it has none.

    Args:
        version: Whose.
        kind: ``train`` or ``validation``.
        names: Class names; rows of others are left out.
        held: Every held-out row.
        ties: What ties rows to these.
    """
    stored = remembered(version, kind, names)
    if stored is None:
        return None
    rows, known = relabelled(stored.rows, version.manifest["label_names"], names)
    stored = stored.take(known)
    renumbered = np.zeros(len(rows), dtype=bool)
    if rows.label.ndim == 1:
        renumbered = rows.label != stored.rows.label
    return stored.changed(rows, renumbered).take(~tied(rows, held, ties))


def _sources(data: Data, lineage: Lineage) -> list[tuple[str, Any, list[str]]]:
    """Name, source, and the cycles whose rows it is the source of."""
    found: list[tuple[str, Any, list[str]]] = []
    if data.history is not None:
        # whatever the user calls history now is what the lineage was founded on
        own = [cycle for cycle, path in lineage.sources.items() if covers(data.history, path)]
        found.append(("history", data.history, [*own, min(lineage.cycles, key=number_of)]))
    for cycle, path in lineage.sources.items():
        if not (isinstance(data.history, str | Mapping) and covers(data.history, path)):
            found.append((f"source of {cycle}", path, [cycle]))
    return found


def _unmet(rows: Rows, pool: Sequence[Rows]) -> Rows:
    """Rows whose id no other source gave; copies within one source stay."""
    for other in pool:
        rows = rows.take(~np.isin(rows.id, other.id))
    return rows


def _joined(parts: Sequence[Rows]) -> Rows | None:
    full = [part for part in parts if len(part)]
    return concatenate(full) if full else None
