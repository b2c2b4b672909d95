"""Decide again on what a version was decided on: its stored predictions, without the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from perennial import clock
from perennial.errors import PerennialError, RegistryError
from perennial.promotion import predictions
from perennial.promotion.gate import decide
from perennial.promotion.multiplicity import Charge, charge, decisions_on
from perennial.promotion.policy import Decision, Policy
from perennial.promotion.records import CycleRecord, Version
from perennial.promotion.registry import DECISIONS, Registry
from perennial.reporting.result import PAGE, RESULT, exit_code, json_safe
from perennial.types import EvaluationReport


@dataclass(frozen=True)
class Again:
    """Another decision on a candidate.

    Attributes:
        before: Its last recorded decision.
        decision: What the gate says now.
        charge: What that is charged.
        policy: Settings of the policy as plain values; None where they are not known.
        recorded: Whether it was recorded.
        promoting: What it would be if it were recorded; None where it was, or could not be.
        serves: Id of the version that serves after it.
    """

    before: CycleRecord
    decision: Decision
    charge: Charge
    policy: Mapping[str, Any] | None
    recorded: bool = False
    promoting: Decision | None = None
    serves: str = ""

    @property
    def applied(self) -> bool:
        """Whether it moved the champion's alias."""
        return self.recorded and self.decision.verdict == "promoted"

    @property
    def decided(self) -> dict[str, Any]:
        """The decision, its charge and its policy as plain values."""
        return {
            **self.decision.to_dict(),
            "charge": self.charge.to_dict(),
            "policy": None if self.policy is None else dict(self.policy),
        }


def decide_again(
    registry: Registry,
    version: Version,
    *,
    policy: Policy,
    settings: Mapping[str, Any] | None,
    promote: bool = False,
) -> Again:
    """Decide on a version's stored predictions.

    Without ``promote`` nothing is recorded, and each test is at the level it was at then: under the
    policy of then it is the decision of then.

    Args:
        registry: Where the version lives.
        version: The candidate.
        policy: What must be shown.
        settings: The policy's, as plain values; they are kept with the decision.
        promote: Record the decision, charged as one more on the same new rows, with its result and
            page among the version's files, and promote if it says so.

    Raises:
        ChampionChangedError: To promote, and the champion is another than then.
        RegistryError: The version was never decided on, or to promote, and it has served.
        EvaluationError: The stored predictions are damaged.
    """
    before = _recorded(registry, version)
    erasures = registry.forgotten(version.name).erasures
    if promote:
        registry.require_promotable(before)
    report = _measured(stored_report(version), policy)
    assert before.decision is not None
    if not promote:
        kept = before.decision
        charged = Charge(kept["decision_number"], **kept["charge"])
        decision = decide(report, policy, decision_number=kept["decision_number"])
        promoting = _promoting(registry, before, report, policy)
        serves = f"{version.name}@{registry.aliases(version.name)['champion']}"
        return Again(before, decision, charged, settings, promoting=promoting, serves=serves)
    known = len(registry.cycles(version.name))
    charged = _charge(registry, before, report)
    decision = decide(report, policy, decision_number=charged.decision_number)
    serves = version.id if decision.verdict == "promoted" else f"{version.name}@{before.champion}"
    again = Again(before, decision, charged, settings, recorded=True, serves=serves)
    registry.decide_again(
        before,
        decision=again.decided,
        verdict=decision.verdict,
        files=_files(version, again),
        decisions=known,
        erasures=erasures,
    )
    return again


def decision_files(version: Version, record: CycleRecord) -> dict[str, str]:
    """Name of a decision's file, ``result.json`` or ``report.html``, to its path in the version.

    Args:
        version: The candidate.
        record: One of the decisions on it.
    """
    folder = "" if record.number == 1 else f"{DECISIONS}/{record.number}/"
    return {name: path for name in (RESULT, PAGE) if (path := f"{folder}{name}") in version.files}


def stored_report(version: Version) -> EvaluationReport:
    """What a version was decided on.

    Raises:
        RegistryError: It has no predictions: it founded its lineage.
        IntegrityError: A stored file is damaged or gone.
        EvaluationError: A stored file cannot be read.
    """
    if missing := [p for p in (predictions.ROWS, predictions.FACTS) if p not in version.files]:
        raise _never_decided(version, missing[0])
    return predictions.read(version.open(predictions.ROWS), version.open(predictions.FACTS))


