"""Open, validate, fingerprint and split what a cycle learns from and is judged on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from perennial.data.labels import NEW_CLASSES
from perennial.data.logits import recalled
from perennial.data.memory import Memory
from perennial.data.rows import Rows, concatenate
from perennial.data.source import SourceRows, check_schema, open_source, read_rows
from perennial.data.split import assign_roles, exclude
from perennial.data.store import read_rows_file
from perennial.errors import ConfigError, DataError
from perennial.promotion.registry import Version
from perennial.steps.remember import remembered
from perennial.types import Booleans, Strings

ROLES = ("train", "validation", "holdout")


@dataclass(frozen=True, kw_only=True)
class Data:
    """The sources of a lineage and how their columns are read.

    Args:
        new: Source of the new rows: a path, a hub id, or a built ``datasets.Dataset``; None where a
            lineage is only founded.
        history: Source of what the champion has learned, or None.
        history_holdout: A test set of the user's own for an adopted checkpoint, or None.
        label: Label column.
        features: Feature columns; None takes all others.
        id_column: Column of row ids, or None for content hashes.
        group_column: Rows of one group (a user, a session) fall on one side of the split.
        split_column: Column that says train, validation or holdout.
        time_column: The latest rows by this column are the holdout.
        form: ``tuple`` or ``dict``: what the module's ``training_step`` gets.
        duplicates: ``group``, ``drop`` or ``allow``.
        validation_fraction: Share of rows for early stopping and the choice of weights.
        holdout_fraction: Share of rows never trained on, where no split is declared.
        memory: Keeps a bounded sample of history with each version.
        sampling: ``passes`` visits every new row once an epoch; ``replacement`` draws each on its
            own.
        new_classes: What becomes of a label in ``new`` that the lineage does not know: ``refuse``,
            or ``grow`` to append it to the lineage's classes.

    Raises:
        ConfigError: ``new_classes`` is neither.
    """

    memory: Memory
    new: Any = None
    history: Any = None
    history_holdout: Any = None
    label: str = "label"
    features: Sequence[str] | None = None
    id_column: str | None = None
    group_column: str | None = None
    split_column: str | None = None
    time_column: str | None = None
    form: str = "tuple"
    duplicates: str = "group"
    validation_fraction: float = 0.15
    holdout_fraction: float = 0.2
    sampling: str = "passes"
    new_classes: str = "refuse"

    def __post_init__(self) -> None:
        if self.new_classes not in NEW_CLASSES:
            raise ConfigError(
                f"{self.new_classes!r} is not what can become of new classes.",
                where="data.new_classes",
                mend=f"use {' or '.join(NEW_CLASSES)}",
            )

    def read(
        self,
        spec: Any,
        *,
        name: str,
        label_names: Sequence[str] | None,
        schema: Mapping[str, str] | None = None,
    ) -> SourceRows:
        """Open and read one source; the declared columns apply to all of them.

        Of all sources ``new`` alone may bring classes that ``label_names`` lack.

        Raises:
            DataError: See `perennial.data.source`.
        """
        return read_rows(
            open_source(spec, name=name),
            name=name,
            label=self.label,
            features=self.features,
            id_column=self.id_column,
            group_column=self.group_column,
            split_column=self.split_column,
            time_column=self.time_column,
            label_names=label_names,
            new_classes=self.new_classes if name == "new" else None,
            schema=schema,
        )


@dataclass(frozen=True)
class Parts:
    """One source, split.

    Attributes:
        train: Rows to learn from.
        validation: Rows for early stopping and the choice of weights.
        holdout: Rows never trained on.
        seen: Which holdout rows the adopted model was trained on (N,).
        fingerprint: SHA-256 over the source's rows.
        schema: Column to dtype and shape.
        label_names: Class names.
        notes: Lines for the user: duplicates, rows left out.
    """

    train: Rows
    validation: Rows
    holdout: Rows
    seen: Booleans
    fingerprint: str
    schema: Mapping[str, str]
    label_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Learned:
    """What a champion has met, over all cycles that led to it.

    Attributes:
        id: Row ids (N,).
        content: Content hashes (N,).
        role: ``train``, ``validation`` or ``holdout`` (N,).
    """

    id: Strings
    content: Strings
    role: Strings


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


def split(source: SourceRows, data: Data, *, salt: str, name: str, holdout: bool = True) -> Parts:
    """Divide a source's rows by the lineage's salt.

    Args:
        source: As read.
        data: Fractions and policy.
        salt: Of the lineage.
        name: ``history`` or ``new``, for messages.
        holdout: Whether a holdout is taken where none is declared.
    """
    assigned = assign_roles(
        source,
        salt=salt,
        validation_fraction=data.validation_fraction,
        holdout_fraction=data.holdout_fraction if holdout else 0.0,
        duplicates=data.duplicates,
        name=name,
    )
    rows, role = assigned.rows, assigned.role
    parts = {kind: rows.take(role == kind) for kind in ROLES}
    return Parts(
        **parts,
        seen=np.zeros(len(parts["holdout"]), dtype=bool),
        fingerprint=source.fingerprint,
        schema=source.schema,
        label_names=source.label_names,
        notes=tuple(assigned.notes),
    )


def learned_rows(champion: Version) -> Learned:
    """Everything that the champion's cycles have met."""
    parts = [
        read_rows_file(champion.open(path))
        for path in sorted(champion.files)
        if path.startswith("rows/")
    ]
    return Learned(
        id=np.concatenate([rows.id for rows, _ in parts] or [np.empty(0, dtype=str)]),
        content=np.concatenate([rows.content for rows, _ in parts] or [np.empty(0, dtype=str)]),
        role=np.concatenate([extra["role"] for _, extra in parts] or [np.empty(0, dtype=str)]),
    )


