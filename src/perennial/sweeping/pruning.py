"""Which trial is stopped early: a rule over validation scores by step, for several objectives too.

The limits are fixed before a trial starts, from the trials that had finished then, and the trial
compares by itself. So a pruned trial is pruned at the same step however often it is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from perennial.sweeping.choice import PARTS, Scores
from perennial.sweeping.settings import STARTUP

Curve = Sequence[Mapping[str, float]]
Limits = dict[str, dict[str, float]]


class Pruned(Exception):  # noqa: N818
    """A trial that is not worth going on with.

    Args:
        reason: In one sentence.
        curve: Its validation scores so far.
    """

    def __init__(self, reason: str, *, curve: Curve) -> None:
        super().__init__(reason)
        self.reason, self.curve = reason, [dict(point) for point in curve]


def limits(
    earlier: Sequence[Curve], *, objectives: Sequence[str], warmup: int = 0, startup: int = STARTUP
) -> Limits:
    """Step to the medians, over earlier trials, of the best score so far in each objective.

    The rule of Optuna's MedianPruner (Golovin et al., Google Vizier, KDD 2017, section 3.2.2),
    asked of each objective: a trial's best score so far against the median of the others' scores
    at that very step.

    Args:
        earlier: Curves of the trials that finished; points of step 0 are the champion's own.
        objectives: Names of `perennial.sweeping.settings.OBJECTIVES`.
        warmup: Steps before which there is no limit.
        startup: Trials below which there is none at all.

    Returns:
        Empty where nothing is pruned; steps as text, as JSON has them.
    """
    if len(earlier) < startup:
        return {}
    found: Limits = {}
    steps = sorted({int(point["step"]) for curve in earlier for point in curve})
    for step in (one for one in steps if one > 0 and one >= warmup):
        at = [point for curve in earlier for point in curve if point["step"] == step]
        values = {one: [p[PARTS[one]] for p in at if PARTS[one] in p] for one in objectives}
        if all(values.values()):
            found[str(step)] = {one: median(them) for one, them in values.items()}
    return found


def verdict(curve: Sequence[Scores], limits: Limits) -> str | None:
    """Why a trial stops after the last point of its curve; None where it goes on.

    It stops where it is below the limit in *every* objective: on a frontier, the best in one of
    them is worth having however bad it is in the other.
    """
    if not curve or (bounds := limits.get(str(int(curve[-1]["step"])))) is None:
        return None
    said = []
    for objective, bound in bounds.items():
        reached = [p[PARTS[objective]] for p in curve if p["step"] > 0 and PARTS[objective] in p]
        if not reached or max(reached) >= bound:
            return None
        said.append(f"{objective} {max(reached):.4g} below {bound:.4g}")
    return f"at step {int(curve[-1]['step'])}: {', '.join(said)}, the median of earlier trials"
