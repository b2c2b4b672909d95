"""The checks of a version on a window of rows, without training.

Shapes: N rows of the window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.data.partitions import is_exhausted
from perennial.errors import DataError, RegistryError
from perennial.files import digest
from perennial.monitoring import course
from perennial.monitoring.calibration import YEAR, Calibration
from perennial.monitoring.columns import NumberColumn
from perennial.monitoring.drift import Examiner
from perennial.monitoring.findings import Findings, Shift
from perennial.monitoring.performance import (
    Performance,
    Record,
    examine_performance,
    mean_score,
    recorded,
)
from perennial.monitoring.reference import Reference, as_numbers, counted
from perennial.monitoring.window import Window
from perennial.promotion.looks import Look
from perennial.promotion.registry import Registry, Version
from perennial.reporting.result import json_safe
from perennial.steps.arrived import Arrived, read_late, read_window
from perennial.steps.collect import Data
from perennial.steps.due import past
from perennial.steps.learner import Learner
from perennial.steps.lineage import learned_rows, lineage_of, refuse_another_identity
from perennial.steps.predicted import (
    confidence,
    drop_outgrown,
    held_out_now,
    held_out_of,
    recorded_of,
)
from perennial.steps.recording import record, record_late
from perennial.steps.reference import reference_of, represent
from perennial.types import Predictions

LEVEL = 0.95
# what is drawn and followed through the window's time: all that moved, and of the rest the farthest
PICTURES = 12
CALM = 4
# what is compared of columns that hold more than a number
VALUES = {"length": "characters", "mean": "mean of a row's values"}
KINDS = ("drift", "performance")
# of an estimate, what later windows are told
ESTIMATED = ("now", "interval")


@dataclass(frozen=True, kw_only=True)
class DriftChecks:
    """How inputs, predictions and features are compared; see `perennial.monitoring.drift`."""

    minimum_effect: float = 0.1
    tests: tuple[str, ...] = ("mmd",)
    permutations: int = 500
    model: bool = True
    draws: int = 400


@dataclass(frozen=True, kw_only=True)
class PerformanceChecks:
    """How scores are watched; see `perennial.monitoring.performance`."""

    smallest_drop: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Checks:
    """What is checked.

    Attributes:
        false_alarms_per_year: Of all that is checked, without any change; each kind has its part.
        every: From one window to the next.
        drift: None leaves drift out.
        performance: None leaves the scores out.
        seed: Of resampling.
    """

    false_alarms_per_year: float
    every: timedelta
    drift: DriftChecks | None
    performance: PerformanceChecks | None
    seed: int = 0

    @property
    def rate(self) -> float:
        """False alarms a year of each kind."""
        return self.false_alarms_per_year / (2 if self.drift and self.performance else 1)


@dataclass(frozen=True)
class _Seen:
    """A window against a version.

    Attributes:
        window: Its rows.
        key: Its fingerprint.
        found: What the version predicts for them; None where it needs labels for that.
        now: When it was looked at first.
        earlier: What was found in windows before it.
    """

    window: Arrived
    key: str
    found: Predictions | None
    now: datetime
    earlier: Sequence[Look]


def monitor(
    *,
    registry: Registry,
    version: Version,
    learner: Learner,
    data: Data,
    checks: Checks,
    labels: Any,
    now: datetime,
) -> dict[str, Any]:
    """Hold ``data.new`` against what a version was made from and how it did.

    Predictions, labels and what was found are recorded. The same rows looked at again give the
    same, and record nothing twice.

    Args:
        registry: Where the version lives.
        version: What is monitored.
        learner: Its model.
        data: The sources, with preprocessing as stored.
        checks: What is checked.
        labels: Source of ids and labels that came late, or None.
        now: The present time, aware.

    Returns:
        Plain values, as ``monitor.json`` keeps them: ``version``, ``created``, ``alarm``,
        ``reason``, ``window``, ``drift``, ``performance``, ``windows`` and ``notes``.

    Raises:
        DataError: The rows or the clock cannot be used; says which and why.
        RegistryError: The version carries no reference, or one of other columns.
        ConfigError: Settings tell rows apart otherwise than the lineage does.
    """
    refuse_another_identity(version, identity=data.identity, labels=None)
    reference = _reference(version) if checks.drift else None
    seen = _seen(registry, version, learner, data, reference, now)
    learned = np.isin(seen.window.rows.id, learned_rows(version).trained.id)
    notes = _notes(seen.window, learner, trained_on=int(learned.sum()))
    drift = None
    if checks.drift and reference is not None:
        examiner = _examiner(reference, version, learner, checks)
        findings = examiner.examine(Window.of(seen.window.rows.features, reference))
        drift = _drift(examiner, findings, seen, version)
        notes += [*findings.notes, *_constant(examiner, seen.window)]
    if seen.found is not None:
        record(
            registry,
            version,
            rows=seen.window.rows,
            is_labelled=seen.window.is_labelled,
            keyed=seen.window.keyed,
            found=seen.found,
            key=seen.key,
            now=seen.now,
            learned=learned,
        )
    if labels is not None:
        late = read_late(labels, data, names=tuple(version.manifest["label_names"]))
        joined = record_late(registry, version, late, task=learner.task, now=now)
        if joined.passed:
            notes.append(
                f"{joined.passed} labels of rows that are forgotten, or that a sample of a large "
                "window left out"
            )
    records = _records(registry, version, seen)
    performance, untold = None, None
    if checks.performance:
        performance, untold = _performance(registry, version, learner, records, checks)
    told = _told(version, learner, checks, seen, drift, performance, untold, notes)
    looked = json_safe(_looked(told))
    registry.keep_look(version, seen.key, looked_at=seen.now, found=looked)
    told["windows"] = _windows(records, [*seen.earlier, Look(seen.key, 0, seen.now, looked)])
    drop_outgrown(registry, version.name)
    return told


def _reference(version: Version) -> Reference:
    found = reference_of(version)
    if dict(found.schema) != dict(version.manifest["schema"]):
        raise RegistryError(
            f"The reference of {version.id} has other columns than {version.id}: "
            f"{', '.join(found.columns)} against {', '.join(version.manifest['schema'])}.",
            where=version.id,
            mend="restore the version from a copy, or retrain",
        )
    return found


def _seen(
    registry: Registry,
    version: Version,
    learner: Learner,
    data: Data,
    reference: Reference | None,
    now: datetime,
) -> _Seen:
    """The window, read; one that was looked at before has the time and place it had then."""
    data = data.on(list(lineage_of(registry, version).sources.values()))
    if data.new is None or is_exhausted(data.new):
        raise DataError(
            "There is nothing to look at.",
            where="data.new",
            mend="name a source; of dated partitions one after the last that the lineage has met",
        )
    names = tuple(version.manifest["label_names"])
    window = read_window(
        data,
        version=version.id,
        schema=dict(version.manifest["schema"]),
        names=names,
        reference=reference,
        forgotten=registry.forgotten(version.name),
    )
    key = digest(sorted(window.rows.id.tolist()))
    looks = registry.looks(version)
    places = [place for place, one in enumerate(looks) if one.window == key]
    earlier = looks[: places[0]] if places else looks
    then = looks[places[0]].looked_at if places else _recorded_at(registry, version, key)
    if then is None and looks and now < looks[-1].looked_at:
        raise DataError(
            f"The clock reads {now:%Y-%m-%d %H:%M:%S}, and a window was looked at later, on "
            f"{looks[-1].looked_at:%Y-%m-%d %H:%M:%S} UTC.",
            where="clock",
            mend="set the clock right, on this machine or on the one that looked",
        )
    found = None
    if learner.task.target_kind != "tokens" or bool(window.is_labelled.all()):
        found = learner.predict(window.rows, classes=len(window.label_names))
    return _Seen(window, key, found, then or now, earlier)


def _recorded_at(registry: Registry, version: Version, key: str) -> datetime | None:
    known = registry.windows(version.name, version.number)
    places = [place for place, one in enumerate(known) if one.window == key]
    return recorded_of(registry, version)[places[0]].recorded_at if places else None


def _notes(window: Arrived, learner: Learner, *, trained_on: int) -> list[str]:
    notes = []
    if trained_on:
        notes.append(
            f"{trained_on:,} of {len(window.rows):,} rows are among those that the model was "
            "trained on; they do not count for how well it does"
        )
    if window.unknown:
        known = ", ".join(window.unknown[:5]) + (", …" if len(window.unknown) > 5 else "")
        notes.append(f"labels that the version has no class for count as wrong: {known}")
    if not window.keyed and not window.is_labelled.all():
        notes.append(
            "labels that come later cannot be joined to these rows: the lineage has no "
            "data.id_column"
        )
    if learner.task.target_kind == "tokens" and not window.is_labelled.all():
        notes.append("no prediction was recorded: positions are scored only with their labels")
    return notes


def _examiner(reference: Reference, version: Version, learner: Learner, checks: Checks) -> Examiner:
    how = checks.drift
    assert how is not None
    names = tuple(version.manifest["label_names"])
    return Examiner(
        reference,
        calibration=Calibration(
            false_alarms_per_year=checks.rate,
            every=checks.every,
            minimum_effect=how.minimum_effect,
            draws=how.draws,
            seed=checks.seed,
        ),
        represent=represent(learner, names) if how.model else None,
        tests=how.tests,
        permutations=how.permutations,
        device=learner.device,
    )


def _constant(examiner: Examiner, window: Arrived) -> list[str]:
    """Columns that had several values and now have one."""
    found = []
    for name, column in examiner.columns.items():
        reference = examiner.reference
        if isinstance(column, NumberColumn):
            if column.reference is None or len(column.reference.distinct) < 2:
                continue
            values = as_numbers(window.rows.features[name], reference.kind(name))
            values = values[~np.isnan(values)]
            if len(values) and bool((values == values[0]).all()):
                found.append(f"{name}: constant in the window, at {values[0]:g}")
        elif len(column.counts) > 1:
            there = [one for one in counted(window.rows.features[name]) if one]
            if len(there) == 1:
                found.append(f"{name}: constant in the window, at {there[0]!r}")
    return found


def _drift(examiner: Examiner, findings: Findings, seen: _Seen, version: Version) -> dict[str, Any]:
    """What was found, with when it began, and pictures of what moved."""
    values = _values(examiner, seen, version)
    followed = _followed(findings)
    parts = course.stretches(seen.window.rows.time)
    time = seen.window.rows.time
    starts = [str(time[part[0]]) for part in parts] if time is not None else []
    courses: dict[str, list[float]] = {}
    pictures = []
    for of, name in dict.fromkeys((one.of, one.measured.name) for one in followed):
        column, now = values[of, name]
        for part in parts:
            for test, effect in course.effects(of, column, now[part]).items():
                courses.setdefault(test, []).append(effect)
        if (drawn := _picture(examiner, of, name, now)) is not None:
            kind = examiner.reference.kind(name) if of == "input" else "number"
            pictures.append({"of": of, "name": name, "values": VALUES.get(kind), **drawn})
    before = seen.earlier[-1].found["moved"] if seen.earlier else {}
    first = None if time is None else str(np.sort(time)[0])
    told = findings.to_dict()
    for shift, one in zip(findings.shifts, told["shifts"], strict=True):
        test = course.named(shift.of, shift.measured)
        one["unit"] = _unit(examiner, shift)
        one["since"] = None
        if shift.moved:
            one["since"] = asdict(
                course.since(
                    course.Since(**before[test]) if test in before else None,
                    starts=starts,
                    course=courses.get(test, []),
                    time=first,
                    looked_at=seen.now.isoformat(timespec="seconds"),
                )
            )
        one["before"] = [found.found["effects"].get(test) for found in seen.earlier[-30:]]
        one["within"] = courses.get(test, []) if len(courses.get(test, [])) == len(parts) else []
    floor = examiner.calibration.minimum_effect
    return {**told, "minimum_effect": floor, "starts": starts, "pictures": pictures}


def _unit(examiner: Examiner, shift: Shift) -> str | None:
    """What an effect is counted in; None for tests of all columns together."""
    one = shift.measured
    if one.test in ("chi_square", "missing"):
        return "Cramér's V"
    if one.test != "ks":
        return None
    column = (examiner.columns if shift.of == "input" else examiner.predicted)[one.name]
    assert isinstance(column, NumberColumn)
    assert column.reference is not None
    return "standard deviations" if column.reference.deviation else "share of other values"


def _values(
    examiner: Examiner, seen: _Seen, version: Version
) -> dict[tuple[str, str], tuple[Any, npt.NDArray[Any]]]:
    """What is compared to its tests and the window's values (N,)."""
    rows, reference = seen.window.rows, examiner.reference
    found = {}
    for name, column in examiner.columns.items():
        raw = rows.features[name]
        kind = reference.kind(name)
        found["input", name] = (column, raw if kind == "category" else as_numbers(raw, kind))
    if seen.found is None:
        return found
    for name, column in examiner.predicted.items():
        if name == "confidence":
            values = confidence(seen.found)
        elif isinstance(column, NumberColumn):
            flat = seen.found.prediction.reshape(len(rows), -1)
            values = flat.mean(axis=1, dtype=np.float64)
        else:
            names = np.array(version.manifest["label_names"], dtype=np.str_)
            values = names[seen.found.prediction]
        assert values is not None
        found["prediction", name] = (column, values)
    return found


