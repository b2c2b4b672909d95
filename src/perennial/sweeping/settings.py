"""The settings of a sweep."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from perennial.errors import ConfigError, require_setting

SAMPLERS = ("random", "grid", "tpe", "mix")
OBJECTIVES = ("combined", "retention", "plasticity")
# a trial is held against earlier ones once there are so many: Optuna's own number
STARTUP = 5
# it names a folder: with a dot allowed, ".." would be one above the sweeps'
STUDY = re.compile(r"[A-Za-z0-9_-]*[A-Za-z0-9][A-Za-z0-9_-]*")


class Sweep:
    """How settings are searched.

    Args:
        sampler: ``random``, ``grid`` (every combination), ``tpe``, or ``mix``, which looks for the
            share of new rows.
        trials: How many in all, failed and pruned ones included; None for all of a grid.
        jobs: Trials at a time. Trials are drawn in groups of so many, so that the same seed draws
            the same ones whichever ends first.
        seed: Of the sampler.
        objectives: What is maximised, of validation rows alone: ``combined`` (the mean of the two
            others), ``retention`` (the score on history), ``plasticity`` (on new rows); several
            give a Pareto set.
        pruner: None, or ``median``: a trial stops where its best scores so far are, in every
            objective, below the medians of those of earlier trials at that step.
        warmup: Optimizer steps before which none is pruned.
        storage: A database's URL; None for an SQLite file in the sweep's folder.
        study: The sweep's name, of letters, digits, ``-`` and ``_``; None derives it from search
            space, champion and configuration.
        promote: None, or ``best``: the chosen trial goes through the gate at the end.
        choose: ``combined``: the trial with the best combined score; ``budget``: the largest
            plasticity of those that lose at most `budget` of the champion's retention.
        budget: A fraction, or in the score's unit.
        values: Shares of new rows that ``mix`` begins with, in (0, 1).
        refine: Rounds of ``mix``, each halving the way to both neighbours of the best share.

    Raises:
        ConfigError: A value that is none of these.
    """

    def __init__(
        self,
        *,
        sampler: str = "tpe",
        trials: int | None = 20,
        jobs: int = 1,
        seed: int = 0,
        objectives: Sequence[str] = ("combined",),
        pruner: str | None = None,
        warmup: int = 0,
        storage: str | None = None,
        study: str | None = None,
        promote: str | None = None,
        choose: str = "combined",
        budget: float = 0.01,
        values: Sequence[float] | None = None,
        refine: int = 2,
    ) -> None:
        _one_of("sampler", sampler, SAMPLERS)
        _one_of("pruner", pruner, (None, "median"))
        _one_of("promote", promote, (None, "best"))
        _one_of("choose", choose, ("combined", "budget"))
        require_setting(
            trials is None or trials > 0, "sweep.trials", trials, "a whole number above 0, or null"
        )
        require_setting(
            trials is not None or sampler in ("grid", "mix"),
            "sweep.trials",
            trials,
            f"a number with sweep.sampler={sampler}, which has no end",
        )
        require_setting(jobs > 0, "sweep.jobs", jobs, "a whole number above 0")
        require_setting(0 <= seed < 2**31, "sweep.seed", seed, "from 0 to 2147483647")
        require_setting(warmup >= 0, "sweep.warmup", warmup, "0 or more optimizer steps")
        require_setting(
            budget >= 0, "sweep.budget", budget, "0 or more; a fraction for a score in points"
        )
        require_setting(refine >= 0, "sweep.refine", refine, "0 or more rounds")
        require_setting(
            isinstance(objectives, list | tuple) and len(objectives) > 0,
            "sweep.objectives",
            objectives,
            "a list, such as [combined] or [retention,plasticity]",
        )
        for one in objectives:
            _one_of("objectives", one, OBJECTIVES)
        require_setting(
            len(set(objectives)) == len(objectives),
            "sweep.objectives",
            objectives,
            "without doubles",
        )
        if study is not None:
            plain = isinstance(study, str) and STUDY.fullmatch(study) is not None
            words = "letters, digits, - and _, with a letter or a digit among them"
            require_setting(plain, "sweep.study", study, words)
        shares = list(values or ())
        right = all(isinstance(v, int | float) and 0 < v < 1 for v in shares)
        require_setting(
            right and len(shares) != 1 and len(set(shares)) == len(shares),
            "sweep.values",
            values,
            "two or more different shares between 0 and 1",
        )
        require_setting(
            bool(shares) == (sampler == "mix"),
            "sweep.values",
            values,
            "a list with sweep.sampler=mix, and null with another",
        )
        require_setting(
            sampler != "mix" or choose == "budget",
            "sweep.choose",
            choose,
            "budget with sweep.sampler=mix, which looks for the largest share within it",
        )
        require_setting(
            pruner is not None or warmup == 0,
            "sweep.warmup",
            warmup,
            "0 without sweep.pruner, as nothing is stopped then",
        )
        self.sampler, self.trials, self.jobs, self.seed = sampler, trials, jobs, seed
        self.objectives = tuple(objectives)
        self.pruner, self.warmup = pruner, warmup
        self.storage, self.study = storage, study
        self.promote, self.choose, self.budget = promote, choose, float(budget)
        self.values, self.refine = tuple(sorted(float(v) for v in shares)), refine

    def identity(self) -> dict[str, Any]:
        """What makes it another sweep when it changes; its length and manner do not."""
        return {
            "sampler": self.sampler,
            "seed": self.seed,
            "objectives": list(self.objectives),
            "pruner": [self.pruner, self.warmup] if self.pruner else None,
            "choose": [self.choose, self.budget] if self.choose == "budget" else self.choose,
            "values": [list(self.values), self.refine] if self.values else None,
        }


def _one_of(name: str, value: Any, known: Sequence[Any]) -> None:
    if value in known:
        return
    words = ["null" if one is None else str(one) for one in known]
    close = difflib.get_close_matches(str(value), words, n=1)
    mend = f"did you mean sweep.{name}={close[0]}? " if close else ""
    raise ConfigError(
        f"There is no {name} named {value!r}.",
        where=f"sweep.{name}",
        mend=f"{mend}choices: {', '.join(words)}",
    )
