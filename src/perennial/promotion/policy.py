"""What a candidate must show, and what the gate answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from perennial.errors import ConfigError


@dataclass(frozen=True)
class Check:
    """One question that the gate asked.

    Attributes:
        name: ``retention``, ``improvement``, ``harm/<holdout>``.
        outcome: ``pass``, ``reject``, ``inconclusive``, ``not_evaluable`` or ``waived``.
        estimate: Candidate minus champion, a fraction.
        interval: One-sided bounds at the decision's alpha.
        threshold: What a bound is held against.
        n: Rows.
        p_value: Of the test that decides.
        power: At ``alternative``, counting each group of dependent rows as one row.
        alternative: True difference at which the power is stated.
        reason: For a person.
        p_uncorrected: Before Holm's correction, where there was one.
        unit: Of estimate, interval and threshold: ``points`` for a fraction shown times 100,
            ``ratio`` for candidate over champion, empty for a plain number.
        side: ``above`` where a bound must lie above the threshold, ``below`` where below it.
        veto: A harm veto, which only passes or rejects.
    """

    name: str
    outcome: str
    estimate: float | None
    interval: tuple[float, float] | None
    threshold: float | None
    n: int
    p_value: float | None
    power: float | None
    alternative: float | None
    reason: str
    p_uncorrected: float | None = None
    unit: str = "points"
    side: str = "above"
    veto: bool = False


@dataclass(frozen=True)
class Decision:
    """The gate's verdict.

    Attributes:
        verdict: ``promoted``, ``rejected`` or ``inconclusive``.
        checks: What it rests on.
        alpha: Level of each test after the charge for repetition.
        decision_number: The how-manieth decision on this new holdout.
    """

    verdict: str
    checks: tuple[Check, ...]
    alpha: float
    decision_number: int

    def to_dict(self) -> dict[str, Any]:
        """Plain containers; no value is NaN."""
        value = asdict(self)
        value["checks"] = [
            {**asdict(c), "interval": None if c.interval is None else list(c.interval)}
            for c in self.checks
        ]
        return value


class Policy:
    """What a candidate must show.

    Args:
        alpha: Level of each one-sided test, in (0, 0.5).
        retention: ``{"margin": m}``: largest loss on history, in (0, 1); or ``"waived"``.
        improvement: ``minimum_effect`` in [0, 1) that must be exceeded on new rows, and
            ``alternative``, the true difference beyond it at which power is stated.

    Raises:
        ConfigError: A value out of range, or an unknown key.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.05,
        retention: Mapping[str, float] | str | None = None,
        improvement: Mapping[str, float] | None = None,
    ) -> None:
        retention = {"margin": 0.02} if retention is None else retention
        self.alpha = _within("gate.alpha", alpha, 0, 0.5)
        self.waived = retention == "waived"
        self.margin = 0.02
        if isinstance(retention, Mapping):
            _known("gate.retention", retention, {"margin"})
            self.margin = _within("gate.retention.margin", retention.get("margin", 0.02), 0, 1)
        elif not self.waived:
            raise ConfigError(
                f"gate.retention is {retention!r}.",
                where="gate.retention",
                mend="set gate.retention.margin=0.02, or gate.retention=waived",
            )
        wanted = {"minimum_effect": 0.0, "alternative": 0.02, **(improvement or {})}
        _known("gate.improvement", wanted, {"minimum_effect", "alternative"})
        self.minimum_effect = 0.0
        if wanted["minimum_effect"] != 0:
            self.minimum_effect = _within(
                "gate.improvement.minimum_effect", wanted["minimum_effect"], 0, 1
            )
        self.alternative = _within(
            "gate.improvement.alternative", wanted["alternative"], 0, 1 - self.minimum_effect
        )


def level(policy: Policy, decision_number: int) -> float:
    """Level of each test: the k-th decision on one new holdout is tested at alpha / 2^(k-1)."""
    alpha: float = policy.alpha / 2 ** (decision_number - 1)
    return alpha


def _within(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        raise ConfigError(
            f"{name} is {value!r}; it must lie between {low:g} and {high:g}.",
            where=name,
            mend=f"give a number above {low:g} and below {high:g}",
        )
    return float(value)


def _known(where: str, given: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(given) - known):
        raise ConfigError(
            f"{where}.{unknown[0]} is not a setting.",
            where=f"{where}.{unknown[0]}",
            mend=f"settings are {', '.join(sorted(known))}",
        )
