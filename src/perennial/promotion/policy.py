"""What a candidate must show, and what the gate answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from perennial.errors import ConfigError
from perennial.promotion.settings import (
    SCORES,
    Bound,
    Calibration,
    Cost,
    Improvement,
    Retention,
    Sanity,
    Slices,
    one_of,
    part,
    within,
)
from perennial.types import EvaluationReport

__all__ = ["Bound", "Check", "CustomCheck", "Decision", "Policy", "level"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question that the gate asked; a check of your own may leave all but four fields out.

    Attributes:
        name: ``retention``, ``retention/total``, ``improvement``, ``harm/<holdout>``,
            ``slice/<new|history>/<column>=<value>``, ``bound/<metric>/<on>``,
            ``calibration/<ece|loss>/<new|history>``, ``serving/<what>``, ``sanity/<what>``,
            ``flips``, or a custom check's own.
        outcome: ``pass``, ``reject``, ``inconclusive``, ``not_evaluable`` or ``waived``.
        estimate: Candidate minus champion, or what else the check is about.
        interval: One-sided bounds, each at ``level``.
        threshold: What a bound is held against.
        n: Rows.
        p_value: Of the test that decides; of a reject, of the one that it rests on.
        power: At ``alternative``, counting each group of dependent rows as one row.
        alternative: True difference at which the power is stated.
        reason: For a person.
        p_uncorrected: Before Holm's correction, where there was one.
        unit: Of estimate, interval and threshold: ``points`` for a fraction shown times 100,
            ``ratio`` for candidate over champion, empty for a plain number.
        side: ``above`` where a bound must lie above the threshold, ``below`` where below it.
        veto: A harm veto, which only passes or rejects.
        level: Of each bound of the interval: the decision's alpha, or less where several tests
            share it; None for the decision's alpha.
    """

    name: str
    outcome: str
    n: int
    reason: str
    estimate: float | None = None
    interval: tuple[float, float] | None = None
    threshold: float | None = None
    p_value: float | None = None
    power: float | None = None
    alternative: float | None = None
    p_uncorrected: float | None = None
    unit: str = "points"
    side: str = "above"
    veto: bool = False
    level: float | None = None


@dataclass(frozen=True)
class Decision:
    """The gate's verdict.

    Attributes:
        verdict: ``promoted``, ``rejected`` or ``inconclusive``.
        checks: What it rests on.
        alpha: Level of each test after the charge for repetition.
        decision_number: The how-manieth decision on this new holdout.
        score: ``name`` of the per-example score that was compared, and its ``unit`` as in `Check`.
        flips: ``new`` and ``history`` to ``gained`` (wrong before, right now), ``lost`` (right
            before, wrong now) and ``n`` rows; empty for a task without classes.
    """

    verdict: str
    checks: tuple[Check, ...]
    alpha: float
    decision_number: int
    score: Mapping[str, str] = field(default_factory=dict)
    flips: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers; no value is NaN."""
        value = asdict(self)
        value["checks"] = [
            {**asdict(c), "interval": None if c.interval is None else list(c.interval)}
            for c in self.checks
        ]
        return value


CustomCheck = Callable[[EvaluationReport, float], Check | list[Check]]


class Policy:
    """What a candidate must show.

    Args:
        alpha: Level of each one-sided test, in (0, 0.5).
        score: What is compared row by row: ``task``, the task's own per-example score; ``loss``,
            minus the per-example loss; ``reciprocal_rank`` or ``ndcg`` of the true label among the
            probabilities. Margins and effects are in its unit.
        retention: Settings of `Retention`, or ``"waived"``: history is not looked at.
        improvement: Settings of `Improvement`.
        slices: Settings of `Slices`.
        bounds: Settings of `Bound`, one mapping each.
        calibration: Settings of `Calibration`.
        serving: Settings of `Cost`.
        sanity: Settings of `Sanity`.
        flips: Ceiling, in (0, 1), on the share of rows right before and wrong now; None for none.
        checks: The user's own: from report and level to one `Check` or a list of them.

    Raises:
        ConfigError: A value out of range, an unknown key, or settings that contradict each other.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.05,
        score: str = "task",
        retention: Mapping[str, Any] | str | None = None,
        improvement: Mapping[str, Any] | None = None,
        slices: Mapping[str, Any] | None = None,
        bounds: Sequence[Mapping[str, Any]] = (),
        calibration: Mapping[str, Any] | None = None,
        serving: Mapping[str, Any] | None = None,
        sanity: Mapping[str, Any] | None = None,
        flips: float | None = None,
        checks: Sequence[CustomCheck] = (),
    ) -> None:
        self.alpha = within("gate.alpha", alpha, 0, 0.5)
        self.score = one_of("gate.score", score, SCORES)
        self.waived = retention == "waived"
        if isinstance(retention, str) and not self.waived:
            raise ConfigError(
                f"gate.retention is {retention!r}.",
                where="gate.retention",
                mend="set gate.retention.margin=0.02, or gate.retention=waived",
            )
        self.retention = part(Retention, "gate.retention", None if self.waived else retention)
        self.improvement = part(Improvement, "gate.improvement", improvement)
        self.slices = part(Slices, "gate.slices", slices)
        self.bounds = _bounds(bounds)
        self.calibration = part(Calibration, "gate.calibration", calibration)
        self.serving = part(Cost, "gate.serving", serving)
        self.sanity = part(Sanity, "gate.sanity", sanity)
        self.flips = None if flips is None else within("gate.flips", flips, 0, 1)
        self.checks = _checks(checks)
        if self.score != "task" and self.retention.total is not None and not self.waived:
            raise ConfigError(
                f"gate.retention.total compares with the best champion ever, whose scores are kept "
                f"as the task gives them, and gate.score is {self.score}.",
                where="gate.retention.total",
                mend="set gate.retention.total=null, or gate.score=task",
            )


def level(policy: Policy, decision_number: int) -> float:
    """Level of each test: the k-th decision on one new holdout is tested at alpha / 2^(k-1)."""
    alpha: float = policy.alpha / 2 ** (decision_number - 1)
    return alpha


def total_level(alpha: float) -> float:
    """Level of the test against the best champion ever, half of the others'.

    The same frozen rows are asked in every cycle, and whoever passed them by luck keeps it.
    """
    return alpha / 2


def _bounds(given: Any) -> tuple[Bound, ...]:
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
        raise ConfigError(
            f"gate.bounds is {given!r}.",
            where="gate.bounds",
            mend="write a list: [{metric: MulticlassF1Score, rows: new, limit: 0.6}]",
        )
    bounds = tuple(part(Bound, f"gate.bounds[{i}]", each) for i, each in enumerate(given))
    keys = [bound.key for bound in bounds]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise ConfigError(
            f"gate.bounds limits {twice} twice.",
            where="gate.bounds",
            mend="leave one of the two out",
        )
    return bounds


def _checks(given: Any) -> tuple[CustomCheck, ...]:
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
        raise ConfigError(
            f"gate.checks is {given!r}.",
            where="gate.checks",
            mend="write a list: [{_target_: my_package.my_check, _partial_: true}]",
        )
    for i, check in enumerate(given):
        if not callable(check):
            raise ConfigError(
                f"gate.checks[{i}] is {check!r}; a check is called with report and alpha.",
                where=f"gate.checks[{i}]",
                mend="give a function with _partial_: true, or a class with a __call__ method",
            )
    return tuple(given)
