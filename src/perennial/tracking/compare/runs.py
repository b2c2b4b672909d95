"""What is compared: the end of a cycle, wherever it was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perennial.promotion.records import CycleRecord, Version

FOUNDED = "founded"


@dataclass(frozen=True)
class Run:
    """One cycle that ended, or the version that founded a lineage.

    Attributes:
        name: The run folder as it was found, or the version's id.
        result: As ``result.json`` keeps it.
        config: Dotted keys to values, without what changes nothing about a cycle; None where no
            configuration is left.
        version: The candidate where the registry has it, which holds its stored predictions.
        record: The newest decision on it.
    """

    name: str
    result: Mapping[str, Any]
    config: Mapping[str, Any] | None = None
    version: Version | None = None
    record: CycleRecord | None = None

    @property
    def candidate(self) -> str | None:
        """Id of the version it trained."""
        return self._id("candidate")

    @property
    def champion(self) -> str | None:
        """Id of the version that served then."""
        return self._id("champion")

    @property
    def verdict(self) -> str:
        """The newest decision's verdict, else the status."""
        if self.record is not None and self.record.decision is not None:
            return self.record.verdict
        return str(self.result["status"])

    @property
    def remark(self) -> str:
        """What a reader must know beside the verdict: ``trial``, ``not applied`` or nothing."""
        decision = self.result["decision"]
        if not decision or self.verdict not in ("promoted", "rejected", "inconclusive"):
            return ""
        trial, applied = bool(decision["charge"].get("trial")), bool(decision.get("applied"))
        if self.record is not None:
            trial, applied = self.record.trial, self.record.applied
        if trial:
            return "trial"
        return "not applied" if self.verdict == "promoted" and not applied else ""

    @property
    def score(self) -> tuple[str, str] | None:
        """Name and unit of the task's score; None where nothing was scored."""
        task = self.result["task"]
        return None if task is None else (str(task["score"]), str(task["unit"]))

    @property
    def scored(self) -> bool:
        """Whether its candidate was scored on held-out rows."""
        return bool(self.result["metrics"])

    def _id(self, who: str) -> str | None:
        found = self.result[who]
        return None if found is None else str(found["id"])


@dataclass(frozen=True)
class Unread:
    """A run of which there is nothing to compare.

    Attributes:
        name: Its folder.
        why: In a few words.
    """

    name: str
    why: str


def founder(version: Version) -> Run:
    """The version that founded its lineage, which no cycle's result tells of."""
    names = ("champion", "task", "metrics", "decision", "cost", "cycle_id", "data", "error")
    result = {
        **dict.fromkeys((*names, "forgetting", "serving", "curve", "report", "environment")),
        "status": FOUNDED,
        "created": version.created,
        "model_name": version.name,
        "candidate": {"id": version.id},
        "trigger": {"kind": "manual", "reason": str(version.manifest.get("how", ""))},
    }
    return Run(version.id, result, version=version)