def _followed(findings: Findings) -> list[Shift]:
    """Single columns that moved, and a few that did not."""
    single = [one for one in findings.shifts if one.of in ("input", "prediction")]
    moved = [one for one in findings.moved if one in single]
    rest = sorted((one for one in single if not one.moved), key=lambda one: -one.measured.effect)
    return [*moved[:PICTURES], *rest[: max(CALM - len(moved), 0)]]


def _picture(
    examiner: Examiner, of: str, name: str, now: npt.NDArray[Any]
) -> dict[str, Any] | None:
    column = examiner.columns[name] if of == "input" else examiner.predicted[name]
    if not isinstance(column, NumberColumn):
        return course.category_picture(column.counts, counted(now))
    if column.reference is None:
        return None
    return course.number_picture(column.reference.values, np.asarray(now, np.float64))


def _records(registry: Registry, version: Version, seen: _Seen) -> dict[str, Record]:
    """What was predicted window by window up to this one, which may not be recorded itself."""
    known = registry.windows(version.name, version.number)
    every = dict(zip((one.window for one in known), recorded_of(registry, version), strict=True))
    if seen.key in every:
        last = list(every).index(seen.key)
        return dict(list(every.items())[: last + 1])
    if seen.window.keyed or seen.found is None:
        return every
    rows = seen.window.rows
    every[seen.key] = recorded(
        rows.id,
        seen.found.prediction,
        confidence=confidence(seen.found),
        time=rows.time,
        now=seen.now,
        where="data.new",
    )
    return every


