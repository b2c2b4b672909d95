"""What the lineage has learned before, to replay from and to validate on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perennial.data.learned import Learned, Ties, changed_ids, tied
from perennial.data.logits import recalled
from perennial.data.rows import Rows, concatenate
from perennial.errors import ConfigError, DataError
from perennial.promotion.registry import Version
from perennial.steps.collect import Data
from perennial.steps.lineage import Lineage, relabelled
from perennial.steps.remember import remembered


@dataclass(frozen=True)
class History:
    """History to replay from and to validate on.

    Attributes:
        train: Training rows, or None where there are none.
        validation: Validation rows, or None.
        fingerprints: Source name to SHA-256, and ``memory`` where it was drawn on.
        notes: Lines for the user.
    """

    train: Rows | None = None
    validation: Rows | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def collect_history(
    data: Data, *, lineage: Lineage, learned: Learned, names: Sequence[str], source: str
) -> History:
    """History from every source that can still be read, and from memory for the rest.

    Rows of a source get the logits that memory keeps for their ids.

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
    pools: dict[str, list[Rows]] = {"train": [], "validation": []}
    fingerprints: dict[str, str] = {}
    notes = [
        f"{version.id} served once, and what it learned is history for {lineage.champion.id}"
        for version in lineage.former
    ]
    manifest = lineage.champion.manifest
    for key, spec in _sources(data, lineage) if source == "all" else []:
        try:
            # only what was learned may know more classes than the champion does
            known = manifest["label_names"] if key == "history" else names
            read = data.read(
                spec, name=key, label_names=known, schema=manifest["schema"], holds_out=False
            )
        except DataError:
            if key == "history":
                raise
            notes.append(f"{key}: no longer readable, its rows come from memory")
            continue
        fingerprints[key] = read.fingerprint
        parts, told = _learned_parts(read.rows, learned, data, key)
        notes += told
        for kind, pool in pools.items():
            pool.append(_unmet(parts[kind], pool))
    for version in (lineage.champion, *lineage.former):
        for kind, pool in pools.items():
            stored = recall(version, kind, names, held=learned.held, ties=data.ties)
            if stored is None:
                continue
            pool[:] = [recalled(rows, stored) for rows in pool]
            if len(extra := _unmet(stored, pool)):
                name = "memory" if version is lineage.champion else f"memory of {version.id}"
                fingerprints[name] = version.files["memory/train.arrow"]
                pool.append(extra)
    return History(
        train=_joined(pools["train"]),
        validation=_joined(pools["validation"]),
        fingerprints=fingerprints,
        notes=tuple(notes),
    )


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
) -> Rows | None:
    """A version's memory, without what was held out since; None where it has none.

    Args:
        version: Whose.
        kind: ``train`` or ``validation``.
        names: Class names; rows of others are left out.
        held: Every held-out row.
        ties: What ties rows to these.
    """
    rows = remembered(version, kind, names)
    if rows is None:
        return None
    rows = relabelled(rows, version.manifest["label_names"], names)
    return rows.take(~tied(rows, held, ties))


def _sources(data: Data, lineage: Lineage) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    if data.history is not None:
        found.append(("history", data.history))
    for cycle, path in lineage.sources.items():
        if not (isinstance(data.history, str) and data.history == path):
            found.append((f"source of {cycle}", path))
    return found


def _unmet(rows: Rows, pool: Sequence[Rows]) -> Rows:
    """Rows whose id no other source gave; copies within one source stay."""
    for other in pool:
        rows = rows.take(~np.isin(rows.id, other.id))
    return rows


def _joined(parts: Sequence[Rows]) -> Rows | None:
    full = [part for part in parts if len(part)]
    return concatenate(full) if full else None
