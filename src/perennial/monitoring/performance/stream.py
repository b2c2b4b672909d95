"""The errors of a version in order of time, and how often rows and windows come.

Shapes: N scored rows, P points, M held-out rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.errors import ConfigError, EvaluationError
from perennial.monitoring.performance.record import Record
from perennial.types import Booleans, Floats, Integers, Strings

_DAYS = 365.25
# scores beyond this share of the held-out ones on the low side are drawn in: one row that is wrong
# by far says no more than that it is wrong
_TAIL = 0.005


@dataclass(frozen=True)
class HeldOut:
    """A version on rows that it never learned from, as it was when it was promoted.

    Attributes:
        score: Per-example scores (M,), higher is better.
        confidence: Probability of the predicted class (M,); None for a task without one class a
            row.
        predicted: Predicted class (M,), where there are confidences.
        classes: Number of classes; 0 for a task without them.
        score_name: Of the scores' mean: ``accuracy``.
    """

    score: Floats
    confidence: Floats | None = None
    predicted: Integers | None = None
    classes: int = 0
    score_name: str = "accuracy"

    def __post_init__(self) -> None:
        if not np.isfinite(self.score).all():
            raise EvaluationError(
                "The champion's held-out scores are not finite: the task gives no score for each "
                "row.",
                where="held-out predictions",
                mend="use a task with a score per row",
            )

    def __len__(self) -> int:
        return len(self.score)

    @property
    def is_binary(self) -> bool:
        """Whether each score is 0 or 1."""
        return bool(np.isin(self.score, (0, 1)).all())


@dataclass(frozen=True)
class Stream:
    """Scored rows in order of time, each once.

    Attributes:
        id: Row ids (N,).
        time: The time column's values (N,), or None: then the order is that of arrival.
        score: Per-example scores (N,).
    """

    id: Strings
    time: npt.NDArray[Any] | None
    score: Floats

    def __len__(self) -> int:
        return len(self.id)

    def when(self, row: int) -> str | None:
        """A row's time as text, of dates to the second."""
        if self.time is None:
            return None
        if self.time.dtype.kind == "M":
            return str(np.datetime_as_string(self.time[row], unit="s", casting="unsafe"))
        return str(self.time[row])


@dataclass(frozen=True)
class Rhythm:
    """How often something comes.

    Attributes:
        windows: A year.
        rows: Scored rows a year; 0 where there are none yet.
    """

    windows: float
    rows: float


@dataclass(frozen=True)
class Scale:
    """From scores to errors that have mean 0 and variance 1 while the version is as it was.

    Attributes:
        mean: Of the held-out scores.
        deviation: Of one row.
        lowest: Lower scores are drawn up to it.
    """

    mean: float
    deviation: float
    lowest: float

    def errors(self, score: Floats, block: int) -> npt.NDArray[np.float64]:
        """One error for each whole block of successive rows (P,)."""
        count = len(score) // block
        blocks = np.maximum(score[: count * block], self.lowest).reshape(count, block)
        off = (self.mean - blocks.mean(axis=1)) * np.sqrt(block)
        found: npt.NDArray[np.float64] = off / self.deviation
        return found


def ordered(records: Sequence[Record], *, since: datetime | None = None) -> Stream:
    """Scored rows of several windows, by time, else in the order in which they arrived.

    A row that several windows hold counts once, where it came first.

    Args:
        records: Of one version, in the order in which they were recorded.
        since: Rows whose label came later alone; None is all.
    """
    masks = [_after(record, since) for record in records]
    used = [(one, mask) for one, mask in zip(records, masks, strict=True) if mask.any()]
    if not used:
        return Stream(np.array([], dtype=np.str_), None, np.array([]))
    ids = np.concatenate([record.id[mask] for record, mask in used])
    score = np.concatenate([record.score[mask] for record, mask in used])
    times = [record.time[mask] for record, mask in used if record.time is not None]
    time = np.concatenate(times) if len(times) == len(used) else None
    order = np.arange(len(ids)) if time is None else np.argsort(time, kind="stable")
    _, first = np.unique(ids[order], return_index=True)
    order = order[np.sort(first)]
    return Stream(ids[order], None if time is None else time[order], score[order])


def _after(record: Record, since: datetime | None) -> Booleans:
    if since is None:
        return record.is_scored
    moment = np.datetime64(since.astimezone(UTC).replace(tzinfo=None), "us")
    later: Booleans = record.is_scored & (record.scored_at > moment)
    return later


def rhythm(records: Sequence[Record], *, windows_per_year: float | None) -> Rhythm:
    """How often windows and scored rows come.

    Measured from the rows' times where these are dates, else from the times of recording; rows
    without dates come with the windows.

    Args:
        records: Of one version, in the order in which they were recorded.
        windows_per_year: As set; None measures it.

    Raises:
        ConfigError: It is not set, and one window without times tells nothing.
    """
    days = _days(records)
    windows = windows_per_year if windows_per_year is not None else _windows(records, days)
    if windows is None:
        raise ConfigError(
            "How often windows come is not known: there is one window, and its rows have no dates.",
            where="trigger.every",
            mend="give the time between windows, trigger.every=7d say, or a column of dates as "
            "data.time_column",
        )
    scored = np.concatenate([record.is_scored for record in records])
    if days is not None and (span := np.ptp(days[scored]) if scored.any() else 0.0):
        return Rhythm(windows, float(scored.sum() / span) * _DAYS)
    labelled = [int(record.is_scored.sum()) for record in records if record.is_scored.any()]
    return Rhythm(windows, windows * float(np.mean(labelled)) if labelled else 0.0)


def _days(records: Sequence[Record]) -> npt.NDArray[np.float64] | None:
    """Times of all rows in days, where they are dates."""
    times = [record.time for record in records if record.time is not None]
    if len(times) < len(records) or any(time.dtype.kind != "M" for time in times):
        return None
    micro = np.concatenate([time.astype("datetime64[us]").astype(np.int64) for time in times])
    found: npt.NDArray[np.float64] = micro / 86_400e6
    return found


def _windows(records: Sequence[Record], days: npt.NDArray[np.float64] | None) -> float | None:
    if days is not None and len(days) and (span := float(np.ptp(days))):
        return len(records) * _DAYS / span
    moments = [record.recorded_at for record in records]
    between = (max(moments) - min(moments)).total_seconds() / 86_400
    return (len(records) - 1) * _DAYS / between if between > 0 else None


def scale(held_out: HeldOut) -> Scale | None:
    """What errors are measured in; None where all held-out scores are alike and not 0 or 1.

    Of 0/1 scores the mean is (k + ½) / (M + 1), which is never without a spread: a version that was
    right on all M rows is not right for ever.

    Args:
        held_out: The version on rows that it never learned from.
    """
    score = held_out.score
    if held_out.is_binary:
        share = (float(score.sum()) + 0.5) / (len(score) + 1)
        return Scale(share, float(np.sqrt(share * (1 - share))), 0.0)
    lowest = float(np.quantile(score, _TAIL))
    drawn = np.maximum(score, lowest)
    if drawn.min() == drawn.max():
        return None
    return Scale(float(drawn.mean()), float(drawn.std(ddof=1)), lowest)
