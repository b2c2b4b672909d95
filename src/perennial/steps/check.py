"""Validate and describe data without training: what a cycle would find in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perennial.data.content import content_hashes
from perennial.data.images import seen
from perennial.data.learned import Learned, tied
from perennial.data.partitions import is_exhausted
from perennial.data.rows import Rows
from perennial.data.source import SourceRows, check_schema
from perennial.data.split import independent, split_salt
from perennial.errors import DataError
from perennial.promotion.policy import Policy
from perennial.promotion.registry import Registry, Version
from perennial.promotion.requirements import require_decidable
from perennial.steps.collect import Data, Parts, met, require_training_rows, split
from perennial.steps.describe import describe_columns, describe_target, repeated
from perennial.steps.history import collect_history
from perennial.steps.lineage import holdouts, lineage_of


@dataclass(frozen=True)
class _Standing:
    """What new rows are held against.

    Attributes:
        data: The settings, with partitions made explicit and preprocessing as stored.
        schema: The lineage's columns.
        names: Its classes.
        learned: What it has met.
        history: Rows that a cycle would replay from.
        held: Holdout to its rows.
        salt: Of the split.
        notes: Lines for the user.
    """

    data: Data
    schema: Mapping[str, str] | None
    names: Sequence[str] | None
    learned: Learned
    history: Rows | None
    held: Mapping[str, Rows]
    salt: str
    notes: tuple[str, ...] = ()


def check_data(
    *,
    registry: Registry,
    name: str,
    data: Data,
    policy: Policy,
    labels: Sequence[str] | None,
    seed: int,
) -> dict[str, Any]:
    """Read ``data.new`` as a cycle would, and say what is in it.

    Args:
        registry: Holds the lineage, if it is founded.
        name: Of the lineage.
        data: The sources.
        policy: The gate's, which says how many rows can decide.
        labels: Class names in the model's order, or None.
        seed: Of the run, for the split of a lineage that is not founded yet.

    Returns:
        Plain values: ``rows``, ``columns``, ``target`` (see
        `perennial.steps.describe.describe_target`), ``time`` (earliest and latest of the new rows,
        as text, or None), ``duplicates``, ``contradictions``, ``learned``, ``leaks`` (holdout to
        rows tied to it, and to rows with its features), ``split``, ``unmet`` (rows that the lineage
        has not met), ``history_rows``, ``notes``, and ``decides``: None, or why the gate cannot.

    Raises:
        DataError: The rows cannot be used; says which and why.
    """
    champion = registry.champion(name)
    stand = (
        _founding(data, labels, split_salt(name, seed))
        if champion is None
        else _lineage(registry, champion, data)
    )
    if stand.data.new is None or is_exhausted(stand.data.new):
        raise DataError(
            "There is nothing to check.",
            where="data.new",
            mend="name a source; of dated partitions one after the last that the lineage has met",
        )
    new = stand.data.read(stand.data.new, name="new", label_names=stand.names, schema=stand.schema)
    if stand.schema is not None:
        check_schema(stand.schema, new.schema, "history", "new")
    parts = split(new, stand.data, salt=stand.salt, name="new", learned=stand.learned)
    require_training_rows(parts)
    return {
        "champion": None if champion is None else champion.id,
        **_described(new, stand),
        **_against(new.rows, stand),
        "split": {
            **{kind: len(getattr(parts, kind)) for kind in ("train", "validation", "holdout")},
            "left_out": len(new.rows)
            - sum(map(len, (parts.train, parts.validation, parts.holdout))),
        },
        "unmet": parts.unmet,
        "notes": [*stand.notes, *parts.notes],
        # of rows that were all met before there is nothing to decide
        "decides": _undecidable(parts, stand, policy) if parts.unmet else None,
    }


def _founding(data: Data, labels: Sequence[str] | None, salt: str) -> _Standing:
    data = data.on([])
    if data.history is None:
        note = "history: none is given and there is no champion, so nothing was compared"
        return _Standing(data, None, labels, Learned.joined([]), None, {}, salt, (note,))
    source = data.read(data.history, name="history", label_names=labels)
    own_test = data.history_holdout is not None
    parts = split(source, data, salt=salt, name="history", holdout=not own_test)
    held, learned = parts.holdout, met(parts)
    if own_test:
        read = data.read(
            data.history_holdout,
            name="history_holdout",
            label_names=source.label_names,
            schema=source.schema,
        )
        check_schema(source.schema, read.schema, "history", "history_holdout")
        held = read.rows
        everything = Learned.of(held, np.full(len(held), "holdout"))
        learned = Learned.joined([learned, everything])
    return _Standing(
        data,
        source.schema,
        source.label_names,
        learned,
        parts.train,
        {"cycle-1": held},
        salt,
        parts.notes,
    )


def _lineage(registry: Registry, champion: Version, data: Data) -> _Standing:
    lineage = lineage_of(registry, champion)
    data = data.on(list(lineage.sources.values()))
    names, schema = champion.manifest["label_names"], champion.manifest["schema"]
    learned = lineage.learned
    history = collect_history(data, lineage=lineage, learned=learned, names=names, source="all")
    return _Standing(
        data,
        dict(schema),
        tuple(names),
        learned,
        history.train,
        holdouts(champion),
        str(champion.manifest["lineage"]["salt"]),
        history.notes,
    )


def _described(new: SourceRows, stand: _Standing) -> dict[str, Any]:
    rows, history = new.rows, stand.history
    names = new.label_names
    time = None if new.time is None else np.sort(new.time)[[0, -1]].astype(str).tolist()
    return {
        "rows": len(rows),
        "history_rows": 0 if history is None else len(history),
        "columns": describe_columns(rows, history, new.schema, stand.data.preprocess),
        "target": describe_target(rows, history, names, stand.data.kind),
        "time": time,
        "new_classes": list(names[len(stand.names) :]) if stand.names else [],
    }


def _against(rows: Rows, stand: _Standing) -> dict[str, Any]:
    """Repetitions within, and rows that the lineage or one of its holdouts knows already."""
    own = _features(rows)
    leaks = {}
    for name, held in stand.held.items():
        ties = tied(rows, Learned.of(held, np.full(len(held), "holdout")), stand.data.ties)
        same = np.isin(own, _features(held))
        leaks[name] = {"tied": int(ties.sum()), "same_features": int(same.sum())}
    _, first = np.unique(rows.content, return_index=True)
    return {
        "duplicates": repeated(rows.content),
        "contradictions": repeated(own[first]),
        "learned": int(np.isin(rows.content, stand.learned.trained.content).sum()),
        "leaks": leaks,
    }


def _features(rows: Rows) -> Any:
    """Content hashes (N,) without the label."""
    return content_hashes(seen(rows), np.full(len(rows), ""))


def _undecidable(parts: Parts, stand: _Standing, policy: Policy) -> dict[str, Any] | None:
    rows = {"new": independent(parts.holdout)}
    rows |= {f"history/{name}": independent(held) for name, held in stand.held.items() if len(held)}
    try:
        require_decidable(rows, policy)
    except DataError as error:
        return {"what": error.what, "where": error.where, "mend": error.mend}
    return None
