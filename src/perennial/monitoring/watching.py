"""When a watched source is asked about again: a function of what is there and of what came of it.

A watcher looks every so often. It asks for a cycle once files have settled, that is where two looks
in a row find them alike, and where something is new since it last asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from perennial.errors import (
    EXIT_INCONCLUSIVE,
    EXIT_PROMOTED,
    EXIT_REJECTED,
    EXIT_SKIPPED,
    ConfigError,
)

# a cycle that came to a decision, or found nothing to do
ANSWERED = (EXIT_PROMOTED, EXIT_REJECTED, EXIT_INCONCLUSIVE, EXIT_SKIPPED)


@dataclass(frozen=True)
class Pace:
    """How often a watcher looks.

    Attributes:
        every: Seconds between two looks, above 0.
        longest: Seconds that it waits at most after failures; each failure in a row doubles the
            wait, from ``every`` on.
    """

    every: float
    longest: float

    def __post_init__(self) -> None:
        if not 0 < self.every <= self.longest:
            raise ConfigError(
                f"It is to look every {self.every:g} s, and after failures within "
                f"{self.longest:g} s.",
                where="--every, --longest-pause",
                mend="give a longest pause that is no shorter",
            )


@dataclass(frozen=True)
class Watched:
    """What a watcher knows.

    Attributes:
        seen: The source's state at the last look, None before it.
        asked: Its state when a cycle was last asked for and came to something.
        again: Time from which it is asked for again although nothing is new, in the clock's
            seconds; None for never.
        failures: In a row.
        failed: Time of the last failure.
        rest: Time before which nothing is asked for after it.
    """

    seen: str | None = None
    asked: str | None = None
    again: float | None = None
    failures: int = 0
    failed: float = 0.0
    rest: float = 0.0


def look(state: Watched, found: str | None, *, now: float) -> tuple[Watched, bool]:
    """Look at the source once.

    Args:
        state: What was known.
        found: The source's state, or None where only reading it tells.
        now: In the clock's seconds.

    Returns:
        What is known, and whether a cycle is to be asked for.
    """
    settled = found is None or found == state.seen
    news = found is None or found != state.asked
    again = state.again is not None and now >= state.again
    rested = not state.failed <= now < state.rest  # a clock that was turned back ends a rest
    return replace(state, seen=found), settled and (news or again) and rested


def outcome(
    state: Watched, code: int, *, asked: str | None, now: float, again: float | None, pace: Pace
) -> Watched:
    """Learn what a cycle came to.

    Args:
        state: What was known.
        code: The cycle's exit code, below 0 where it was killed.
        asked: The source's state when it was started.
        now: In the clock's seconds.
        again: When to ask again although nothing is new, where it said so.
        pace: How often to look.
    """
    if code in ANSWERED:
        return replace(state, asked=asked, again=again, failures=0, rest=0.0)
    wait = min(pace.longest, pace.every * 2.0 ** min(state.failures, 30))
    return replace(state, failures=state.failures + 1, failed=now, rest=now + wait)
