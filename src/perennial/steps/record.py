"""Keep what a cycle found: result and page, in one registry transaction."""

from __future__ import annotations

import platform
import resource
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from perennial import clock
from perennial.data.learned import ROLES
from perennial.data.rows import Rows
from perennial.data.shards import read_index
from perennial.environment import capture
from perennial.errors import EXIT_BAD_DATA, EXIT_FAILED, NumberTakenError, PerennialError
from perennial.evaluation.serving import summary as serving
from perennial.monitoring.triggers import Firing, nameless
from perennial.promotion import best, predictions
from perennial.promotion.gate import decide
from perennial.promotion.multiplicity import Charge
from perennial.promotion.policy import Decision
from perennial.promotion.registry import Version
from perennial.reporting.result import PAGE, RESULT, exit_code, json_safe
from perennial.steps.candidate import Trained, as_json
from perennial.steps.collect import Parts
from perennial.steps.evidence import Evidence
from perennial.steps.history import History
from perennial.steps.learner import Learner
from perennial.steps.lineage import Lineage
from perennial.steps.matrix import grown, measures
from perennial.steps.page import at, course, drawn
from perennial.steps.remember import index_path
from perennial.steps.settings import Cycle
from perennial.steps.tell import tell
from perennial.sweeping.choice import Rule
from perennial.sweeping.pruning import Pruned
from perennial.types import Booleans, EvaluationReport

SCHEMA_VERSION = 1
NO_DECISION = "the cycle did not get to a decision"
ROWS = ("train_rows", "replayed_rows")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Everything that `record` needs; see `perennial.cycle`."""

    cycle_id: str
    fired: Firing
    name: str
    lineage: Lineage
    new: Parts
    history: History
    held: Mapping[str, tuple[Rows, Booleans]]
    learner: Learner
    trained: Trained
    evidence: Evidence
    metrics: Mapping[str, Any]
    decision: Decision
    charge: Charge
    recharge: Callable[[], Charge]
    new_holdout: str
    files: Mapping[str, Path | bytes]
    bootstrap: bool = False
    wall_seconds: float = 0.0

    @property
    def champion(self) -> Version:
        """The version that was retrained."""
        return self.lineage.champion

    @property
    def validation(self) -> dict[str, Any] | None:
        """Both models' scores on validation rows and the curve between; None without such rows."""
        fit = self.trained.fit
        if not fit.curve or fit.curve[0]["step"]:
            return None
        kept = fit.kept_point if fit.optimizer_steps else None
        return {
            "champion": _scores(fit.curve[0]),
            "candidate": {} if kept is None else _scores(kept),
            "curve": fit.curve,
        }

    def objective(self, rule: Rule) -> float | None:
        """What trials of a sweep are chosen by: a rule's value of scores on validation rows."""
        found = self.validation
        return rule.value(found["candidate"], found["champion"]) if found else None

    @property
    def report(self) -> EvaluationReport:
        """Both models on the same rows."""
        return self.evidence.report

    @property
    def matrix(self) -> list[dict[str, Any]]:
        """Scores by version and holdout; see `perennial.steps.matrix`.

        The candidate is the first in its line to learn the new rows, and those of versions that
        were rolled back, which are history to it.
        """
        cycles = self.lineage.cycles
        others = [name for name, (version, _) in cycles.items() if version is not self.champion]
        known = {name.removeprefix("history/") for name in self.held if name != "new"}
        return grown(
            self.champion.manifest["matrix"],
            self.report,
            champion=self.champion.number,
            learned=[self.name, *others],
            given=known - set(cycles),
        )

    @property
    def initial(self) -> dict[str, float]:
        """Holdout to the score of a model that learned nothing, where it was measured."""
        own = self.evidence.initial
        return {**self.champion.manifest["initial"], **({} if own is None else {self.name: own})}


def record(cycle: Cycle, outcome: Outcome) -> dict[str, Any]:
    """Commit version, decision and alias in one transaction, then tell all of it.

    Raises:
        ChampionChangedError: Another run promoted meanwhile; nothing was changed.
    """
    committed = None
    while committed is None:
        known = len(cycle.registry.cycles(cycle.name))
        number = cycle.registry.next_number(cycle.name)
        outcome = _charged_now(cycle, outcome)
        passed = outcome.decision.verdict == "promoted" or cycle.promotion == "always"
        result = _result(cycle, outcome, applied=cycle.promote and passed)
        result["candidate"] = {"id": f"{cycle.name}@{number}"}
        result["forgetting"]["versions"][-1] = f"{cycle.name}@{number}"
        page = _page(cycle, outcome, result, number=number) if cycle.report else None
        # a run beside this one may commit first: then the number is the next, and so is the charge
        with suppress(NumberTakenError):
            committed = _commit(cycle, outcome, result, page, number=number, decisions=known)
    return tell(cycle, committed, result)


