"""Custom checks: the user's own functions of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from perennial.errors import EvaluationError
from perennial.promotion.policy import Check, Policy
from perennial.types import EvaluationReport

_OUTCOMES = ("pass", "reject", "inconclusive", "not_evaluable")


def custom(
    report: EvaluationReport, policy: Policy, alpha: float, *, taken: Sequence[str]
) -> list[Check]:
    """What the user's checks answer.

    Args:
        report: As it came, with the task's own scores.
        policy: Has the checks.
        alpha: Level of each one-sided test.
        taken: Names of the checks that were made already.

    Raises:
        EvaluationError: A check fails, or answers with something else than checks of its own name.
    """
    found: list[Check] = []
    for check in policy.checks:
        name = _name(check)
        try:
            answer: Any = check(report, alpha)
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
    numbers = (
        answer.estimate, answer.threshold, answer.p_value, answer.p_uncorrected, answer.power,
        answer.alternative, *(answer.interval or ()),
    )  # fmt: skip
    if not all(each is None or math.isfinite(each) for each in numbers):
        return "answered with a value that is not a finite number"
    return ""


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
