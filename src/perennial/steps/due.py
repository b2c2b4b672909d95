"""Ask the trigger whether a cycle is due, as far as possible before any data are opened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from perennial import clock
from perennial.data.learned import ROLES
from perennial.files import write_json
from perennial.monitoring.triggers import Firing, Manual, Past, Situation
from perennial.promotion.registry import CycleRecord, Version
from perennial.reporting.result import json_safe
from perennial.steps.material import Material
from perennial.steps.record import blank
from perennial.steps.settings import Cycle
from perennial.steps.tell import untold
from perennial.steps.watched import Watched

FIRED = "trigger.json"


def waiting(cycle: Cycle) -> dict[str, Any] | None:
    """The result of a cycle that is not due, as far as no data are needed to say so; else None.

    What an earlier run of this command began or did not tell is never held back.

    Raises:
        ConfigError: The clock reads a time before the lineage's last cycle.
    """
    early = cycle.trigger.early(_situation(cycle))
    if early is None or early.due or _overruled(cycle) or untold(cycle):
        return None
    champion = cycle.registry.champion(cycle.name)
    return None if champion is None else not_due(cycle, champion, early)


def fire(cycle: Cycle, material: Material, cycle_id: str) -> Firing:
    """Why the cycle is due, or that it is not.

    Args:
        cycle: Whose trigger is asked.
        material: The rows.
        cycle_id: One that was begun is due for the reason it was begun for.

    Raises:
        ConfigError: The clock reads a time before the lineage's last cycle.
        DataError: The rows, or what the champion carries of its own, cannot be looked at.
    """
    fired = _fired(cycle, material, cycle.work_folder(cycle_id) / FIRED)
    if fired.due and fired.kind != Manual.kind:
        cycle.say(f"Due ({fired.kind}): {fired.reason}")
    return fired


def keep(cycle: Cycle, cycle_id: str, fired: Firing) -> None:
    """Leave in the work folder why the cycle runs, so that one that is killed goes on."""
    write_json(cycle.work_folder(cycle_id) / FIRED, fired.to_dict())


def not_due(
    cycle: Cycle, champion: Version, fired: Firing, material: Material | None = None
) -> dict[str, Any]:
    """The result of a cycle that is not due.

    Args:
        cycle: The one that was asked for.
        champion: Serves on.
        fired: Says why.
        material: The rows, where they were looked at.
    """
    seen = material and {"rows": len(material.new.train), "sha256": material.new.fingerprint}
    return {
        **blank(cycle, "skipped", fired.reason),
        "champion": {"id": champion.id},
        "trigger": fired.to_dict(),
        "data": seen and {"new": seen, "history": None, "memory": None},
    }


def past(records: Sequence[CycleRecord]) -> list[Past]:
    """A lineage's decided cycles, oldest first.

    What founded it is none, nor is a trial of a sweep that was not chosen. A candidate that was
    decided again is one cycle, of the time when it was first decided.

    Args:
        records: Its decisions, oldest first.
    """
    decided: dict[int, list[CycleRecord]] = {}
    for record in records:
        if record.champion is not None and not record.trial:
            decided.setdefault(record.candidate, []).append(record)
    found = [
        Past(
            datetime.fromisoformat(own[0].decided_at),
            own[-1].verdict,
            own[-1].applied,
            own[0].device_seconds,
        )
        for own in decided.values()
    ]
    return sorted(found, key=lambda one: one.decided_at)


def _fired(cycle: Cycle, material: Material, kept: Path) -> Firing:
    if kept.is_file():
        return Firing(**json.loads(kept.read_text()))
    situation = _situation(cycle, material)
    early = cycle.trigger.early(situation)
    if early is not None and early.due:
        return early
    fired = _overruled(cycle) or early or cycle.trigger.ask(situation)
    return replace(fired, evidence=json_safe(fired.evidence))


def _situation(cycle: Cycle, material: Material | None = None) -> Situation:
    cycles = past(cycle.registry.cycles(cycle.name))
    if material is None:
        return Situation(now=clock.now(), cycles=cycles)
    rows = sum(len(getattr(material.new, kind)) for kind in ROLES)
    watched = Watched(cycle, material)
    return Situation(
        now=clock.now(),
        cycles=cycles,
        rows=rows,
        reference=watched.reference,
        window=watched.window,
        represent=watched.represent,
        errors=watched.errors,
        device=cycle.training.device(),
    )


def _overruled(cycle: Cycle) -> Firing | None:
    """Due whatever the trigger says."""
    if cycle.force:
        return Firing(kind=cycle.trigger.kind, due=True, reason="asked for by force=true")
    if _is_first(cycle):
        reason = "the lineage's first cycle belongs to its founding"
        return Firing(kind=cycle.trigger.kind, due=True, reason=reason)
    return None


def _is_first(cycle: Cycle) -> bool:
    """Whether the run that founds the lineage has still to go on with its first cycle.

    It may have been killed between both. A lineage that was adopted on its own waits for the
    trigger.
    """
    champion = cycle.registry.champion(cycle.name)
    if champion is None or past(cycle.registry.cycles(cycle.name)):
        return champion is None
    return champion.manifest["how"] == "bootstrap" or cycle.checkpoint is not None
