"""Whether a version does worse than it did: by the labels that came, and before they come.

Shapes: N scored rows, P points of the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.errors import DataError, require_setting
from perennial.monitoring.performance import detectors, estimated, stream, thresholds
from perennial.monitoring.performance.estimated import BLIND, Estimated
from perennial.monitoring.performance.record import Record
from perennial.monitoring.performance.stream import HeldOut, Rhythm, Scale, Stream
from perennial.statistics import mean_difference, share_bounds
from perennial.types import Floats

# scored rows from which on a stream is watched
FEWEST = 30
# newest scored rows whose score is told
_NEWEST = 1_000


@dataclass(frozen=True)
class Score:
    """A mean score.

    Attributes:
        mean: Of the rows.
        interval: Central, at the level that was asked for; None of one row that is not 0 or 1.
        n: Rows.
    """

    mean: float
    interval: tuple[float, float] | None
    n: int


@dataclass(frozen=True)
class Alarm:
    """A detector saw errors rise.

    Attributes:
        detector: ``ADWIN`` or ``Page–Hinkley``.
        row: Position in the stream of the row at which it did, from 0.
        row_id: Of that row.
        time: Of that row as text; None without a time column.
        since_row_id: Of the row from which on they most likely had risen.
        since: Its time, likewise.
        before: Mean score up to there, back to the alarm before it or to the held-out rows.
        after: Mean score from there to the alarm.
    """

    detector: str
    row: int
    row_id: str
    time: str | None
    since_row_id: str
    since: str | None
    before: float
    after: float


@dataclass(frozen=True)
class Performance:
    """What the scores of a version say.

    Attributes:
        alarm: Whether it does worse.
        reason: Why, or why not: one sentence without a capital and a full stop.
        score_name: Of what is told.
        then: Of the held-out rows.
        now: Of the newest scored rows; None where none was scored.
        alarms: Of the detectors, oldest first.
        estimated: Of the newest window, before its labels; empty where none can be given.
        unestimated: Why, or empty.
        scored: Rows whose label has come.
        waiting: Rows whose label is to come.
        rhythm: Windows and scored rows a year.
        watched: How detectors were set, see `perennial.monitoring.performance.thresholds.Watch`;
            empty where they had nothing to watch.
    """

    alarm: bool
    reason: str
    score_name: str
    then: Score
    now: Score | None
    alarms: tuple[Alarm, ...]
    estimated: tuple[Estimated, ...]
    unestimated: str
    scored: int
    waiting: int
    rhythm: Rhythm
    watched: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "alarm": self.alarm,
            "reason": self.reason,
            "score": self.score_name,
            "scored": self.scored,
            "waiting": self.waiting,
            "realised": {
                "then": _plain(self.then),
                "now": None if self.now is None else _plain(self.now),
                "alarms": [asdict(one) for one in self.alarms],
            },
            "estimated": {
                "estimates": [one.to_dict() for one in self.estimated],
                "missing": self.unestimated or None,
                "caution": BLIND,
            },
            "per_year": asdict(self.rhythm),
            "watched": self.watched,
        }


def examine_performance(
    held_out: HeldOut,
    records: Sequence[Record],
    *,
    false_alarms_per_year: float,
    smallest_drop: float = 0.01,
    windows_per_year: float | None = None,
    since: datetime | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Performance:
    """Watch a version's scores where labels have come, and estimate them where they have not.

    The stream is fed to the detectors from its beginning each time, after the held-out rows. Each
    detector, and the estimate where the task gives one, has an equal part of the false alarms.

    Args:
        held_out: The version on rows that it never learned from.
        records: What it predicted, window by window, in the order in which they were recorded.
        false_alarms_per_year: How many are put up with, above 0, while nothing changes and rows do
            not depend on each other.
        smallest_drop: Of the mean score, at least 0: what is smaller is no alarm.
        windows_per_year: How many there are; None measures it.
        since: When a cycle last answered an alarm: rows whose label came later alone are watched.
        level: Of intervals, in (0, 1).
        seed: Of simulations.

    Raises:
        ConfigError: A setting is out of range, the rhythm is not known, or river is missing.
        DataError: There is nothing to look at, neither by labels nor without.
    """
    _require(false_alarms_per_year, smallest_drop, windows_per_year)
    newest = _newest_of(records)
    every, measured = stream.ordered(records), stream.scale(held_out)
    unestimated = estimated.why_not(held_out, newest) or ""
    unrealised = _why_not(every, measured)
    if unrealised and unestimated:
        raise DataError(
            f"The champion's performance cannot be told: {unrealised}; and {unestimated}.",
            where="the recorded predictions",
            mend="give labels of recorded windows, or larger windows",
        )
    rhythm = stream.rhythm(records, windows_per_year=windows_per_year)
    each = false_alarms_per_year / (2 if held_out.confidence is None else 3)
    watched, alarms = None, []
    if not unrealised:
        assert measured is not None
        detectors.require_river()
        watched = thresholds.watch(
            held_out, measured, rhythm, rate=each, smallest_drop=smallest_drop, seed=seed
        )
        later = every if since is None else stream.ordered(records, since=since)
        alarms = _alarms(later, held_out, measured, watched, smallest_drop)
    estimates: list[Estimated] = []
    if not unestimated:
        probability = min(each / rhythm.windows, 0.5)
        estimates = estimated.estimates(
            held_out,
            newest,
            alarm=probability,
            smallest_drop=smallest_drop,
            level=level,
            seed=seed,
        )
    answered = since is not None and newest.recorded_at <= since
    waits = newest.is_scored.sum() * 2 < len(newest)
    low = [one for one in estimates if one.is_low and waits and not answered]
    now = mean_score(every.score[-_NEWEST:], level) if len(every) else None
    then, name = mean_score(held_out.score, level), held_out.score_name
    return Performance(
        alarm=bool(alarms or low),
        reason=_reason(name, alarms, low, then, now, unrealised),
        score_name=name,
        then=then,
        now=now,
        alarms=tuple(alarms),
        estimated=tuple(estimates),
        unestimated=unestimated,
        scored=len(every),
        waiting=sum(int((~record.is_scored).sum()) for record in records),
        rhythm=rhythm,
        watched={} if watched is None else asdict(watched),
    )


def _require(rate: float, drop: float, windows: float | None) -> None:
    require_setting(rate > 0, "trigger.false_alarms_per_year", rate, "above 0")
    require_setting(drop >= 0, "trigger.smallest_drop", drop, "at least 0")
    words = "a time, so that there are more than 0 windows a year"
    require_setting(windows is None or windows > 0, "trigger.every", windows, words)


def _newest_of(records: Sequence[Record]) -> Record:
    if not records:
        raise DataError(
            "Nothing that the champion predicted was recorded.",
            where="the recorded predictions",
            mend="run perennial monitor on a window of rows first",
        )
    return records[-1]


def _why_not(every: Stream, measured: Scale | None) -> str:
    if measured is None:
        return "all held-out rows have one and the same score, which has no spread to compare with"
    if len(every) < FEWEST:
        return f"labels have come of {len(every)} rows, and {FEWEST} are the fewest to watch"
    return ""


def _alarms(
    watched: Stream,
    held_out: HeldOut,
    measured: Scale,
    how: thresholds.Watch,
    smallest_drop: float,
) -> list[Alarm]:
    before = thresholds.points_before(held_out, measured, how.block)
    errors = measured.errors(watched.score, how.block)
    found = []
    for kind, threshold in how.thresholds.items():
        start, known = 0, before
        for at in detectors.alarms(kind, before, errors, threshold=threshold, slack=how.slack):
            one = _alarm(kind, watched, known, errors[start : at + 1], start, how.block, measured)
            if one.before - one.after >= smallest_drop:
                found.append(one)
            start, known = at + 1, before[:0]
    return sorted(found, key=lambda one: (one.row, one.detector))


def _alarm(
    kind: str,
    watched: Stream,
    before: npt.NDArray[np.float64],
    errors: npt.NDArray[np.float64],
    start: int,
    block: int,
    measured: Scale,
) -> Alarm:
    """The alarm at the last of some points, of which the first is at ``start`` in the stream."""
    change = detectors.changed_at(before, errors)
    unit = measured.deviation / np.sqrt(block)
    earlier = np.concatenate([before, errors[:change]])
    row, since = (start + len(errors)) * block - 1, (start + change) * block
    return Alarm(
        detector=kind,
        row=row,
        row_id=str(watched.id[row]),
        time=watched.when(row),
        since_row_id=str(watched.id[since]),
        since=watched.when(since),
        before=measured.mean - unit * (float(earlier.mean()) if len(earlier) else 0.0),
        after=measured.mean - unit * float(errors[change:].mean()),
    )


def mean_score(score: Floats, level: float) -> Score:
    """The mean of scores (N,) with its interval.

    Args:
        score: At least one.
        level: Of the interval, in (0, 1).
    """
    n, mean, alpha = len(score), float(score.mean()), (1 - level) / 2
    if bool(np.isin(score, (0, 1)).all()):
        return Score(mean, share_bounds(float(score.sum()), n, alpha=alpha), n)
    if n < 2:
        return Score(mean, None, n)
    bounds = mean_difference(score, np.arange(n), alpha=alpha, threshold=0.0).interval
    return Score(mean, bounds, n)


def _plain(score: Score) -> dict[str, Any]:
    interval = None if score.interval is None else list(score.interval)
    return {"mean": score.mean, "interval": interval, "n": score.n}


def _reason(
    name: str,
    alarms: Sequence[Alarm],
    low: Sequence[Estimated],
    then: Score,
    now: Score | None,
    unrealised: str,
) -> str:
    if alarms:
        first = alarms[0]
        # no row is named: what keeps the sentence may outlive it
        at = f"since {first.since} " if first.since is not None else ""
        return (
            f"{name} fell from {first.before:.3f} to {first.after:.3f} "
            f"(mean {at}until {first.detector} saw it)"
        )
    if low:
        one = low[0]
        a, b = one.now.interval
        return (
            f"{name} of the newest window is estimated at {one.now.value:.3f} "
            f"[{a:.3f}, {b:.3f}], below {one.level:.3f}; it was {one.then:.3f} on held-out rows"
        )
    if unrealised or now is None:
        return f"{unrealised or 'no label has come'}; the estimated {name} is not low"
    return (
        f"{name} is {now.mean:.3f} over the newest {now.n} scored rows and was {then.mean:.3f} on "
        "held-out rows; no alarm"
    )
