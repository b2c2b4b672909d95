"""Open, validate, fingerprint and split what a cycle learns from and is judged on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perennial.data.learned import (
    ROLES,
    Learned,
    Ties,
    changed_ids,
    refuse_changed_ids,
    settle,
    tied,
)
from perennial.data.memory import Memory
from perennial.data.rows import Rows, concatenate
from perennial.data.source import SourceRows, check_schema, open_source, read_rows
from perennial.data.split import assign_roles
from perennial.data.store import read_rows_file
from perennial.errors import ConfigError, DataError
from perennial.promotion.registry import Version
from perennial.steps.lineage import Lineage
from perennial.types import Booleans


@dataclass(frozen=True, kw_only=True)
class Data:
    """The sources of a lineage and how their columns are read.

    Args:
        new: Source of the new rows: a path, a hub id, or a built ``datasets.Dataset``.
        history: Source of what the champion has learned, or None.
        history_holdout: A test set of the user's own, which the lineage then holds out for good.
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

    Raises:
        ConfigError: There is no memory, or a setting is of another kind.
    """

    new: Any
    memory: Memory
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

    def __post_init__(self) -> None:
        if isinstance(self.features, str):
            object.__setattr__(self, "features", (self.features,))
        if not isinstance(self.memory, Memory):
            raise ConfigError(
                f"data.memory is {'null' if self.memory is None else self.memory!r}.",
                where="data.memory",
                mend="leave it as it was; data.memory.capacity=1 keeps next to nothing",
            )
        for name in ("validation_fraction", "holdout_fraction"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(
                    f"data.{name} is {value!r}, which is no number.",
                    where=f"data.{name}",
                    mend="give a number from 0 up and below 1",
                )

    @property
    def ties(self) -> Ties:
        """What ties rows to each other."""
        return Ties.of(duplicates=self.duplicates, grouped=self.group_column is not None)

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that tell a lineage's rows apart, by their names."""
        return {
            "data.duplicates": self.duplicates,
            "data.id_column": self.id_column,
            "data.group_column": self.group_column,
            "data.memory.seed": self.memory.seed,
        }

    def read(
        self,
        spec: Any,
        *,
        name: str,
        label_names: Sequence[str] | None,
        schema: Mapping[str, str] | None = None,
    ) -> SourceRows:
        """Open and read one source; the declared columns apply to all of them.

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
        unmet: Rows of the source whose id and content the lineage has not met.
        numbered: Whether labels are whole numbers that stand for the outputs' positions.
    """

    train: Rows
    validation: Rows
    holdout: Rows
    seen: Booleans
    fingerprint: str
    schema: Mapping[str, str]
    label_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unmet: int = 0
    numbered: bool = False


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


def split(
    source: SourceRows,
    data: Data,
    *,
    salt: str,
    name: str,
    holdout: bool = True,
    learned: Learned | None = None,
) -> Parts:
    """Divide a source's rows by the lineage's salt and by what it has met; met ones are left out.

    Args:
        source: As read.
        data: Fractions and policy.
        salt: Of the lineage.
        name: ``history`` or ``new``, for messages.
        holdout: Whether a holdout is taken where none is declared.
        learned: What the lineage has met; None for nothing.

    Raises:
        DataError: Ids stand for other rows than before.
    """
    known = Learned.joined([]) if learned is None else learned
    refuse_changed_ids(source.rows, known, name=name, column=data.id_column)
    assigned = assign_roles(
        source,
        salt=salt,
        validation_fraction=data.validation_fraction,
        holdout_fraction=data.holdout_fraction if holdout else 0.0,
        duplicates=data.duplicates,
        name=name,
    )
    rows, role = assigned.rows, assigned.role
    declared = source.declared_role is not None or source.time is not None
    role = settle(rows, role, known, ties=data.ties, declared=declared)
    met = np.isin(rows.id, known.id)
    unmet = ~met & ~(data.ties.by_content & np.isin(rows.content, known.content))
    notes = _split_notes(name, met=int(met.sum()), tied=int((~met & (role == "")).sum()))
    parts = {kind: rows.take(~met & (role == kind)) for kind in ROLES}
    return Parts(
        **parts,
        seen=np.zeros(len(parts["holdout"]), dtype=bool),
        fingerprint=source.fingerprint,
        schema=source.schema,
        label_names=source.label_names,
        notes=(*assigned.notes, *notes),
        unmet=int(unmet.sum()),
        numbered=source.numbered,
    )


def _split_notes(name: str, *, met: int, tied: int) -> list[str]:
    notes = []
    if met:
        notes.append(f"{name}: {met} rows left out, met in an earlier cycle")
    if tied:
        notes.append(
            f"{name}: {tied} rows left out, tied to held-out rows where they would train, or to "
            "trained rows where they would be held out"
        )
    return notes


