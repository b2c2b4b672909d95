"""Numbers as a person reads them, alike on the terminal and in the report."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count


def percent(fraction: float, places: int = 1) -> str:
    """A share in percent.

    >>> percent(0.9083)
    '90.8%'
    """
    return f"{_hundredfold(fraction, places):.{places}f}%"


def points(fraction: float, places: int = 1) -> str:
    """A difference of two shares in percentage points, with its sign; what rounds to 0 has none.

    >>> points(0.01), points(-0.0199, 2), points(-0.0001)
    ('+1.0', '-1.99', '0.0')
    """
    shown = f"{_hundredfold(fraction, places):+.{places}f}"
    return shown if float(shown) else f"{0:.{places}f}"


def level(value: float, unit: str) -> str:
    """A score, or a mean of scores, in its unit: a share in percent, else a number.

    Args:
        value: The score.
        unit: ``points`` for shares, else empty.

    >>> level(0.9083, "points"), level(-0.51234, "")
    ('90.8%', '-0.5123')
    """
    return percent(value) if unit == "points" else f"{value:.4g}"


def gain(value: float, unit: str) -> str:
    """A difference of two scores with its sign, in points or as a number.

    >>> gain(0.01, "points"), gain(-0.0512, ""), gain(0.0, "")
    ('+1.0 points', '-0.0512', '0')
    """
    if unit == "points":
        return f"{points(value)} points"
    return f"{value:+.3g}" if value else "0"


def places_apart(values: Sequence[float], threshold: float, *, least: int = 1) -> int:
    """Decimals of `points` with which no value looks like a threshold that it is not.

    Args:
        values: Fractions: an interval's bounds and its estimate.
        threshold: The fraction that they are held against.
        least: Decimals where fewer would do.

    >>> places_apart([-0.019996, 0.001], -0.02)
    4
    """
    ours = [value for value in values if 100 * value != 100 * threshold]
    return next(
        places
        for places in count(least)
        if all(points(value, places) != points(threshold, places) for value in ours)
    )


def _hundredfold(fraction: float, places: int) -> float:
    """In percent, less the noise of single precision: 0.00549998 and 0.0055 read alike."""
    return round(100 * fraction, max(4, places + 2))


def confidence(alpha: float) -> str:
    """1 - alpha in percent, with so many decimals that alpha is off by a tenth of itself at most.

    Args:
        alpha: Level of a test, in (0, 1).

    >>> confidence(0.05), confidence(0.05 / 2**8)
    ('95%', '99.98%')
    """
    return next(
        f"{shown:.{places}f}%"
        for places in count()
        if abs((shown := round(100 * (1 - alpha), places)) - 100 * (1 - alpha)) <= 10 * alpha
    )