def holdouts(version: Version) -> dict[str, tuple[Rows, Booleans]]:
    """The frozen holdouts of a version: ``history/<cycle>`` to rows and ``seen_by_champion``."""
    found = {}
    for path in sorted(version.files):
        if path.startswith("holdout/"):
            rows, extra = read_rows_file(version.open(path))
            found[f"history/{Path(path).stem}"] = (rows, extra["seen"].astype(bool))
    return found


def collect_new(data: Data, *, champion: Version, salt: str, learned: Learned) -> Parts:
    """The new rows: those that no version which was ever champion has met.

    The label names are the champion's, and after them those of the classes that the rows bring.

    Raises:
        DataError: The source is unreadable, malformed, or of another schema than history.
    """
    known = tuple(champion.manifest["label_names"])
    schema = dict(champion.manifest["schema"])
    source = data.read(data.new, name="new", label_names=known, schema=schema)
    check_schema(schema, source.schema, "history", "new")
    parts = split(source, data, salt=salt, name="new")
    held = learned.content[learned.role == "holdout"]
    trained = learned.content[learned.role != "holdout"]
    none = np.empty(0, dtype=str)
    if data.duplicates == "allow":
        held = trained = none
    train = exclude(parts.train, ids=learned.id, contents=held)
    validation = exclude(parts.validation, ids=learned.id, contents=held)
    holdout = exclude(parts.holdout, ids=learned.id, contents=trained)
    left_out = sum(
        len(before) - len(after)
        for before, after in (
            (parts.train, train),
            (parts.validation, validation),
            (parts.holdout, holdout),
        )
    )
    notes = parts.notes
    if left_out:
        notes = (*notes, f"new: {left_out} rows left out, met in an earlier cycle or held out")
    # rows left out may have been the only ones of a class
    highest = max(int(part.label.max(initial=-1)) for part in (train, validation, holdout))
    names = source.label_names[: max(len(known), highest + 1)]
    notes += _new_class_notes(names, len(known), train)
    return Parts(
        train=train,
        validation=validation,
        holdout=holdout,
        seen=np.zeros(len(holdout), dtype=bool),
        fingerprint=parts.fingerprint,
        schema=parts.schema,
        label_names=names,
        notes=notes,
    )


def _new_class_notes(names: tuple[str, ...], known: int, train: Rows) -> tuple[str, ...]:
    """Lines for the user about the classes that the new rows bring."""
    if len(names) == known:
        return ()
    counts = np.bincount(train.label, minlength=len(names))[known:]
    told = [f"{name} ({count} rows)" for name, count in zip(names[known:], counts, strict=True)]
    kind = "class" if len(told) == 1 else "classes"
    notes = [f"new: {len(told)} new {kind}, matched by name: {_shortened(told)}"]
    if unseen := [name for name, count in zip(names[known:], counts, strict=True) if not count]:
        notes.append(f"new: no training row of {_shortened(unseen)}, which is not learned yet")
    return tuple(notes)


def _shortened(words: Sequence[str]) -> str:
    return ", ".join(words[:10]) + (", …" if len(words) > 10 else "")


def collect_history(data: Data, *, champion: Version, learned: Learned, source: str) -> History:
    """History from every source that can still be read, and from memory for the rest.

    Rows of a source get the logits that memory keeps for their ids.

    Args:
        data: The sources.
        champion: Carries memory and the names of earlier sources.
        learned: Tells which row had which role.
        source: ``all``, or ``memory`` to draw from memory alone.

    Raises:
        ConfigError: ``source`` is neither.
        DataError: A source that the user named is unreadable.
    """
    if source not in ("all", "memory"):
        raise ConfigError(
            f"history is {source!r}.", where="history", mend="use history=all or history=memory"
        )
    names = tuple(champion.manifest["label_names"])
    train: list[Rows] = []
    validation: list[Rows] = []
    fingerprints: dict[str, str] = {}
    notes: list[str] = []
    roles = {kind: learned.id[learned.role == kind] for kind in ROLES}
    for key, spec in _sources(data, champion) if source == "all" else []:
        try:
            rows = data.read(spec, name=key, label_names=names, schema=champion.manifest["schema"])
        except DataError:
            if key == "history":
                raise
            notes.append(f"{key}: no longer readable, its rows come from memory")
            continue
        fingerprints[key] = rows.fingerprint
        if unknown := int((~np.isin(rows.rows.id, learned.id)).sum()):
            notes.append(f"{key}: {unknown} rows left out, which no version was trained or held on")
        train.append(_unmet(rows.rows.take(np.isin(rows.rows.id, roles["train"])), train))
        validation.append(
            _unmet(rows.rows.take(np.isin(rows.rows.id, roles["validation"])), validation)
        )
    for kind, pool in (("train", train), ("validation", validation)):
        stored = remembered(champion, kind, names)
        if stored is not None:
            pool[:] = [recalled(rows, stored) for rows in pool]
            extra = _unmet(stored, pool)
            if len(extra):
                fingerprints["memory"] = champion.files["memory/train.arrow"]
            pool.append(extra)
    return History(
        train=_joined(train),
        validation=_joined(validation),
        fingerprints=fingerprints,
        notes=tuple(notes),
    )


def _sources(data: Data, champion: Version) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    if data.history is not None:
        found.append(("history", data.history))
    for cycle, path in champion.manifest.get("sources", {}).items():
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
