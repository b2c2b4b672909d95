"""``sweep.json``: what came of a sweep, as plain values; see docs/reference/sweep.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perennial.sweeping.choice import PARTS, Rule, best, pareto
from perennial.sweeping.mix import SHARE, leading
from perennial.sweeping.settings import Sweep
from perennial.sweeping.space import Parameter, Value, describe
from perennial.sweeping.study import Ended

SCHEMA_VERSION = 1
STATES = ("finished", "pruned", "failed")
AXES = ("retention", "plasticity")


def summary(
    *,
    name: str,
    model: str,
    champion: str,
    ended: Sequence[Ended],
    space: Sequence[Parameter],
    settings: Sweep,
    command: str,
    command_of: Callable[[Mapping[str, Value]], str],
) -> dict[str, Any]:
    """All of a sweep.

    Args:
        name: Of the study.
        model: Name of the lineage.
        champion: Id of the version that all trials were held against.
        ended: The trials.
        space: What was searched.
        settings: How.
        command: What all trials share.
        command_of: The command of one run with a trial's settings.

    Returns:
        Plain values, as ``sweep.json`` keeps them.
    """
    finished = [one for one in ended if one.outcome.state == "finished"]
    unit = finished[0].outcome.unit if finished else "points"
    rule = Rule(choose=settings.choose, budget=settings.budget)
    place = best([rule.value(one.outcome.scores, one.outcome.champion) for one in finished])
    front = _front(finished)
    states = Counter(one.outcome.state for one in ended)
    stood = next((one.outcome.champion for one in ended if one.outcome.champion), {})
    return {
        "schema_version": SCHEMA_VERSION,
        "study": name,
        "model_name": model,
        "champion": {"id": champion, "scores": stood},
        "unit": unit,
        "command": command,
        "space": describe(space),
        "settings": {**settings.identity(), "choose": settings.choose, "budget": settings.budget},
        "counts": {state: states[state] for state in STATES},
        "trials": [
            {
                "number": one.number,
                "params": dict(one.params),
                "pareto": one.number in front,
                **{k: v for k, v in one.outcome.to_dict().items() if k not in ("champion", "unit")},
            }
            for one in ended
        ],
        "pareto": sorted(front),
        "chosen": None
        if place is None
        else {
            "number": finished[place].number,
            "candidate": finished[place].outcome.candidate,
            "command": command_of(finished[place].params),
        },
        "recommendation": _recommendation(
            finished, settings, stood, unit, chosen=None if place is None else finished[place]
        ),
    }


def _front(finished: Sequence[Ended]) -> set[int]:
    """Numbers of the trials that no other beats in retention and plasticity."""
    parts = [PARTS[one] for one in AXES]
    known = [one for one in finished if all(part in one.outcome.scores for part in parts)]
    found = pareto([[one.outcome.scores[part] for part in parts] for one in known])
    return {known[place].number for place in found}


def _recommendation(
    finished: Sequence[Ended],
    settings: Sweep,
    champion: Mapping[str, float],
    unit: str,
    *,
    chosen: Ended | None,
) -> str | None:
    """What ``mix`` found, in one sentence."""
    from perennial.notation import gain, level

    if settings.sampler != "mix" or not finished:
        return None
    measured = {
        float(one.params[SHARE]): (one.outcome.scores, one.outcome.champion) for one in finished
    }
    # of equal trials the chosen one, which is the first: so the registry counts it as the best
    share = leading(measured, budget=settings.budget) if chosen is None else chosen.params[SHARE]
    allowed = gain(settings.budget, unit).lstrip("+")
    if share is None or "history" not in champion:
        return "No share of new rows could be measured: there are no validation rows of history."
    share = float(share)
    scores = measured[share][0]
    change = gain(scores["history"] - champion["history"], unit)
    told = f"retention {change}, new rows {level(scores['new'], unit)} on validation rows"
    words = f"{share:.0%}" if round(100 * share) == 100 * share else f"{100 * share:.4g}%"
    if chosen is not None:
        return (
            f"{words} new and {100 - 100 * share:.4g}% replayed rows learn most within {allowed} "
            f"of retention: {told}."
        )
    return (
        f"No share of new rows stays within {allowed} of retention; nearest is {words} new: "
        f"{told}. Train longer, raise sweep.budget, or add a method."
    )