def _charged_now(cycle: Cycle, outcome: Outcome) -> Outcome:
    """The outcome, decided at what it is charged now: others may have decided meanwhile."""
    now = outcome.recharge()
    if now == outcome.charge:
        return outcome
    decision = decide(outcome.report, cycle.policy, decision_number=now.decision_number)
    return replace(outcome, charge=now, decision=decision)


def _commit(
    cycle: Cycle,
    outcome: Outcome,
    result: Mapping[str, Any],
    page: bytes | None,
    *,
    number: int,
    decisions: int,
) -> Version:
    cost, trigger = result["cost"], nameless(json_safe(result["trigger"]))
    return cycle.registry.commit(
        name=cycle.name,
        files={
            **outcome.files,
            **predictions.write(outcome.report),
            best.FILE: best.to_parquet(outcome.evidence.best),
            "decision.json": as_json(_decided(cycle, outcome)),
            # rows may be forgotten, and the version stays
            RESULT: as_json(json_safe({**result, "trigger": trigger})),
            **({} if page is None else {PAGE: page}),
        },
        manifest=cycle.manifest(
            parts=outcome.new,
            source=cycle.data.new,
            cycle=outcome.name,
            parent=outcome.champion,
            sources=outcome.lineage.sources,
            metrics=outcome.metrics["candidate"],
            matrix=outcome.matrix,
            initial=outcome.initial,
            how="retrained",
            extra={
                "cycle_id": outcome.cycle_id,
                "trigger": trigger,
                **{name: cost[name] for name in ("optimizer_steps", *ROWS)},
            },
            learner=outcome.learner,
        ),
        decision=_decided(cycle, outcome),
        verdict=outcome.decision.verdict,
        cycle_id=outcome.cycle_id,
        expected_champion=outcome.champion.number,
        promote=result["decision"]["applied"],
        new_holdout=outcome.new_holdout,
        number=number,
        decisions=decisions,
        erasures=outcome.lineage.forgotten.erasures,
        trial=cycle.trial is not None,
        objective=outcome.objective(cycle.trial.rule if cycle.trial else Rule()),
        device_seconds=cost["device_seconds"],
    )


def _decided(cycle: Cycle, outcome: Outcome) -> dict[str, Any]:
    """The decision, its charge and the policy's settings as plain values."""
    return {
        **outcome.decision.to_dict(),
        "charge": outcome.charge.to_dict(),
        "policy": cycle.policy_settings,
    }


def _page(cycle: Cycle, outcome: Outcome, result: Mapping[str, Any], *, number: int) -> bytes:
    score = cycle.task.score_name
    earlier = course(cycle.registry, cycle.name, before=number, score=score)
    return drawn(
        outcome.report,
        {name: rows for name, (rows, _) in outcome.held.items()},
        result=result,
        curve=outcome.trained.fit.curve,
        versions=[*earlier, at(number, result, score)],
    )


def nothing_new(cycle: Cycle, champion: Version, new: Parts, *, bootstrap: bool) -> dict[str, Any]:
    """The lineage has learned these rows already."""
    return {
        **blank(cycle, "skipped", "no row of data.new is new: each was learned or held out before"),
        "champion": {"id": champion.id},
        "bootstrap": bootstrap,
        "data": {"new": {"rows": 0, "sha256": new.fingerprint}, "history": None, "memory": None},
    }


def failure(cycle_name: str, error: BaseException, *, config_sha256: str | None) -> dict[str, Any]:
    """The result of a cycle that failed."""
    known = error if isinstance(error, PerennialError) else None
    code = known.exit_code if known else EXIT_FAILED
    assert code in (EXIT_FAILED, EXIT_BAD_DATA)
    return {
        **_blank(cycle_name, "failed", NO_DECISION, config_sha256),
        "exit_code": code,
        "error": {
            "what": known.what if known else str(error),
            "where": known.where if known else type(error).__name__,
            "mend": known.mend if known else None,
        },
    }


