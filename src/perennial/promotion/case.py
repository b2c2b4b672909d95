"""What every check is given: the report, the policy, and the level of each test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np

from perennial.promotion.holdouts import by_age, in_window
from perennial.promotion.policy import Policy
from perennial.promotion.scores import scored, unit
from perennial.types import Booleans, EvaluationReport, Strings


@dataclass(frozen=True)
class Case:
    """One candidate before the gate.

    Attributes:
        given: The report as it came, with the task's own scores.
        policy: What must be shown.
        alpha: Level of each one-sided test.
    """

    given: EvaluationReport
    policy: Policy
    alpha: float

    @cached_property
    def report(self) -> EvaluationReport:
        """The report with the scores that the policy compares."""
        return scored(self.given, self.policy.score)

    @cached_property
    def unit(self) -> str:
        """Of the score, as in `perennial.promotion.policy.Check`."""
        return unit(self.given, self.policy.score)

    @cached_property
    def task_unit(self) -> str:
        """Of the task's own score."""
        return unit(self.given, "task")

    @cached_property
    def holdouts(self) -> list[str]:
        """History holdouts that the policy looks at, the oldest first; none where it waives."""
        if self.policy.waived:
            return []
        return in_window(self.given.holdout.tolist(), self.policy.retention)

    @cached_property
    def expired(self) -> list[str]:
        """History holdouts that the window leaves out."""
        names = by_age(self.given.holdout.tolist())
        return [] if self.policy.waived else names[: len(names) - len(self.holdouts)]

    @cached_property
    def history(self) -> Booleans:
        """Rows of the holdouts that the policy looks at (N,)."""
        mask: Booleans = np.isin(self.given.holdout, self.holdouts)
        return mask

    @cached_property
    def parts(self) -> dict[str, Booleans]:
        """``new``, and ``history`` where it has rows that the adopted model had not seen."""
        unseen = self.history & ~self.given.seen_by_champion
        return {"new": self.given.is_new, **({"history": unseen} if unseen.any() else {})}

    def independent(self, mask: Booleans) -> int:
        """Clusters that some rows are of: dependent rows count once."""
        return len(np.unique(self.given.cluster[mask]))


def numbered(report: EvaluationReport) -> EvaluationReport:
    """The report with numbers for the names of clusters, in the order of the names.

    Every check asks which rows depend on each other, and texts of 64 characters are slow to sort.
    """
    _, number = np.unique(report.cluster, return_inverse=True)
    return replace(report, cluster=cast(Strings, number))
