"""What a decision is charged for those that were made before it on the same new rows.

Whoever may try again until chance helps promotes too often, so the k-th decision on one new holdout
is tested at alpha / 2^(k-1), which sums to less than twice alpha however often it is tried. Trials
of a sweep decide nothing: whoever takes the one that was best on validation rows has chosen without
the holdout, and has decided once; whoever takes another, or goes on with a setting of their own,
may have chosen by the holdout, and has looked at it as often as there were trials.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perennial.errors import RegistryError
from perennial.promotion.predictions import ROWS
from perennial.promotion.records import CycleRecord, Version
from perennial.promotion.registry import Registry
from perennial.types import Strings


@dataclass(frozen=True)
class Charge:
    """What one decision is charged.

    Attributes:
        decision_number: k; each test is at alpha / 2^(k-1).
        trial: Whether it is a trial of a sweep, which is no decision of its own.
        trials: Trials of sweeps on these rows that it was, or may have been, chosen from.
        best: Whether it is the one of them with the best score on validation rows.
    """

    decision_number: int
    trial: bool = False
    trials: int = 0
    best: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a decision keeps them beside its number."""
        value = asdict(self)
        del value["decision_number"]
        return value


def charge(earlier: Sequence[CycleRecord], *, cycle_id: str, trial: bool = False) -> Charge:
    """The charge of one more decision.

    Args:
        earlier: Decisions and trials on the same new rows, oldest first.
        cycle_id: Of the cycle to decide on: the same command as a trial of a sweep is that trial.
        trial: Whether it is one more trial.
    """
    number = 1 + sum(not record.trial for record in earlier)
    trials = [record for record in earlier if record.trial]
    if trial:
        return Charge(number, trial=True, trials=len(trials) + 1)
    if not trials:
        return Charge(number)
    best = max(trials, key=_objective)  # of equal ones the first: there is but one choice
    if best.objective is not None and best.cycle_id == cycle_id:
        return Charge(number, trials=len(trials), best=True)
    # another setting than those tried may be one of them in all that matters, and comes after all
    own = any(record.cycle_id == cycle_id for record in trials)
    return Charge(number + len(trials) - own, trials=len(trials))


def decisions_on(
    registry: Registry, champion: Version, *, new_holdout: str, row_id: Strings
) -> list[CycleRecord]:
    """Decisions and trials on a new holdout, or on more than half of its rows, oldest first.

    Rows are compared for decisions since the champion alone: what was held out before it is history
    or was tried on another occasion. A candidate whose predictions are gone or damaged counts where
    its holdout has the very same hash.

    Args:
        registry: Where decisions and predictions are.
        champion: The version that serves.
        new_holdout: SHA-256 of the present new holdout.
        row_id: Ids of its rows (N,).
    """
    records = [one for one in registry.cycles(champion.name) if one.new_holdout is not None]
    same = {new_holdout}
    tried: set[str] = set()
    others = [
        record
        for record in records
        if record.new_holdout != new_holdout and record.candidate > champion.number
    ]
    versions = {one.number: one for one in registry.versions(champion.name)} if others else {}
    for record in others:
        assert record.new_holdout is not None
        if record.new_holdout in tried:
            continue
        if (theirs := _new_rows(versions[record.candidate])) is None:
            continue
        tried.add(record.new_holdout)
        if share(row_id, theirs) > 0.5:
            same.add(record.new_holdout)
    return [record for record in records if record.new_holdout in same]


def share(row_id: Strings, theirs: Iterable[str]) -> float:
    """Share of rows, by id, that are among others.

    Examples:
        >>> share(np.array(["a", "b", "c", "d"]), ["d", "e", "a"])
        0.5
    """
    known = set(theirs)
    return sum(one in known for one in row_id.tolist()) / max(len(row_id), 1)


def _objective(record: CycleRecord) -> float:
    return -np.inf if record.objective is None else record.objective


def _new_rows(version: Version) -> list[str] | None:
    """Ids of the rows that a version was decided on as new; None where they cannot be read."""
    try:
        table = pq.read_table(version.open(ROWS), columns=["row_id", "holdout"])
    except (RegistryError, OSError, pa.ArrowException):
        return None
    pairs = zip(table["row_id"].to_pylist(), table["holdout"].to_pylist(), strict=True)
    return [row_id for row_id, holdout in pairs if holdout == "new"]