def _performance(
    registry: Registry,
    version: Version,
    learner: Learner,
    records: Mapping[str, Record],
    checks: Checks,
) -> tuple[Performance | None, str | None]:
    """How the version does; or why that cannot be told."""
    assert checks.performance is not None
    cycles = past(registry.cycles(version.name))
    names = tuple(version.manifest["label_names"])
    held = lineage_of(registry, version).holdouts(names).values()
    try:
        found = examine_performance(
            held_out_of(version) or held_out_now(version, learner, held, names=names),
            list(records.values()),
            false_alarms_per_year=checks.rate,
            smallest_drop=checks.performance.smallest_drop,
            windows_per_year=YEAR / checks.every,
            since=cycles[-1].decided_at if cycles else None,
            level=LEVEL,
            seed=checks.seed,
        )
    except DataError as error:
        return None, error.what
    return found, None


def _told(
    version: Version,
    learner: Learner,
    checks: Checks,
    seen: _Seen,
    drift: dict[str, Any] | None,
    performance: Performance | None,
    untold: str | None,
    notes: Sequence[str],
) -> dict[str, Any]:
    window, time = seen.window, seen.window.rows.time
    told = None if performance is None else performance.to_dict()
    parts = [one for one in (drift, told) if one is not None]
    reasons = [one["reason"] for one in parts if one["alarm"]] or [one["reason"] for one in parts]
    return {
        "model_name": version.name,
        "version": version.id,
        "task": {"score": learner.task.score_name, "unit": learner.task.score_unit},
        "created": seen.now.astimezone(UTC).isoformat(timespec="seconds"),
        "alarm": any(one["alarm"] for one in parts),
        "reason": "; ".join(reasons),
        "window": {
            "sha256": seen.key,
            "rows": len(window),
            "labelled": int(window.is_labelled.sum()),
            "time": None if time is None else np.sort(time)[[0, -1]].astype(str).tolist(),
            "earlier": len(seen.earlier),
        },
        "checks": {
            "false_alarms_per_year": checks.false_alarms_per_year,
            "every_seconds": checks.every.total_seconds(),
            "kinds": [kind for kind in KINDS if getattr(checks, kind) is not None],
        },
        "drift": drift,
        "performance": told,
        "untold": untold,
        "notes": list(notes),
    }


