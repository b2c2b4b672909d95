"""Versions of a registry as runs, and run folders together with the versions they made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from perennial.errors import PerennialError
from perennial.nested import leaves
from perennial.promotion.records import CycleRecord, Version
from perennial.promotion.registry import Registry
from perennial.tracking.compare.folders import RESULT, parsed
from perennial.tracking.compare.runs import Run, Unread, founder


class Lineages:
    """The versions of a registry and their newest decisions, each lineage read once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[str, dict[str, Version]] = {}
        self._decided: dict[str, dict[str, CycleRecord]] = {}

    def versions(self, name: str) -> Mapping[str, Version]:
        """Id to version, of one lineage, oldest first; empty where it is not known."""
        if name not in self._known:
            self._known[name] = {one.id: one for one in self._registry.versions(name)}
            # the newest decision on a candidate comes last
            self._decided[name] = {one.version: one for one in self._registry.cycles(name)}
        return self._known[name]

    def decided(self, version: Version) -> CycleRecord | None:
        """The newest decision on a version."""
        self.versions(version.name)
        return self._decided[version.name].get(version.id)

    def named(self, ref: str) -> list[Version]:
        """The versions that ``name``, ``name@3`` or ``name@champion`` names; all of ``name``.

        Raises:
            RegistryError: There is none.
        """
        name, _, which = ref.partition("@")
        if not which:
            found = list(self.versions(name).values())
            return found or [self._registry.version(f"{name}@1")]
        return [self._registry.version(ref)]


def as_run(version: Version, lineages: Lineages) -> Run | Unread:
    """A version as the run that made it."""
    config = leaves(version.manifest.get("config") or {})
    record = lineages.decided(version)
    if RESULT not in version.files:
        return replace(founder(version), config=config or None, record=record)
    try:
        found = parsed(version.read_text(RESULT))
    except (PerennialError, UnicodeDecodeError) as error:
        what = error.what if isinstance(error, PerennialError) else str(error)
        return Unread(version.id, f"its {RESULT} cannot be read: {what}")
    if isinstance(found, str):
        return Unread(version.id, f"its {RESULT} {found}")
    return Run(version.id, found, config=config or None, version=version, record=record)


def with_version(run: Run, lineages: Lineages) -> Run:
    """A run folder's run with its version, if the registry has the very one that it made."""
    name = str(run.result["model_name"])
    version = lineages.versions(name).get(run.candidate or "")
    if version is None or not run.scored:
        return run
    record = lineages.decided(version)
    if record is None or record.cycle_id != run.result["cycle_id"]:
        return run
    config = leaves(version.manifest.get("config") or {})
    return replace(run, version=version, record=record, config=config or run.config)


def once(runs: Sequence[Run]) -> tuple[list[Run], int]:
    """Each cycle's run once, the first one given, and how many others were left out."""
    kept: dict[tuple[str, ...], Run] = {}
    for run in runs:
        kept.setdefault(_identity(run), run)
    return list(kept.values()), len(runs) - len(kept)


def _identity(run: Run) -> tuple[str, ...]:
    if run.scored:
        return (str(run.result["cycle_id"]), str(run.candidate))
    return (run.name,) if run.version is None else (run.version.id,)


def names(runs: Iterable[Run]) -> list[str]:
    """Names of the lineages, sorted."""
    return sorted({str(run.result["model_name"]) for run in runs})
