"""What a sweep tells a trial, in a file in the trial's run folder, and what it reads of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from perennial import files
from perennial.errors import ChampionChangedError, ConfigError
from perennial.sweeping.choice import Rule
from perennial.sweeping.pruning import Limits

TRIAL = "trial.json"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One job's place in a sweep.

    Attributes:
        champion: Id of the version that all trials are held against; None for whichever serves.
        sweep: SHA-256 of what makes it this sweep; None for a job of ``-m`` alone.
        params: What the sweep drew for it.
        limits: See `perennial.sweeping.pruning.limits`.
        choose: See `perennial.sweeping.choice.Rule`.
        budget: The rule's.
    """

    champion: str | None = None
    sweep: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=dict)
    choose: str = "combined"
    budget: float = 0.01

    @property
    def rule(self) -> Rule:
        """What its recorded objective is."""
        return Rule(choose=self.choose, budget=self.budget)

    def require(self, champion: str | None) -> None:
        """Refuse another champion than the sweep's.

        Raises:
            ChampionChangedError: Another one serves now.
        """
        if self.champion is not None and champion != self.champion:
            raise ChampionChangedError(
                f"The champion was {self.champion} when this sweep began; now it is "
                f"{champion or 'none'}.",
                where="sweep",
                mend="run the same command again: it begins a sweep against the new champion",
            )

    def same(self, other: Trial | None) -> bool:
        """Whether another one is this very trial; its limits may have been set by other trials."""
        return other is not None and replace(self, limits={}) == replace(other, limits={})

    def write(self, path: Path) -> None:
        """Keep it for the trial's own process."""
        files.write_json(path, asdict(self))


def read_trial(path: str | None) -> Trial | None:
    """What a sweep told this run; None for a run on its own.

    Raises:
        ConfigError: The file is not there, or is none of a sweep's.
    """
    if path is None:
        return None
    try:
        return Trial(**json.loads(Path(path).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"trial is {path!r}, which is no trial of a sweep.",
            where="trial",
            mend="leave it out; a sweep sets it for its own trials",
        ) from error


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one trial ended.

    Attributes:
        state: ``finished``, ``pruned``, ``failed``, or ``skipped`` where no row is new.
        reason: Why it did not finish.
        candidate: Id of the version it made.
        cycle_id: Of its cycle.
        verdict: What the gate would have said; nobody chooses by it.
        champion: The champion's validation scores.
        scores: The candidate's.
        curve: By step.
        unit: The score's: ``points`` for a share, else empty.
        seconds: Wall time of its cycle.
    """

    state: str
    reason: str | None = None
    candidate: str | None = None
    cycle_id: str | None = None
    verdict: str | None = None
    champion: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    unit: str = "points"
    seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def outcome_of(result: Mapping[str, Any]) -> Outcome:
    """A trial's end, from its ``result.json``."""
    validation = result["validation"] or {"champion": {}, "candidate": {}, "curve": []}
    known: dict[str, Any] = {
        "cycle_id": result["cycle_id"],
        "champion": dict(validation["champion"]),
        "curve": [dict(point) for point in validation["curve"]],
    }
    if result["status"] == "pruned":
        return Outcome(state="pruned", reason=str(result["trigger"]["reason"]), **known)
    if result["status"] == "failed":
        error = result["error"]
        where = f" ({error['where']})" if error["where"] else ""
        return Outcome(state="failed", reason=f"{error['what']}{where}", **known)
    if not result["candidate"]:
        return Outcome(state="skipped", reason=str(result["trigger"]["reason"]), **known)
    if not validation["candidate"]:
        reason = "it has no score on validation rows to be chosen by"
        return Outcome(state="failed", reason=reason, **known)
    return Outcome(
        state="finished",
        candidate=str(result["candidate"]["id"]),
        verdict=str(result["decision"]["verdict"]),
        scores=dict(validation["candidate"]),
        unit=str(result["task"]["unit"]),
        seconds=(result["cost"] or {}).get("wall_seconds"),
        **known,
    )