def pruned(cycle: Cycle, stopped: Pruned) -> dict[str, Any]:
    """The result of a trial that was stopped early."""
    curve = stopped.curve
    return {
        **blank(cycle, "pruned", stopped.reason),
        "validation": {
            "champion": {} if curve[0]["step"] else _scores(curve[0]),
            "candidate": {},
            "curve": curve,
        },
    }


def _scores(point: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in point.items() if name != "step"}


def blank(cycle: Cycle, status: str, reason: str) -> dict[str, Any]:
    """A result of which only status and reason are known yet."""
    return {
        **_blank(cycle.name, status, reason, cycle.config_sha256()),
        "trigger": unasked(cycle.trigger.kind, reason),
    }


def unasked(kind: str, reason: str = NO_DECISION) -> dict[str, Any]:
    """What a result says of a trigger that was not asked, or not to the end."""
    return {"kind": kind, "due": None, "reason": reason, "evidence": {}}


def _blank(name: str, status: str, reason: str, config_sha256: str | None) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "status": status,
        "exit_code": exit_code(status),
        "created": clock.now().isoformat(timespec="seconds"),
        "cycle_id": None,
        "model_name": name,
        "champion": None,
        "candidate": None,
        "bootstrap": False,
        "trigger": unasked("manual", reason),
        "task": None,
        "validation": None,
        "metrics": None,
        "decision": None,
        "forgetting": None,
        "serving": None,
        "cost": None,
        "config_sha256": config_sha256,
        "data": None,
        "report": None,
        "tracking": {"run_id": None, "url": None, "directory": None},
        "environment": None,
        "error": None,
    }


def _result(cycle: Cycle, outcome: Outcome, *, applied: bool) -> dict[str, Any]:
    fit = outcome.trained.fit
    device = outcome.learner.device
    memory = outcome.champion.files.get(index_path("train"))
    fingerprints = sorted(outcome.history.fingerprints.items())
    used = [(name, value) for name, value in fingerprints if not name.startswith("memory")]
    known = len(outcome.champion.manifest["label_names"])
    return {
        **blank(cycle, outcome.decision.verdict, ""),
        "cycle_id": outcome.cycle_id,
        "trigger": outcome.fired.to_dict(),
        "champion": {"id": outcome.champion.id},
        "bootstrap": outcome.bootstrap,
        "task": {
            "kind": cycle.task.target_kind,
            "score": cycle.task.score_name,
            "unit": cycle.task.score_unit,
        },
        "validation": outcome.validation,
        "metrics": outcome.metrics,
        "decision": {**_decided(cycle, outcome), "applied": applied},
        "forgetting": _forgetting(cycle.name, outcome),
        "serving": {who: serving(cost) for who, cost in outcome.report.serving.items()} or None,
        "cost": {
            "wall_seconds": outcome.wall_seconds,
            "device_seconds": fit.device_seconds,
            "train_rows": fit.train_rows,
            "replayed_rows": fit.replayed_rows,
            "optimizer_steps": fit.optimizer_steps,
            "peak_memory_bytes": peak_memory(device),
            "labels": sum(len(getattr(outcome.new, kind)) for kind in ROLES),
            "energy": None,
            "profile": fit.profile,
        },
        "data": {
            "new": {
                "rows": len(outcome.new.train),
                "sha256": outcome.new.fingerprint,
                "new_classes": list(outcome.new.label_names[known:]),
            },
            "history": {
                "rows": 0 if outcome.history.train is None else len(outcome.history.train),
                "sha256": ",".join(value for _, value in used) or None,
            },
            "memory": None if memory is None else {"rows": _remembered(outcome), "sha256": memory},
        },
        "environment": capture(str(device)),
    }


def _remembered(outcome: Outcome) -> int:
    return len(read_index(outcome.champion.open(index_path("train"))).place)


def peak_memory(device: torch.device) -> int:
    """Most bytes held: of the device's memory on CUDA, else of the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if platform.system() == "Darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def _forgetting(name: str, outcome: Outcome) -> dict[str, Any]:
    found = measures(outcome.matrix, outcome.initial)
    # the last one has no number before it is committed
    return {**found, "versions": [f"{name}@{version}" for version in found["versions"]]}
