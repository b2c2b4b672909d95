"""How what is compared lay then and lies now, and since when it has moved.

Shapes: N rows of a window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.monitoring.calibration import LEAST_ROWS
from perennial.monitoring.columns import CategoryColumn, Measured, NumberColumn
from perennial.monitoring.reference import counted

# stretches of a window's time that are looked at on their own
SLICES = 8
BINS = 24
CATEGORIES = 8
_OUTSIDE = 0.005


@dataclass(frozen=True)
class Since:
    """From when on something has moved.

    Attributes:
        time: Of the rows, as text; None where no column tells it.
        looked_at: When the window was looked at in which it was seen first, as text.
        windows: Windows on end in which it has moved, this one included.
    """

    time: str | None
    looked_at: str
    windows: int


def named(of: str, one: Measured) -> str:
    """A test's name among those of a window: ``input/amount/ks``."""
    return f"{of}/{one.name}/{one.test}"


def stretches(time: npt.NDArray[Any] | None) -> list[npt.NDArray[np.intp]]:
    """Rows of successive stretches of time, equally many; none where no time is known.

    Args:
        time: Of the rows (N,), or None.
    """
    if time is None:
        return []
    count = min(SLICES, len(time) // LEAST_ROWS)
    if count < 2 or bool((time == time[0]).all()):
        return []
    return np.array_split(np.argsort(time, kind="stable"), count)


def effects(
    of: str, column: NumberColumn | CategoryColumn, values: npt.NDArray[Any]
) -> dict[str, float]:
    """Test to effect of some rows of a column.

    Args:
        of: As `perennial.monitoring.findings.Shift` has it.
        column: Of the reference.
        values: Numbers, or text (N,).
    """
    stream = column.start()
    if isinstance(column, NumberColumn):
        stream.add(np.asarray(values, np.float64))  # type: ignore[arg-type]
    else:
        stream.add(counted(values))  # type: ignore[arg-type]
    return {named(of, one): one.effect for one in stream.tests(count=len(values))}


def onset(course: Sequence[float]) -> int:
    """The stretch from which on an effect is there; 0 where that is all along, or not clear.

    Two levels are fitted to the course by least squares; the later one has to be twice the earlier.

    Args:
        course: The effect of each stretch, in order of time.

    Examples:
        >>> onset([0.1, 0.2, 0.9, 1.0]), onset([0.8, 1.0, 0.9]), onset([1.0, 0.1]), onset([])
        (2, 0, 0, 0)
    """
    values = np.array(course)
    splits = range(1, len(values))
    apart = [values[:at].var() * at + values[at:].var() * (len(values) - at) for at in splits]
    if not apart:
        return 0
    first = 1 + int(np.argmin(apart))
    return first if values[first:].mean() >= 2 * values[:first].mean() else 0


def since(
    before: Since | None,
    *,
    starts: Sequence[str],
    course: Sequence[float],
    time: str | None,
    looked_at: str,
) -> Since:
    """From when on something that moved has done so.

    Args:
        before: What the window before this one said of it; None where it had not moved there.
        starts: The time of each stretch's first row.
        course: The effect of each stretch.
        time: Of the window's first row, or None.
        looked_at: When the window is looked at.
    """
    if before is not None:
        return replace(before, windows=before.windows + 1)
    first = onset(course)
    return Since(starts[first] if first else time, looked_at, 1)


def number_picture(then: npt.NDArray[Any], now: npt.NDArray[Any]) -> dict[str, Any] | None:
    """Shares of two sets of numbers in bins of one width; the outermost hold what lies beyond.

    Args:
        then: Of the reference, NaN where missing.
        now: Of the window, likewise.

    Returns:
        ``edges`` (one more than bins), ``then`` and ``now``; None where one of them has no value.
    """
    then, now = then[~np.isnan(then)], now[~np.isnan(now)]
    if not len(then) or not len(now):
        return None
    ends = [np.quantile(part, (_OUTSIDE, 1 - _OUTSIDE)) for part in (then, now)]
    low, high = float(min(one[0] for one in ends)), float(max(one[1] for one in ends))
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    shares = [np.histogram(np.clip(part, low, high), edges)[0] / len(part) for part in (then, now)]
    return {
        "kind": "number",
        "edges": edges.tolist(),
        "then": shares[0].tolist(),
        "now": shares[1].tolist(),
    }


def category_picture(then: Mapping[str, int], now: Mapping[str, int]) -> dict[str, Any] | None:
    """Shares of the most frequent categories, then or now, the others as one.

    Args:
        then: Category to rows of the reference, empty text where missing.
        now: Of the window, likewise.

    Returns:
        ``names``, ``then`` and ``now``; None where one of them has no value.
    """
    parts = [{name: count for name, count in one.items() if name} for one in (then, now)]
    totals = [sum(one.values()) for one in parts]
    if not all(totals):
        return None
    shares = {
        name: [one.get(name, 0) / total for one, total in zip(parts, totals, strict=True)]
        for name in sorted({*parts[0], *parts[1]})
    }
    shown = sorted(shares, key=lambda name: -max(shares[name]))[:CATEGORIES]
    both = [[shares[name][side] for name in shown] for side in (0, 1)]
    names = list(shown)
    if len(shares) > len(shown):
        names.append(f"{len(shares) - len(shown)} others")
        both = [[*side, max(1 - sum(side), 0.0)] for side in both]
    return {"kind": "category", "names": names, "then": both[0], "now": both[1]}
