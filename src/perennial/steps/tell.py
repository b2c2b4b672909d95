"""Tell what was decided: the page, the tracked run, the notifier; what was interrupted, later.

The registry has moved before anything is told, so trouble here is a line and never a failure. A
cycle's work folder stays until it was told, and is how the next run finds one that was not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from perennial import files
from perennial.errors import EXIT_SKIPPED, PerennialError
from perennial.masking import plain
from perennial.promotion import predictions
from perennial.promotion.registry import CycleRecord, Version
from perennial.reporting.result import PAGE, RESULT
from perennial.steps.again import decide_again, retold, stored_report
from perennial.steps.notify import notify
from perennial.steps.page import page_again
from perennial.steps.settings import Cycle
from perennial.tracking.mirror import mirrored, numbered
from perennial.tracking.summary import measured, summary
from perennial.tracking.tables import checks, flips, slices


def tell(cycle: Cycle, version: Version, result: Mapping[str, Any]) -> dict[str, Any]:
    """Write the page, track the run, notify, and clear the cycle's work away.

    Args:
        cycle: Whose run folder and tracker they are.
        version: The candidate, committed.
        result: As the version keeps it.

    Returns:
        The result with the paths of this run.
    """
    told = {**result, "tracking": cycle.tracker.identity()}
    if cycle.dry:
        return told
    trouble = _trouble(lambda: _track(cycle, version, told))
    trouble = _trouble(lambda: told.update(report=_write_page(cycle, version, told))) or trouble
    if not told["decision"]["charge"]["trial"]:
        notify(cycle.notifier, told, say=cycle.say_last)
    # last: a run that is killed before this line is told by the next one
    trouble = trouble or _trouble(lambda: cycle.registry.remove_work_folder(str(told["cycle_id"])))
    if trouble:
        cycle.say(
            f"{version.id} is recorded as {told['status']}, but this could not be written: "
            f"{trouble.what} The page is in perennial registry path {version.id}"
        )
    return told


def adopted(cycle: Cycle, version: Version) -> None:
    """Track a version that founded its lineage."""
    if cycle.tracker.identity()["run_id"] is None:
        return
    cycle.tracker.summary(
        {"champion/id": version.id, **measured({"champion": version.manifest["metrics"]})}
    )
    cycle.tracker.artifact(**mirrored(version, ["champion"]))


def _trouble(write: Callable[[], None]) -> PerennialError | None:
    try:
        write()
    except PerennialError as error:
        return error
    return None


def _write_page(cycle: Cycle, version: Version, told: Mapping[str, Any]) -> str | None:
    if PAGE not in version.files:
        return None
    path, first = cycle.folder / PAGE, json.loads(version.read_text(RESULT))["decision"]
    same = all(first[name] == told["decision"][name] for name in ("alpha", "applied", "charge"))
    page = version.open(PAGE).read_bytes() if same else page_again(version, told)
    files.write_bytes(path, page)
    return str(path)


def told_late(cycle: Cycle, *, bootstrap: bool) -> dict[str, Any] | None:
    """Tell a cycle of this very command that was decided and then killed; None if there is none."""
    if (found := untold(cycle)) is None:
        return None
    version, record = found
    cycle.say(f"{version.id} was decided by a run that was stopped before it could tell")
    return tell(cycle, version, {**retold(version, record), "bootstrap": bootstrap})


def untold(cycle: Cycle) -> tuple[Version, CycleRecord] | None:
    """What this very command decided and was killed before it could tell; None for nothing."""
    for record in cycle.registry.untold(cycle.name):
        version = cycle.registry.version(f"{record.name}@{record.candidate}")
        same = version.manifest["config"] == json.loads(json.dumps(plain(cycle.config)))
        if same and RESULT in version.files and not _is_held_back(cycle, record):
            return version, record
    return None


def told_again(
    cycle: Cycle, champion: Version, earlier: CycleRecord, *, bootstrap: bool
) -> dict[str, Any]:
    """This very cycle was decided; a promotion that was held back is applied now.

    Raises:
        ChampionChangedError: Another run promoted meanwhile.
    """
    version = cycle.registry.version(earlier.version)
    if _is_held_back(cycle, earlier):
        with cycle.registry.working(earlier.cycle_id):  # its folder says: not told yet
            try:
                return _applied(cycle, version, earlier, bootstrap=bootstrap)
            except PerennialError:
                cycle.registry.remove_work_folder(earlier.cycle_id)  # nothing was done
                raise
    return {
        **retold(version, earlier),
        "status": "skipped",
        "exit_code": EXIT_SKIPPED,
        "bootstrap": bootstrap,
        "trigger": {
            "kind": cycle.trigger.kind,
            "due": None,
            "reason": f"this cycle was decided already ({earlier.verdict}); force=true decides "
            "it again",
            "evidence": {},
        },
        "champion": {"id": champion.id},
        "metrics": None,
        "cost": None,
        "forgetting": None,
        "serving": None,
        "data": None,
    }


def _is_held_back(cycle: Cycle, record: CycleRecord) -> bool:
    """Whether this run is about to apply what another has decided and told."""
    return cycle.promote and record.verdict == "promoted" and not record.applied


def _applied(
    cycle: Cycle, version: Version, earlier: CycleRecord, *, bootstrap: bool
) -> dict[str, Any]:
    """Promote what was held back; a trial is decided again first, at what it is charged."""
    reason = "decided earlier without promoting; applied now"
    if earlier.trial:
        decide_again(
            cycle.registry,
            version,
            policy=cycle.policy,
            settings=cycle.policy_settings,
            promote=True,
        )
        version = cycle.registry.version(version.id)
        reason = "a trial of a sweep, decided again at what choosing it is charged"
    else:
        cycle.registry.apply(earlier.cycle_id)
    record = cycle.registry.decision(version.name, version.number)
    assert record is not None
    trigger = {"kind": cycle.trigger.kind, "due": True, "reason": reason, "evidence": {}}
    return tell(
        cycle, version, {**retold(version, record), "trigger": trigger, "bootstrap": bootstrap}
    )


def _track(cycle: Cycle, version: Version, told: Mapping[str, Any]) -> None:
    if told["tracking"]["run_id"] is None:
        return
    cycle.tracker.summary(summary(told))
    tables = {"checks": checks(told["decision"])}
    if predictions.ROWS in version.files:
        report = stored_report(version)
        tables |= {"slices": slices(report), "flips": flips(report)}
    for name, table in tables.items():
        cycle.tracker.table(f"tables/{name}", table.columns, table.rows)
    applied = told["decision"]["applied"]
    served = cycle.registry.version(told["champion"]["id"])
    cycle.tracker.use(**mirrored(served, ["previous"] if applied else []))
    aliases = ["candidate", *(["champion"] if applied else [])]
    cycle.tracker.artifact(**mirrored(version, aliases))
    if PAGE in version.files:
        cycle.tracker.artifact(
            name=f"{cycle.name}-report",
            kind="report",
            files={PAGE: version.open(PAGE)},
            aliases=[numbered(version.number)],
            metadata={"id": version.id, "verdict": told["decision"]["verdict"]},
        )
