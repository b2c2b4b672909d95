"""Retraining policies by their names: ``never``, ``every:4``, ``scratch``, or a trigger's."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perennial.backtest.timeline import Timeline
from perennial.errors import ConfigError
from perennial.monitoring.triggers import Firing, Situation, Trigger

NEVER, EVERY, SCRATCH = "never", "every", "scratch"


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """A retraining policy.

    Attributes:
        name: As the user wrote it.
        trigger: Asked after each window.
        scratch: Trains a first version on everything instead of retraining the one that serves.
    """

    name: str
    trigger: Trigger
    scratch: bool = False


@dataclass(frozen=True)
class Never:
    """Is never due."""

    kind = NEVER
    needs: frozenset[str] = frozenset()

    def early(self, situation: Situation) -> Firing:
        """Not due."""
        return self.ask(situation)

    def ask(self, situation: Situation) -> Firing:
        """Not due."""
        return Firing(kind=NEVER, due=False, reason="the first version is to serve for good")


@dataclass(frozen=True)
class Every:
    """Is due after every so many windows.

    Attributes:
        count: Of windows.
        timeline: Counts them.
    """

    count: int
    timeline: Timeline
    kind = EVERY
    needs: frozenset[str] = frozenset()

    def early(self, situation: Situation) -> Firing:
        """The answer, for which no data are needed."""
        return self.ask(situation)

    def ask(self, situation: Situation) -> Firing:
        """Due where the number of windows that are over is a multiple."""
        over = self.timeline.over(situation.now)
        return Firing(
            kind=EVERY,
            due=over % self.count == 0,
            reason=f"{over} windows are over, and a cycle is due after every {self.count}",
        )


def cadences(
    policy: str | Sequence[str],
    *,
    timeline: Timeline,
    triggers: Mapping[str, Callable[[], Trigger]],
) -> list[Cadence]:
    """The policies that a setting names; ``never`` is always among them, and first.

    Args:
        policy: Names, as a list or with commas between them.
        timeline: Whose windows are counted.
        triggers: Name to what builds the trigger.

    Raises:
        ConfigError: A name is no policy, or stands there twice.
    """
    names = [one.strip() for one in policy.split(",")] if isinstance(policy, str) else policy
    names = [str(name) for name in names if str(name)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{twice} is named twice.", where="policy", mend="name each policy once")
    found = [_cadence(name, timeline, triggers) for name in names]
    never = Cadence(name=NEVER, trigger=Never())
    return [never, *(one for one in found if one.name != NEVER)]


def _cadence(
    name: str, timeline: Timeline, triggers: Mapping[str, Callable[[], Trigger]]
) -> Cadence:
    kind, _, count = name.partition(":")
    if name == NEVER:
        return Cadence(name=name, trigger=Never())
    if name == SCRATCH:
        return Cadence(name=name, trigger=Every(1, timeline), scratch=True)
    if kind == EVERY and count.isdecimal() and int(count):
        return Cadence(name=name, trigger=Every(int(count), timeline))
    if name in triggers:
        return Cadence(name=name, trigger=triggers[name]())
    known: list[Any] = [NEVER, f"{EVERY}:N", *triggers, SCRATCH]
    close = difflib.get_close_matches(name, known, n=1)
    if kind == EVERY:
        raise ConfigError(
            f"{name!r} does not say after how many windows a cycle is due.",
            where="policy",
            mend="write every:1 or every:4, a whole number from 1",
        )
    raise ConfigError(
        f"{name!r} is no policy.",
        where="policy",
        mend=(f"did you mean {close[0]}? " if close else "") + f"policies: {', '.join(known)}",
    )
