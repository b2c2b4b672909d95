"""Places on a horizontal axis, in percent of its width, so that a drawing fits any screen."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

ROOM = 0.05
TICKS = 8


@dataclass(frozen=True)
class Scale:
    """A linear axis.

    Attributes:
        low: Value at its left end.
        high: Value at its right end, above ``low``.
    """

    low: float
    high: float

    def place(self, value: float) -> float:
        """Percent of the width from the left, in [0, 100]: a value beyond an end lies on it."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(max(share, 0.0), 1.0), 3)

    def beyond(self, value: float) -> int:
        """-1 for a value left of the axis, 1 for one right of it, else 0."""
        return int(value > self.high) - int(value < self.low)

    def ticks(self) -> list[float]:
        """At most eight round values on the axis, 0 among them where it is on it."""
        span = self.high - self.low
        size = 10.0 ** math.floor(math.log10(span / TICKS))
        step = next(size * m for m in (1, 2, 5, 10, 20) if span / (size * m) < TICKS)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [index * step for index in range(first, last + 1)]


def window(values: Iterable[float], *, middle: float = 0.0) -> Scale:
    """An axis around the values, with some room at both ends.

    Args:
        values: What is to lie on it.
        middle: Always on the axis: where there is no difference.
    """
    shown = [*values, middle]
    low, high = min(shown), max(shown)
    room = ROOM * (high - low) or 1.0
    return Scale(low - room, high + room)
