"""What holds a trigger back: a pause between cycles, too few rows, a budget that is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from perennial.errors import ConfigError, require_setting
from perennial.monitoring.triggers.base import Firing, Past, Situation, Trigger, plain, shown
from perennial.monitoring.triggers.schedule import require_span


class Budget:
    """What cycles may take within a sliding period.

    Args:
        period: Span of time, as ``30d``.
        cycles: Most decided cycles; None does not limit them.
        device_hours: Hours of training after which no cycle is begun; None does not limit them.

    Raises:
        ConfigError: There is no period, nothing is limited in it, or a number is not above 0.
    """

    def __init__(
        self,
        *,
        period: str | None,
        cycles: int | None = None,
        device_hours: float | None = None,
    ) -> None:
        if cycles is None and device_hours is None:
            raise ConfigError(
                "trigger.budget has a period, and limits nothing in it.",
                where="trigger.budget",
                mend="give trigger.budget.cycles, trigger.budget.device_hours or both",
            )
        for name, value in (("cycles", cycles), ("device_hours", device_hours)):
            require_setting(value is None or value > 0, f"trigger.budget.{name}", value, "above 0")
        self.words = str(period)
        self._period = require_span(period, where="trigger.budget.period")
        self._cycles = cycles
        self._hours = device_hours

    def inside(self, cycles: Sequence[Past], now: datetime) -> list[Past]:
        """The cycles that were decided within the period."""
        return [past for past in cycles if past.decided_at > now - self._period]

    def free_at(self, inside: Sequence[Past]) -> datetime | None:
        """When there is room again; None where there is room now.

        Args:
            inside: Cycles that were decided within the period, oldest first.
        """
        left, free = list(inside), None
        while left and self._is_spent(left):
            free = left.pop(0).decided_at + self._period
        return free

    def spent(self, inside: Sequence[Past]) -> str:
        """What was spent of what there is, in words."""
        hours = device_hours(inside)
        parts = [
            None if self._cycles is None else f"{len(inside)} of {self._cycles} cycles",
            None if self._hours is None else f"{hours:.3g} of {self._hours:g} device-hours",
        ]
        return ", ".join(filter(None, parts))

    def _is_spent(self, inside: Sequence[Past]) -> bool:
        return (self._cycles is not None and len(inside) >= self._cycles) or (
            self._hours is not None and device_hours(inside) >= self._hours
        )


class Limited:
    """A trigger that is held back.

    Args:
        trigger: The one that is asked.
        cooldown: Span of time after a decision in which none is due, as ``2d``.
        minimum_rows: New labelled rows below which none is due.
        budget: Arguments of `Budget`; none of them, or nulls alone, is no budget.

    Raises:
        ConfigError: A limit is not above 0, or limits nothing.
    """

    def __init__(
        self,
        trigger: Trigger,
        *,
        cooldown: str | None = None,
        minimum_rows: int | None = None,
        budget: Mapping[str, Any] | None = None,
    ) -> None:
        self._trigger = trigger
        self._cooldown = cooldown
        self._pause = None if cooldown is None else require_span(cooldown, where=_at("cooldown"))
        good = minimum_rows is None or minimum_rows > 0
        require_setting(good, _at("minimum_rows"), minimum_rows, "above 0")
        self._minimum = minimum_rows
        given = {key: value for key, value in (budget or {}).items() if value is not None}
        self._budget = Budget(**{"period": None, **given}) if given else None

    @property
    def kind(self) -> str:
        """The trigger's."""
        return self._trigger.kind

    @property
    def needs(self) -> frozenset[str]:
        """The trigger's, and the number of rows where there must be some."""
        return self._trigger.needs | (frozenset() if self._minimum is None else {"rows"})

    def early(self, situation: Situation) -> Firing | None:
        """Not due where time or money holds it back, or the trigger says so without data."""
        first = self._trigger.early(situation)
        if (held := self._held(situation)) is not None:
            return held if first is None else _later(held, first)
        if first is not None and first.due and self._minimum is not None:
            return None
        return first

    def ask(self, situation: Situation) -> Firing:
        """Due where the trigger is and nothing holds it back; limits are asked first."""
        early = self.early(situation)
        if early is not None and not early.due:
            return early
        if (few := self._too_few(situation)) is not None:
            return few
        return early or self._trigger.ask(situation)

    def _held(self, situation: Situation) -> Firing | None:
        """By time or money."""
        if self._pause is not None and (last := situation.last) is not None:
            end = last.decided_at + self._pause
            if end > situation.now:
                decided = f"the last cycle was decided on {shown(last.decided_at)}"
                reason = f"{decided}, and the cool-down of {self._cooldown} ends on {shown(end)}"
                return self._back("cooldown", reason, earliest=end, last=plain(last.decided_at))
        if self._budget is not None:
            _ = situation.last  # refuses a clock that was turned back
            return self._spent(situation, self._budget)
        return None

    def _spent(self, situation: Situation, budget: Budget) -> Firing | None:
        inside = budget.inside(situation.cycles, situation.now)
        if (free := budget.free_at(inside)) is None:
            return None
        reason = (
            f"the budget of {budget.words} is spent ({budget.spent(inside)}), and there is room "
            f"again from {shown(free)} on"
        )
        evidence = {
            "cycles": len(inside),
            "device_hours": device_hours(inside),
            "cycles_of_unknown_cost": sum(past.device_seconds is None for past in inside),
        }
        return self._back("budget", reason, earliest=free, **evidence)

    def _too_few(self, situation: Situation) -> Firing | None:
        if self._minimum is None:
            return None
        rows = situation.rows
        assert rows is not None
        if rows >= self._minimum:
            return None
        reason = f"{rows:,} new labelled rows have come, and {self._minimum:,} are waited for"
        return self._back("minimum_rows", reason, rows=rows)

    def _back(
        self, limit: str, reason: str, *, earliest: datetime | None = None, **evidence: Any
    ) -> Firing:
        evidence = {"held_back_by": limit, **evidence}
        return Firing(
            kind=self.kind, due=False, reason=reason, evidence=evidence, earliest=earliest
        )


def device_hours(cycles: Sequence[Past]) -> float:
    """Hours of training of cycles; one of unknown cost counts as none."""
    return sum(past.device_seconds or 0.0 for past in cycles) / 3600


def _later(held: Firing, first: Firing) -> Firing:
    """Held back until the trigger can be due as well."""
    if first.earliest is None or held.earliest is None or first.earliest <= held.earliest:
        return held
    reason = f"{held.reason}; it is due on {shown(first.earliest)} at the earliest"
    return replace(held, reason=reason, earliest=first.earliest)


def _at(setting: str) -> str:
    return f"trigger.{setting}"
