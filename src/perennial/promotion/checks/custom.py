"""Custom checks: the user's own functions of the report."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from perennial.errors import EvaluationError
from perennial.promotion.policy import Check, Policy
from perennial.types import EvaluationReport, Fitted, Measured, Predictions, Serving

_OUTCOMES = ("pass", "reject", "inconclusive", "not_evaluable")


def custom(
    report: EvaluationReport, policy: Policy, alpha: float, *, taken: Sequence[str]
) -> list[Check]:
    """What the user's checks answer.

    Args:
        report: As it came, with the task's own scores; checks see it read-only.
        policy: Has the checks.
        alpha: Level of each one-sided test.
        taken: Names of the checks that were made already.

    Raises:
        EvaluationError: A check fails, or answers with something else than checks of its own name.
    """
    found: list[Check] = []
    given = _read_only(report)
    for check in policy.checks:
        name = _name(check)
        try:
            answer: Any = check(given, alpha)
        except Exception as error:
            raise _refused(name, f"failed: {type(error).__name__}: {error}") from error
        for each in answer if isinstance(answer, list) else [answer]:
            if problem := _problem(each, [*taken, *(one.name for one in found)]):
                raise _refused(name, problem)
            found.append(each)
    return found


def _problem(answer: Any, taken: Sequence[str]) -> str:
    if not isinstance(answer, Check):
        return f"answered with {type(answer).__name__}, not with a Check or a list of them"
    if not isinstance(answer.name, str) or not answer.name or answer.name in taken:
        return f"calls its answer {answer.name!r}, and each check needs a name of its own"
    if answer.outcome not in _OUTCOMES:
        return f"has the outcome {answer.outcome!r}; outcomes are {', '.join(_OUTCOMES)}"
    if answer.veto and answer.outcome == "inconclusive":
        return "is a veto and inconclusive; a veto passes or rejects"
    if answer.unit not in ("points", "ratio", "") or answer.side not in ("above", "below"):
        return f"has unit {answer.unit!r} and side {answer.side!r}"
    interval: Any = () if answer.interval is None else answer.interval
    if not isinstance(interval, tuple | list) or len(interval) not in (0, 2):
        return f"has the interval {interval!r}; it takes two bounds or None"
    figures = (
        answer.estimate, answer.threshold, answer.p_value, answer.p_uncorrected, answer.power,
        answer.alternative,
    )  # fmt: skip
    if not all(map(_finite, (*(one for one in figures if one is not None), *interval))):
        return "answered with a value that is not a finite number"
    if interval and (answer.estimate is None or answer.threshold is None):
        return "has an interval without an estimate and a threshold"
    if isinstance(answer.n, bool) or not isinstance(answer.n, int) or answer.n < 0:
        return f"counts {answer.n!r} rows"
    if not isinstance(answer.reason, str) or not isinstance(answer.veto, bool):
        return "needs a reason in words, and veto true or false"
    return ""


def _finite(value: Any) -> bool:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _read_only(report: EvaluationReport) -> EvaluationReport:
    """The report with arrays that cannot be written to: it is stored as it was decided on."""

    def view(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            value = value.view()
            value.flags.writeable = False
        elif isinstance(value, Mapping):
            value = MappingProxyType({name: view(each) for name, each in value.items()})
        elif isinstance(value, Predictions | Fitted | Serving | Measured | EvaluationReport):
            value = replace(value, **{f.name: view(getattr(value, f.name)) for f in fields(value)})
        return value

    seen: EvaluationReport = view(report)
    return seen


def _refused(name: str, problem: str) -> EvaluationError:
    return EvaluationError(
        f"The custom check {name} {problem}.",
        where="gate.checks",
        mend="nothing is promoted; mend the check or take it out of gate.checks",
    )


def _name(check: Any) -> str:
    if isinstance(check, partial):
        return _name(check.func)
    named = check if hasattr(check, "__qualname__") else type(check)
    return f"{named.__module__}.{named.__qualname__}"