def retold(version: Version, record: CycleRecord) -> dict[str, Any]:
    """A version's result, with the decision of a record in the place of its first one."""
    kept: dict[str, Any] = json.loads(version.read_text(RESULT))
    return {
        **kept,
        "status": record.verdict,
        "exit_code": exit_code(record.verdict),
        "decision": {**(record.decision or {}), "applied": record.applied},
    }


def result_again(version: Version, again: Again) -> dict[str, Any]:
    """The result of deciding again: that of the version, and beside it what was decided then.

    Args:
        version: The candidate.
        again: What was decided.

    Returns:
        As ``result.json`` keeps it, and beside it ``before`` (``verdict``, ``decided_at`` and
        ``decision``), ``changes`` (setting of the gate to its value then and now), ``recorded``,
        ``serves`` (id of the version that does after it), and ``promoting`` (``verdict``,
        ``alpha`` and ``decision_number`` that it would have if it were recorded, or None).
    """
    before, then = again.before, (again.before.decision or {}).get("policy")
    promoting = again.promoting and {
        name: getattr(again.promoting, name) for name in ("verdict", "alpha", "decision_number")
    }
    decision = {**again.decided, "applied": again.applied}
    return {
        **retold(version, before),
        "status": again.decision.verdict,
        "exit_code": exit_code(again.decision.verdict),
        "created": clock.now().isoformat(timespec="seconds"),
        "trigger": {
            "kind": "manual",
            "due": True,
            "reason": "decided again on the stored predictions",
            "evidence": {},
        },
        "decision": decision,
        "report": None,
        "tracking": {"run_id": None, "url": None, "directory": None},
        "recorded": again.recorded,
        "before": {
            "verdict": before.verdict,
            "decided_at": before.decided_at,
            "decision": {**(before.decision or {}), "applied": before.applied},
        },
        "changes": differences(then, again.policy),
        "promoting": promoting,
        "serves": again.serves,
    }


def differences(then: Any, now: Any, name: str = "gate") -> dict[str, list[Any]]:
    """Settings that are not what they were, with their values then and now.

    Examples:
        >>> differences({"alpha": 0.05, "retention": {"margin": 0.02}},
        ...             {"alpha": 0.01, "retention": {"margin": 0.02}})
        {'gate.alpha': [0.05, 0.01]}
    """
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        found: dict[str, list[Any]] = {}
        for key in dict.fromkeys([*then, *now]):
            found |= differences(then.get(key), now.get(key), f"{name}.{key}")
        return found
    return {} if then == now else {name: [then, now]}


def _files(version: Version, again: Again) -> dict[str, bytes]:
    """What a cycle leaves, of this decision: result and page."""
    from perennial.steps.page import page_again  # only what is recorded pays for this import

    result = json_safe(result_again(version, again))
    folder = f"{DECISIONS}/{again.before.number + 1}"
    return {
        f"{folder}/{RESULT}": (json.dumps(result, indent=2) + "\n").encode(),
        f"{folder}/{PAGE}": page_again(version, result),
    }


def _promoting(
    registry: Registry, before: CycleRecord, report: EvaluationReport, policy: Policy
) -> Decision | None:
    """What the gate would say at what one more decision is charged; None where none can be."""
    with suppress(PerennialError):
        registry.require_promotable(before)
        number = _charge(registry, before, report).decision_number
        return decide(report, policy, decision_number=number)
    return None


def _recorded(registry: Registry, version: Version) -> CycleRecord:
    record = registry.decision(version.name, version.number)
    if record is None or record.decision is None:
        raise _never_decided(version, "decision")
    return record


def _measured(report: EvaluationReport, policy: Policy) -> EvaluationReport:
    """The report with the metrics of bounds that nobody asked for then."""
    missing = [bound for bound in policy.bounds if bound.key not in report.measured]
    if not missing:
        return report
    from perennial.evaluation.measure import measured  # only a new bound pays for this import

    return replace(report, measured={**report.measured, **measured(report, missing)})


def _charge(registry: Registry, record: CycleRecord, report: EvaluationReport) -> Charge:
    assert record.new_holdout is not None
    earlier = decisions_on(
        registry,
        registry.version(f"{record.name}@{record.champion}"),
        new_holdout=record.new_holdout,
        row_id=report.row_id[report.is_new],
    )
    return charge(earlier, cycle_id=record.cycle_id)


def _never_decided(version: Version, lacks: str) -> RegistryError:
    return RegistryError(
        f"{version.id} founded its lineage and was compared with nothing: it has no {lacks}.",
        where=version.id,
        mend=f"name a version that a cycle retrained: perennial registry list {version.name}",
    )