def collect_new(data: Data, *, lineage: Lineage, learned: Learned) -> Parts:
    """The new rows: those that no version which was ever champion has met.

    Args:
        data: ``new`` is read.
        lineage: Owns label names, columns and the split's salt.
        learned: What it has met, with ``data.history_holdout``.

    Raises:
        DataError: The source is unreadable, malformed, or of another schema than history.
    """
    manifest = lineage.champion.manifest
    names = tuple(manifest["label_names"])
    schema = dict(manifest["schema"])
    source = data.read(data.new, name="new", label_names=names, schema=schema)
    check_schema(schema, source.schema, "history", "new")
    salt = str(manifest["lineage"]["salt"])
    return split(source, data, salt=salt, name="new", learned=learned)


def require_training_rows(new: Parts) -> None:
    """Refuse rows that the lineage has not met, of which none is to learn from.

    Raises:
        DataError: Says how many there are and where they fell.
    """
    if new.unmet and not len(new.train):
        raise DataError(
            f"The lineage has not met {new.unmet} rows of data.new, and none of them is to learn "
            f"from: {len(new.validation)} fell into validation, {len(new.holdout)} into the "
            f"holdout{_others(new)}.",
            where="data.new",
            mend="give more new rows, or smaller data.validation_fraction and "
            "data.holdout_fraction",
        )


def _others(new: Parts) -> str:
    others = new.unmet - len(new.validation) - len(new.holdout)
    return f", and {others} were left out" if others > 0 else ""


@dataclass(frozen=True)
class Given:
    """A test set of the user's own that joins the lineage's holdouts.

    Attributes:
        name: Of the holdout, ``given-<number>``.
        rows: Rows that the lineage did not hold out before.
        seen: Which of them it was trained on (N,).
        fingerprint: SHA-256 over the source's rows.
    """

    name: str
    rows: Rows
    seen: Booleans
    fingerprint: str

    @property
    def learned(self) -> Learned:
        """The rows as held-out ones."""
        return Learned.of(self.rows, np.full(len(self.rows), "holdout"))

    @property
    def note(self) -> str:
        """A line for the user."""
        told = f"history_holdout: {len(self.rows)} rows are held out from now on as {self.name}"
        if self.seen.any():
            told += f"; {int(self.seen.sum())} of them were trained on before and cannot reject"
        return told


def collect_given(data: Data, *, lineage: Lineage) -> Given | None:
    """``data.history_holdout``, where the lineage does not hold all of it out already.

    Raises:
        DataError: It is unreadable or of another schema, its ids are those of other rows, or the
            lineage was trained on all of it.
    """
    if data.history_holdout is None:
        return None
    manifest, name = lineage.champion.manifest, "history_holdout"
    schema, names = dict(manifest["schema"]), tuple(manifest["label_names"])
    source = data.read(data.history_holdout, name=name, label_names=names, schema=schema)
    check_schema(schema, source.schema, "history", name)
    learned = lineage.learned
    refuse_changed_ids(source.rows, learned, name=name, column=data.id_column)
    rows = source.rows.take(~np.isin(source.rows.content, learned.held.content))
    if not len(rows):
        return None
    seen = tied(rows, learned.trained, data.ties)
    if seen.all():
        raise DataError(
            f"{lineage.champion.name!r} was trained on every row of data.history_holdout, or on "
            "its groups, so that it tests nothing.",
            where="data.history_holdout",
            mend="give rows that no version has learned, or leave it out",
        )
    return Given(f"given-{lineage.next_number}", rows, seen, source.fingerprint)


def collect_history(data: Data, *, lineage: Lineage, learned: Learned, source: str) -> History:
    """History from every source that can still be read, and from memory for the rest.

    Args:
        data: The sources.
        lineage: Carries memory and the names of earlier sources.
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
    manifest = lineage.champion.manifest
    pools: dict[str, list[Rows]] = {"train": [], "validation": []}
    fingerprints: dict[str, str] = {}
    notes = [
        f"{version.id} served once, and what it learned is history for {lineage.champion.id}"
        for version in lineage.former
    ]
    for key, spec in _sources(data, lineage) if source == "all" else []:
        try:
            names = tuple(manifest["label_names"])
            read = data.read(spec, name=key, label_names=names, schema=manifest["schema"])
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
            stored = remembered_rows(version, kind, learned, data.ties)
            if stored is not None and len(extra := _unmet(stored, pool)):
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


def remembered_rows(version: Version, kind: str, learned: Learned, ties: Ties) -> Rows | None:
    """A version's memory, without what was held out since; None where it has none."""
    path = f"memory/{kind}.arrow"
    if path not in version.files:
        return None
    rows, _ = read_rows_file(version.open(path))
    return rows.take(~tied(rows, learned.held, ties))


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
