"""Open, validate, fingerprint and split what a cycle learns from and is judged on."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from perennial.data.augment import Augmentation
from perennial.data.forgotten import without_forgotten
from perennial.data.labels import NEW_CLASSES
from perennial.data.learned import (
    ROLES,
    Learned,
    Ties,
    refuse_changed_ids,
    settle,
)
from perennial.data.memory import Memory
from perennial.data.partitions import is_exhausted, resolved
from perennial.data.placement import check_placement
from perennial.data.preprocess import Preprocessor
from perennial.data.preprocess.base import nature, refuse_lacking
from perennial.data.rows import Rows, concatenate
from perennial.data.source import SourceRows, check_schema, open_source, read_rows
from perennial.data.split import assign_roles
from perennial.data.tables import Csv, check_csv
from perennial.errors import ConfigError, DataError
from perennial.monitoring.reference import check_capacity
from perennial.steps.lineage import Lineage
from perennial.tasks.base import Task
from perennial.types import Booleans


@dataclass(frozen=True, kw_only=True)
class Data:
    """The sources of a lineage and how their columns are read.

    Args:
        new: Source of the new rows, see `perennial.data.opening.open_source`; of dated partitions
            those after the last one that the lineage has met. None where a lineage is only founded.
        history: Source of what the champion has learned, or None.
        history_holdout: A test set of the user's own, which the lineage then holds out for good.
        columns: Names of the columns of csv and tsv files without a header, in the files' order.
        delimiter: What stands between the values of csv files; None looks at their first lines.
        label: Target column; None for a task whose targets are the inputs themselves.
        features: Feature columns; None takes all others.
        id_column: Column of row ids, or None for content hashes.
        group_column: Rows of one group (a user, a session) fall on one side of the split.
        split_column: Column that says train, validation or holdout.
        time_column: The latest rows by this column are the holdout.
        holdout_from: Time from which on rows of ``new`` are held out, in the form of the time
            column; None holds the latest share out.
        gap: Rows of so long before the held-out ones are left out: a number in the time column's
            unit, or ``12h``, ``7d``, ``2w`` for dates and times. None leaves none out.
        slice_columns: Columns by whose values the gate looks at slices of the holdouts; features
            only where ``features`` names them.
        form: ``tuple`` or ``dict``: what the module's ``training_step`` gets.
        duplicates: ``group``, ``drop`` or ``allow``.
        validation_fraction: Share of rows for early stopping and the choice of weights.
        holdout_fraction: Share of rows never trained on, where no split is declared.
        preprocess: Makes model inputs of raw columns, text and categories among them; fitted once,
            on the training rows that found the lineage. None takes columns of numbers as they are.
        augment: Changes the inputs of training batches on the device, by chance; what is stored,
            validated, judged or estimated from is as it came.
        memory: Keeps a bounded sample of history with each version.
        reference_rows: Rows of each cycle that its version carries to tell drift by, a sample of
            those that it trained on and held out.
        sampling: ``passes`` visits every new row once an epoch; ``replacement`` draws each on its
            own.
        placement: Where training rows lie: ``host``, ``device``, or ``auto``, which takes the
            device where they need at most a quarter of its free memory.
        new_classes: What becomes of a label, or an item with a name, in ``new`` that the lineage
            does not know: ``refuse``, or ``grow`` to append it to the lineage's classes or items.

    Attributes:
        kind: What the targets are, as the task has it; see `for_task`.

    Raises:
        ConfigError: ``new_classes`` is neither, ``features`` lack what is preprocessed, or settings
            of csv files or of time make no sense.
    """

    memory: Memory = field(default_factory=Memory)
    new: Any = None
    history: Any = None
    history_holdout: Any = None
    columns: Sequence[str] | None = None
    delimiter: str | None = None
    label: str | None = "label"
    features: Sequence[str] | None = None
    id_column: str | None = None
    group_column: str | None = None
    split_column: str | None = None
    time_column: str | None = None
    holdout_from: Any = None
    gap: Any = None
    slice_columns: Sequence[str] = ()
    form: str = "tuple"
    duplicates: str = "group"
    validation_fraction: float = 0.15
    holdout_fraction: float = 0.2
    sampling: str = "passes"
    placement: str = "auto"
    new_classes: str = "refuse"
    reference_rows: int = 10_000
    preprocess: Preprocessor | None = None
    augment: Augmentation | None = None
    kind: str = field(default="class", init=False)

    def __post_init__(self) -> None:
        if self.new_classes not in NEW_CLASSES:
            raise ConfigError(
                f"{self.new_classes!r} is not what can become of new classes.",
                where="data.new_classes",
                mend=f"use {' or '.join(NEW_CLASSES)}",
            )
        for name in ("features", "slice_columns", "columns"):
            if isinstance(given := getattr(self, name), str):
                object.__setattr__(self, name, (given,))
        check_csv(self.columns, self.delimiter)
        check_placement(self.placement)
        check_capacity(self.reference_rows)
        for name in ("holdout_from", "gap"):
            if getattr(self, name) is not None and self.time_column is None:
                raise ConfigError(
                    f"data.{name} is given, and no column tells the time of a row.",
                    where=f"data.{name}, data.time_column",
                    mend="name it in data.time_column",
                )
        if self.preprocess is not None:
            refuse_lacking(self.preprocess, self.features)

    def for_task(self, task: Task) -> Data:
        """The same, with targets read as the task takes them.

        Raises:
            ConfigError: A setting makes sense for other tasks only.
        """
        kind = task.target_kind
        if (self.label is None) != (kind == "none"):
            raise ConfigError(
                f"data.label is {'null' if self.label is None else self.label}, and "
                f"{type(task).__name__} "
                + ("takes its targets from the inputs." if kind == "none" else "needs targets."),
                where="data.label",
                mend="set data.label=null" if kind == "none" else "name the target column",
            )
        asked = {
            "data.new_classes=grow": (self.new_classes == "grow", ("class", "item")),
            "data.memory.selection=class_balanced": (
                self.memory.selection == "class_balanced",
                ("class",),
            ),
        }
        for setting, (is_asked, kinds) in asked.items():
            if is_asked and kind not in kinds:
                raise ConfigError(
                    f"{setting} is for rows of one class each; those of {type(task).__name__} are "
                    "not.",
                    where=setting.partition("=")[0],
                    mend="leave it out",
                )
        found = copy.copy(self)
        object.__setattr__(found, "kind", kind)
        return found

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

    def csv(self, schema: Mapping[str, str] | None = None) -> Csv:
        """How csv and tsv files are read: categories, texts and keys as they are written.

        So is a label that is a class's or an item's name with a leading zero.

        Args:
            schema: The lineage's columns, which say what is text where ``preprocess`` does not.
        """
        keys = {self.id_column, self.group_column, self.split_column, *self.slice_columns}
        others = {self.label, self.time_column}

        def as_written(column: str) -> bool:
            if column in keys or column in others or self.preprocess is None:
                return column in keys
            known = (schema or {}).get(column)
            natures = ["text", "number"] if known is None else [nature(known)]
            kinds = {self.preprocess.kind(column, one) for one in natures}
            return kinds.isdisjoint(("number", "fixed"))

        columns = None if self.columns is None else tuple(self.columns)
        named = self.label if self.kind in ("class", "item") else None
        return Csv(columns, self.delimiter, as_written, lambda column: column == named)

    def on(self, known: Sequence[Any]) -> Data:
        """With dated partitions made explicit; see `perennial.data.partitions.resolved`.

        Args:
            known: Sources of the lineage's cycles; none where it is to be founded.
        """
        history = resolved(self.history, known, new=False)
        found = replace(self, history=history, new=resolved(self.new, [*known, history], new=True))
        object.__setattr__(found, "kind", self.kind)
        return found

    def read(
        self,
        spec: Any,
        *,
        name: str,
        label_names: Sequence[str] | None,
        schema: Mapping[str, str] | None = None,
        holds_out: bool = True,
    ) -> SourceRows:
        """Open and read one source; the declared columns apply to all of them.

        Of all sources ``new`` alone may bring classes that ``label_names`` lack. Where no row is to
        be held out, slice columns may be absent: an earlier source may not have had them.

        Raises:
            DataError: See `perennial.data.source`.
        """
        dataset = open_source(spec, name=name, csv=self.csv(schema))
        there = dataset.column_names
        slices = [column for column in self.slice_columns if holds_out or column in there]
        return read_rows(
            dataset,
            name=name,
            label=self.label,
            kind=self.kind,
            features=self.features,
            id_column=self.id_column,
            group_column=self.group_column,
            split_column=self.split_column,
            time_column=self.time_column,
            slice_columns=slices,
            label_names=label_names,
            new_classes=self.new_classes if name == "new" else None,
            schema=schema,
            preprocess=self.preprocess,
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
        holdout_from=data.holdout_from if name == "new" else None,
        gap=data.gap,
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


def met(parts: Parts) -> Learned:
    """The rows of a source with their roles."""
    divided = [getattr(parts, kind) for kind in ROLES]
    return Learned.of(concatenate(divided), np.repeat(ROLES, [len(rows) for rows in divided]))


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

    The label names are the champion's, and after them those of the classes that the rows bring.

    Args:
        data: ``new`` is read.
        lineage: Owns label names, columns and the split's salt.
        learned: What it has met, with ``data.history_holdout``.

    Raises:
        DataError: The source is unreadable, malformed, or of another schema than history.
    """
    manifest = lineage.champion.manifest
    known = tuple(manifest["label_names"])
    schema = dict(manifest["schema"])
    if is_exhausted(data.new):
        return _nothing(schema, known)
    source = data.read(data.new, name="new", label_names=known, schema=schema)
    check_schema(schema, source.schema, "history", "new")
    source, told = without_forgotten(source, lineage.forgotten, "new")
    if not len(source.rows):
        return replace(_nothing(schema, known), fingerprint=source.fingerprint, notes=(told,))
    salt = str(manifest["lineage"]["salt"])
    parts = split(source, data, salt=salt, name="new", learned=learned)
    parts = replace(parts, notes=(*([told] if told else []), *parts.notes))
    if data.kind not in ("class", "item") or not known:
        return parts
    # rows left out may have been the only ones of a class
    highest = max(int(getattr(parts, kind).label.max(initial=-1)) for kind in ROLES)
    names = source.label_names[: max(len(known), highest + 1)]
    notes = (*parts.notes, *_new_class_notes(names, len(known), parts.train, data.kind))
    return replace(parts, label_names=names, notes=notes)


