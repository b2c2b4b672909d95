"""Rows before and after a time, and a gap between both.

Shapes: N rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial import clock
from perennial.errors import ConfigError, DataError
from perennial.types import Booleans


def since(time: npt.NDArray[Any], start: Any, *, name: str) -> Booleans:
    """Which rows (N,) are from a time on.

    Args:
        time: Dates, times, numbers or sortable text (N,).
        start: In the form of ``time``; of dates and times in ISO 8601 without a zone.
        name: The source's name, for messages.

    Raises:
        ConfigError: ``start`` is of another form.
        DataError: All rows are from then on, or none.
    """
    late: Booleans = np.asarray(time >= _like(time, start))
    if late.all() or not late.any():
        earliest, latest = np.sort(time)[[0, -1]]  # which text has too
        raise DataError(
            f"{'All' if late.all() else 'None'} of the {len(time)} rows are from {start} on; they "
            f"range from {earliest} to {latest}.",
            where=f"data.{name}, data.holdout_from",
            mend="give a time between both, or null to hold the latest rows out",
        )
    return late


def before(time: npt.NDArray[Any], late: Booleans, gap: Any, *, name: str) -> Booleans:
    """Which rows (N,) are earlier than the held-out ones by less than a gap.

    Args:
        time: Dates, times or numbers (N,).
        late: The held-out rows (N,).
        gap: A number in the unit of numbers above 0, or ``30m``, ``12h``, ``7d``, ``2w`` of dates
            and times. None is no gap.
        name: The source's name, for messages.

    Raises:
        ConfigError: The gap is of another form.
        DataError: It leaves no row to learn from.
    """
    if gap is None or not late.any():
        return np.zeros(len(time), dtype=bool)
    span = _span(time, gap)
    within: Booleans = ~late & (time > time[late].min() - span)
    if (within | late).all():
        raise DataError(
            f"No row is {gap} earlier than the held-out ones.",
            where=f"data.{name}, data.gap",
            mend="use a shorter gap, or give earlier rows",
        )
    return within


def _like(time: npt.NDArray[Any], start: Any) -> Any:
    try:
        if time.dtype.kind == "M":
            return np.datetime64(str(start))
        return float(start) if time.dtype.kind in "iufb" else str(start)
    except ValueError as error:
        raise ConfigError(
            f"{start!r} is no time like {time[0]}.",
            where="data.holdout_from",
            mend="write it in the form of the time column, dates as 2026-11-01",
        ) from error


def _span(time: npt.NDArray[Any], gap: Any) -> Any:
    if time.dtype.kind == "M" and (length := clock.span(gap)):
        return np.timedelta64(length)
    if time.dtype.kind in "iuf" and isinstance(gap, int | float) and 0 < gap < math.inf:
        return gap
    raise ConfigError(
        f"{gap!r} is no gap between times like {time[0]}.",
        where="data.gap",
        mend="of dates and times write 12h, 7d or 2w, of numbers a number above 0; text has no gap",
    )