def _looked(told: Mapping[str, Any]) -> dict[str, Any]:
    """What later windows are told of this one: aggregates, and no value of a row."""
    shifts = told["drift"]["shifts"] if told["drift"] else []
    names = {f"{one['of']}/{one['name']}/{one['test']}": one for one in shifts}
    estimates = told["performance"]["estimated"]["estimates"] if told["performance"] else []
    return {
        "rows": told["window"]["rows"],
        "time": told["window"]["time"],
        "alarm": {kind: bool(told[kind] and told[kind]["alarm"]) for kind in KINDS},
        "effects": {name: float(f"{one['effect']:.4g}") for name, one in names.items()},
        "moved": {name: one["since"] for name, one in names.items() if one["moved"]},
        "estimated": {key: estimates[0][key] for key in ESTIMATED} if estimates else None,
    }


def _windows(records: Mapping[str, Record], looks: Sequence[Look]) -> list[dict[str, Any]]:
    """The version's windows in their order, each with what was estimated and what came true."""
    found = {one.window: one for one in looks}
    told = []
    for key in dict.fromkeys([*found, *records]):
        record_, look = records.get(key), found.get(key)
        scored = record_.score[record_.is_scored] if record_ is not None else np.array([])
        real = mean_score(scored, LEVEL) if len(scored) else None
        moment = look.looked_at if look else record_.recorded_at  # type: ignore[union-attr]
        told.append(
            {
                "sha256": key,
                "looked_at": moment.isoformat(timespec="seconds"),
                "rows": look.found["rows"] if look else len(record_ or ()),
                "time": look.found["time"] if look else None,
                "alarm": look.found["alarm"] if look else None,
                "estimated": look.found["estimated"] if look else None,
                "realised": None if real is None else json_safe(asdict(real)),
            }
        )
    return sorted(told, key=lambda one: str(one["looked_at"]))
