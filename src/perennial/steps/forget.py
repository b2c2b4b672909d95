"""Forget rows: out of every file of every version of a lineage, and never met again."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from perennial.data.query import Named, Query, matching, unknown_column
from perennial.data.store import read_rows_file
from perennial.errors import RegistryError
from perennial.monitoring.performance import record as predictions
from perennial.promotion.erasure import Erasure
from perennial.promotion.manifest import check_manifest
from perennial.promotion.registry import Registry, Version
from perennial.promotion.windows import Window
from perennial.reporting.result import PAGE
from perennial.steps.keep import KINDS
from perennial.steps.lineage import learned_rows
from perennial.steps.page import redrawn
from perennial.steps.rewrite import Rewriter, is_rows


@dataclass(frozen=True)
class Plan:
    """What forgetting would do.

    Attributes:
        name: The lineage.
        query: How rows were named: its kind alone is ever kept.
        ids: To forget, of rows that were met or not.
        known: Those of them that the lineage keeps.
        roles: Of these, how many were in ``train``, ``validation`` and ``holdout``.
        unseen: Rows that are kept without the column that was asked for.
        before: Version number to its files, path to SHA-256.
        after: The same without the rows; empty where nothing is to be done.
        counts: Plain numbers for the record.
        holdouts: Of the champion, cycle to rows before and after.
        memory: Of the champion, part to rows before and after.
        recorded: Version number and window to the file of its recorded predictions.
        reduced: The same without the rows, where that changes; None where no row is left.
        predictions: Rows in these before and after.
    """

    name: str
    query: Query
    ids: frozenset[str]
    known: frozenset[str]
    roles: Mapping[str, int]
    unseen: int
    before: Mapping[int, Mapping[str, str]]
    after: Mapping[int, Mapping[str, str]]
    counts: Mapping[str, Any]
    holdouts: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    memory: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    recorded: Mapping[tuple[int, str], str] = field(default_factory=dict)
    reduced: Mapping[tuple[int, str], str | None] = field(default_factory=dict)
    predictions: tuple[int, int] = (0, 0)


def plan(registry: Registry, name: str, query: Query, *, dry: bool) -> Plan:
    """Find the rows, and write files without them; no version points to these yet.

    Args:
        registry: Where the lineage lives.
        name: The lineage.
        query: Names the rows.
        dry: Count, and store nothing.

    Raises:
        RegistryError: There is no such lineage, or a stored file is damaged.
        ConfigError: The query's column is kept of no row.
    """
    versions = registry.versions(name)
    if not versions:
        raise RegistryError(
            f"The registry has no model named {name!r}.",
            where=name,
            mend=f"there are: {', '.join(registry.lineages()) or 'none yet'}",
        )
    for version in versions:
        check_manifest(version)
    windows = registry.windows(name)
    known, unseen = _found(versions, windows, query)
    serving = registry.aliases(name).get("champion")
    champion = next((one for one in versions if one.number == serving), versions[-1])
    before = {version.number: version.files for version in versions}
    recorded = {(one.number, one.window): one.sha256 for one in windows}
    ids = query.ids | known
    if not known:
        counts: dict[str, Any] = {"ids": len(ids), "rows": 0, "versions": 0}
        return Plan(name, query, ids, known, {}, unseen, before, {}, counts, recorded=recorded)
    tied = _tied(versions, known)
    with tempfile.TemporaryDirectory(prefix="perennial-forget-") as folder:
        rewriter = Rewriter(known, tied, Path(folder), None if dry else registry.stage)
        after = {version.number: rewriter.version(version) for version in versions}
        roles = rewriter.roles(versions)
        holdouts = rewriter.holdouts(champion)
        memory = {kind: rewriter.memory(champion, kind) for kind in KINDS}
    if not dry:
        _redraw(registry, versions, after)
    reduced, predicted = _without(registry, windows, known, dry=dry)
    counts = {
        "ids": len(ids),
        "rows": len(known),
        "roles": roles,
        "versions": sum(before[number] != files for number, files in after.items()),
        "memory": {kind: list(pair) for kind, pair in memory.items()},
        "holdouts": {stem: list(pair) for stem, pair in holdouts.items()},
        "predictions": list(predicted),
    }
    return Plan(
        name,
        query,
        ids,
        known,
        roles,
        unseen,
        before,
        after,
        counts,
        holdouts,
        memory,
        recorded,
        reduced,
        predicted,
    )


def forget(registry: Registry, made: Plan) -> tuple[Erasure | None, int, int]:
    """Do what was planned; doing it again finishes what was interrupted.

    Returns:
        The record, None where nothing was left to forget; files deleted; unfinished cycles removed.

    Raises:
        RegistryError: A cycle of the lineage is running, or another run committed meanwhile.
    """
    unfinished = registry.remove_copies(made.name)
    done = None
    tombstones = registry.forgotten(made.name)
    asked = np.array(sorted(made.ids), dtype=np.str_)
    if made.known or not tombstones.mask(asked).all():
        done = registry.erase(
            made.name,
            ids=made.ids,
            query=made.query.kind,
            counts=made.counts,
            before=made.before,
            after=made.after,
            recorded=made.recorded,
            reduced=made.reduced,
        )
    # what a killed process left half-written may hold the rows too
    return done, registry.sweep(), unfinished


def _found(
    versions: list[Version], windows: list[Window], query: Query
) -> tuple[frozenset[str], int]:
    """Ids of the rows that a query names, and how many rows could not be looked at."""
    found: set[str] = set()
    looked: set[str] = set()
    there: set[str] = set()
    columns: dict[str, None] = {}
    done: set[str] = set()
    for version in versions:
        named = _named(version)
        columns |= dict.fromkeys(named.of_every_row)
        for path, sha256 in version.files.items():
            if not is_rows(path) or sha256 in done:
                continue
            done.add(sha256)
            rows, _ = read_rows_file(version.open(path))
            columns |= dict.fromkeys([*rows.features, *rows.slices])
            there |= set(rows.id.tolist())
            mask = matching(rows, query, named)
            if mask is not None:
                looked |= set(rows.id.tolist())
                found |= set(rows.id[mask].tolist())
    by_id = _asked(query, {_named(version).id for version in versions})
    for window in windows:
        kept = set(predictions.read(window.open()).id.tolist())
        there |= kept
        if by_id is not None:
            looked |= kept
            found |= kept & by_id
    if query.kind == "where" and query.column not in columns:
        raise unknown_column(query, list(columns))
    return frozenset(found), len(there - looked)


def _asked(query: Query, id_columns: set[str | None]) -> frozenset[str] | None:
    """Ids that a query names, of rows that are kept without any other column; None for none."""
    if query.kind != "where":
        return query.ids
    return frozenset({query.value}) if query.column in id_columns else None


def _without(
    registry: Registry, windows: list[Window], ids: frozenset[str], *, dry: bool
) -> tuple[dict[tuple[int, str], str | None], tuple[int, int]]:
    """Recorded predictions without the rows: window to its new file, and rows before and after."""
    found: dict[tuple[int, str], str | None] = {}
    before = after = 0
    for window in windows:
        record = predictions.read(window.open())
        keep = ~np.isin(record.id, sorted(ids))
        before, after = before + len(keep), after + int(keep.sum())
        if not keep.all():
            new = None
            if keep.any():
                content = predictions.to_bytes(record.take(keep))
                new = window.sha256 if dry else registry.stage(content)
            found[window.number, window.window] = new
    return found, (before, after)


def _named(version: Version) -> Named:
    manifest = version.manifest
    names = manifest["label_names"] if manifest["task"]["kind"] in ("class", "item") else ()
    return Named(
        id=manifest["lineage"]["data.id_column"],
        group=manifest["lineage"]["data.group_column"],
        label=manifest["columns"]["label"],
        label_names=names,
    )


def _tied(versions: list[Version], ids: frozenset[str]) -> frozenset[str]:
    """Clusters and contents of the rows: what files name them by that keep no id."""
    found: set[str] = set()
    for version in versions:
        met = learned_rows(version)
        mask = np.isin(met.id, sorted(ids))
        found |= {*met.content[mask].tolist(), *met.cluster[mask].tolist()}
    return frozenset(found)


def _redraw(registry: Registry, versions: list[Version], after: dict[int, dict[str, str]]) -> None:
    """Pages show single rows: draw those anew whose version was judged on forgotten ones."""
    for version in versions:
        files = after[version.number]
        changed = {path for path, sha256 in files.items() if version.files.get(path) != sha256}
        if not any(path.startswith(("predictions/", "holdout/")) for path in changed):
            continue
        reduced = replace(version, files=files)
        for path in [path for path in files if path.rpartition("/")[2] == PAGE]:
            files[path] = registry.stage(redrawn(registry, reduced, path))
