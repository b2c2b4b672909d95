"""Where the time of training steps goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

PHASES = ("data", "forward", "backward", "method", "optimizer", "logging")


class Stopwatch:
    """Adds up the seconds of each phase of training steps.

    A device that works on its own is waited for at each reading, which would slow every step down;
    so of its steps only one in `every` is read.

    Args:
        wait: Waits for the device, or None where there is nothing to wait for.
        every: Steps of which one is read.

    Attributes:
        seconds: Of each phase, over the steps that were read.
        total: Of these steps.
    """

    def __init__(self, *, wait: Callable[[], None] | None = None, every: int = 1) -> None:
        self.wait, self.every = wait, every
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.total = 0.0
        self._reads = False
        self._steps = 0
        self._began = 0.0

    def step(self) -> None:
        """A step begins, and the one before it ends."""
        now = self.now()
        if self._reads:
            self.total += now - self._began
        self._reads = self._steps % self.every == self.every - 1
        self._steps += 1
        self._began = self.now()

    def pause(self) -> float:
        """Something begins that belongs to no step, such as a validation; give it to `resume`."""
        return self.now()

    def resume(self, paused: float) -> None:
        """It is over."""
        self._began += self.now() - paused

    def end(self) -> None:
        """The last step ends."""
        self.step()
        self._reads = False

    def now(self) -> float:
        """Seconds of a clock, to be given to `add`."""
        if self._reads and self.wait is not None:
            self.wait()
        return time.perf_counter()

    def add(self, phase: str, began: float) -> None:
        """The time since ``began`` went to a phase."""
        if self._reads:
            self.seconds[phase] += self.now() - began

    def shares(self) -> dict[str, float]:
        """Share of each phase in the time of the steps, and ``other``; empty without a step."""
        if self.total <= 0:
            return {}
        found = {phase: seconds / self.total for phase, seconds in self.seconds.items()}
        return {**found, "other": max(1 - sum(found.values()), 0.0)}


def shares_line(shares: Mapping[str, float], padding: float | None = None) -> str:
    """The shares in words, and that of padding in texts; empty where there are none.

    Examples:
        >>> shares_line({"data": 0.021, "forward": 0.5, "backward": 0.479, "method": 0.0})
        'Time of training steps: data 2%, forward 50%, backward 48%, method 0%'
        >>> shares_line({"data": 0.1, "other": 0.9}, 0.25)
        'Time of training steps: data 10%, other 90%; 25% of texts is padding'
    """
    words = ", ".join(f"{phase} {share:.0%}" for phase, share in shares.items())
    filled = "" if padding is None else f"; {padding:.0%} of texts is padding"
    return f"Time of training steps: {words}{filled}" if words else ""
