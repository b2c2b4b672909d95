"""Sweeps whose trials are quick: scores are a function of the settings."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from typing import Any

from perennial.sweeping.mix import SHARE
from perennial.sweeping.pruning import Limits, verdict
from perennial.sweeping.settings import Sweep
from perennial.sweeping.space import Parameter
from perennial.sweeping.study import Ended, Job, Study
from perennial.sweeping.trial import Outcome

SPACE = [
    Parameter(name="x", low=0.0, high=1.0),
    Parameter(name="lr", low=1e-4, high=1e-1, log=True),
    Parameter(name="method", choices=("replay", "ewc")),
]
CHAMPION = {"new": 0.0, "history": 0.9, "combined": 0.45}


def trained(params: dict[str, Any], limits: Limits) -> Outcome:
    """A trial whose scores are a function of its settings."""
    x = float(params.get("x", params.get(SHARE, 0.5)))
    curve: list[dict[str, float]] = [{"step": 0, **CHAMPION}]
    for step in (10, 20):
        new, history = x * step / 20, 0.9 - 0.2 * x * x
        scores = {"new": new, "history": history, "combined": (new + history) / 2}
        curve.append({"step": step, **scores})
        if reason := verdict(curve, limits):
            return Outcome(state="pruned", reason=reason, champion=CHAMPION, curve=curve)
    return Outcome(state="finished", champion=CHAMPION, scores=scores, curve=curve)


def run(jobs: Sequence[Job], limits: Limits) -> list[Outcome]:
    return [trained(params, limits) for _, params in jobs]


def study(storage: str, space: Sequence[Parameter] = SPACE, name: str = "s", **given: Any) -> Study:
    settings = Sweep(**given)
    identity = {"space": len(space), "settings": settings.identity()}
    return Study(name=name, storage=storage, space=space, settings=settings, identity=identity)


def params(ended: Sequence[Ended]) -> list[tuple[Any, ...]]:
    return [tuple(sorted(one.params.items())) for one in ended]


def slow(jobs: Sequence[Job], limits: Limits) -> list[Outcome]:
    time.sleep(0.02)
    return run(jobs, limits)


def kill_and_resume(storage: str, seed: int) -> list[Ended]:
    """A sweep of 20 trials killed twice, at any instant, and then let run."""
    draw, killed, given = random.Random(seed), 0, {"sampler": "random", "trials": 20, "jobs": 2}
    study(storage, **given)
    while killed < 2:
        child = os.fork()
        if not child:
            study(storage, **given).run(slow)
            os._exit(0)
        time.sleep(draw.uniform(0.1, 0.5))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert len(study(storage, **given).ended()) < 20
    return study(storage, **given).run(run)
