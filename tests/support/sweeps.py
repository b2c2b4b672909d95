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
from perennial.sweeping.study import Ended, Job, Run, Study
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


def announcing(pipe: int, batches: int) -> Run:
    """A runner that tells of each batch in a pipe, and stays in the last of its `batches`."""
    told = 0

    def announced(jobs: Sequence[Job], limits: Limits) -> list[Outcome]:
        nonlocal told
        told += 1
        os.write(pipe, b".")
        time.sleep(60 if told == batches else 0.02)
        return run(jobs, limits)

    return announced


def killed_midway(storage: str, given: dict[str, Any], draw: random.Random) -> None:
    """Runs a sweep of two trials at a time and kills it at any instant of its next five batches.

    The sweep cannot get past its fifth, however slowly this process comes to killing it.
    """
    heard, told = os.pipe()
    child = os.fork()
    if not child:
        study(storage, **given).run(announcing(told, batches=5))
        os._exit(0)
    os.close(told)
    for _ in range(draw.randint(1, 4)):
        assert os.read(heard, 1), "the sweep ended before it was killed"
    time.sleep(draw.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    os.close(heard)


def kill_and_resume(storage: str, seed: int) -> list[Ended]:
    """A sweep of 20 trials killed twice, at any instant, and then let run."""
    draw, given = random.Random(seed), {"sampler": "random", "trials": 20, "jobs": 2}
    study(storage, **given)
    for _ in range(2):
        killed_midway(storage, given, draw)
        assert len(study(storage, **given).ended()) < 20
    return study(storage, **given).run(run)