def _nothing(schema: Mapping[str, str], label_names: tuple[str, ...]) -> Parts:
    """No partition has come since the last one."""
    none = np.empty(0, dtype=np.str_)
    rows = Rows(features={}, label=np.empty(0, np.int64), id=none, content=none, cluster=none)
    return Parts(
        train=rows,
        validation=rows,
        holdout=rows,
        seen=np.zeros(0, dtype=bool),
        fingerprint="",
        schema=schema,
        label_names=label_names,
        notes=("new: no partition has come since the last one that the lineage has met",),
    )


def _new_class_notes(names: tuple[str, ...], known: int, train: Rows, kind: str) -> tuple[str, ...]:
    """Lines for the user about the classes or items that the new rows bring."""
    if len(names) == known:
        return ()
    counts = np.bincount(train.label, minlength=len(names))[known:]
    told = [f"{name} ({count} rows)" for name, count in zip(names[known:], counts, strict=True)]
    one, several = ("item", "items") if kind == "item" else ("class", "classes")
    word = one if len(told) == 1 else several
    notes = [f"new: {len(told)} new {word}, matched by name: {_shortened(told)}"]
    if unseen := [name for name, count in zip(names[known:], counts, strict=True) if not count]:
        notes.append(f"new: no training row of {_shortened(unseen)}, not learned yet")
    return tuple(notes)


def _shortened(words: Sequence[str]) -> str:
    return ", ".join(words[:10]) + (", …" if len(words) > 10 else "")


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
