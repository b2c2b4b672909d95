"""What was found of a window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from scipy import stats

from perennial.monitoring.columns import Measured

NAMED = 3
TOGETHER = ("rows", "features")


@dataclass(frozen=True, kw_only=True)
class Shift:
    """One test of a window.

    Attributes:
        of: ``input``, a column; ``prediction``, what the model says; ``rows``, all columns
            together; ``features``, what enters the model's output layer.
        measured: The test.
        q: Its p-value adjusted for the false discovery rate over all tests of the window.
        alarm_q: The same of what counts for the alarm: 1 where the effect is too small.
        threshold: At or below which ``alarm_q`` it moved.
    """

    of: str
    measured: Measured
    q: float
    alarm_q: float
    threshold: float

    @property
    def moved(self) -> bool:
        """Whether it moved by more than chance would, as often as it may."""
        return self.alarm_q <= self.threshold

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        one = self.measured
        return {
            "of": self.of,
            "name": one.name,
            "test": one.test,
            "statistic": one.statistic,
            "p": one.p,
            "q": self.q,
            "effect": one.effect,
            "moved": self.moved,
            **one.detail,
        }


@dataclass(frozen=True, kw_only=True)
class Findings:
    """A window held against a reference.

    Attributes:
        alarm: Whether anything moved.
        overall: The smallest adjusted p-value of all tests that count.
        threshold: At or below which it is an alarm.
        probability: That of an alarm without any change.
        shifts: Every test.
        rows: Of the window.
        counted_rows: Rows that it counts for; see `perennial.monitoring.calibration.vouched`.
        joint_rows: Rows of it that tests of all columns looked at.
        reference_rows: Of the sample.
        version: Whose reference it is.
        notes: Lines for the user.
    """

    alarm: bool
    overall: float
    threshold: float
    probability: float
    shifts: tuple[Shift, ...]
    rows: int
    counted_rows: int
    joint_rows: int
    reference_rows: int
    version: str
    notes: tuple[str, ...] = ()

    @cached_property
    def resolution(self) -> float:
        """The smallest Kolmogorov–Smirnov distance of a single column that had been an alarm."""
        n, m = self.reference_rows, self.counted_rows
        level = max(self.threshold / len(self.shifts), 1e-300)
        return float(stats.kstwo.isf(level, max(round(n * m / (n + m)), 1)))

    @property
    def moved(self) -> tuple[Shift, ...]:
        """What moved: single columns first, and of these the surest."""
        found = [one for one in self.shifts if one.moved]
        return tuple(sorted(found, key=lambda one: (one.of in TOGETHER, one.alarm_q)))

    @property
    def reason(self) -> str:
        """What moved, in one sentence without a capital and a full stop."""
        return self._sentence(names=True)

    @property
    def nameless(self) -> str:
        """The same without categories: what keeps it may outlive the only row that had one."""
        return self._sentence(names=False)

    def _sentence(self, *, names: bool) -> str:
        if not self.alarm:
            return f"nothing moved by more than chance in {self.rows} rows"
        told = list(dict.fromkeys(_told(one, names=names) for one in self.moved))
        rest = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
        return f"{', '.join(told[:NAMED])}{rest} moved in {self.rows} rows"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "alarm": self.alarm,
            "reason": self.reason,
            "overall": self.overall,
            "threshold": self.threshold,
            "probability": self.probability,
            "rows": self.rows,
            "counted_rows": self.counted_rows,
            "joint_rows": self.joint_rows,
            "reference_rows": self.reference_rows,
            "version": self.version,
            "resolution": self.resolution,
            "shifts": [one.to_dict() for one in self.shifts],
            "notes": list(self.notes),
        }


def _told(shift: Shift, *, names: bool) -> str:
    one = shift.measured
    detail: Mapping[str, Any] = one.detail
    if shift.of == "rows":
        return "the columns together"
    if shift.of == "features":
        return "the model's features"
    if one.test == "missing":
        return f"{one.name} (missing {detail['then']:.1%}, now {detail['now']:.1%})"
    name = f"the model's {one.name}" if shift.of == "prediction" else one.name
    if one.test == "ks":
        return f"{name} (by {one.effect:.2g} standard deviations)"
    if unseen := detail["unseen_names"]:
        if names:
            return f"{name} (never seen: {', '.join(list(unseen)[:NAMED])})"
        return f"{name} ({detail['unseen']:.1%} in categories never seen)"
    return f"{name} (Cramér's V {one.effect:.2g})"
