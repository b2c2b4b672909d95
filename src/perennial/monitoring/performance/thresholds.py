"""How far a detector has to be moved before it alarms, from how often it may be wrong a year.

Lives of a version that stays as it was are simulated: held-out rows drawn like those that there
are, then a stream of such rows at the size and rhythm of the real one. The threshold is where the
detector alarms in them as often as it may.

Shapes: M held-out rows, R points of held-out rows, P points of a stream, L lives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.monitoring.performance.detectors import ADWIN, KINDS, alarms
from perennial.monitoring.performance.stream import HeldOut, Rhythm, Scale, scale

# points a year at most, where the held-out rows allow: more rows are taken in blocks
_POINTS = 6_000
# points that the held-out rows give at least, and at most
_BEFORE = (100, 2_000)
# points of all simulated lives, and of one of them
_SIMULATED = 400_000
_LIFE = 20_000
# alarms below which a count is trusted no more, and with which lives are left unused
_ENOUGH = 25
_PLENTY = 150
# half of the rise that Page–Hinkley sees soonest, in standard deviations of a row, at least
_SLACK = 0.1
# a detector's most sensitive threshold, and the factor to the next
_LADDER = {KINDS[0]: (3.0, 0.4), KINDS[1]: (4.0, 1.25)}
_STEPS = 24

Lives = Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]


@dataclass(frozen=True)
class Watch:
    """How a stream is watched.

    Attributes:
        block: Successive rows that are one point.
        points: A year.
        slack: Page–Hinkley's delta, in standard deviations of a point.
        thresholds: Detector to its threshold.
    """

    block: int
    points: float
    slack: float
    thresholds: dict[str, float]


def watch(
    held_out: HeldOut,
    measured: Scale,
    rhythm: Rhythm,
    *,
    rate: float,
    smallest_drop: float,
    seed: int = 0,
) -> Watch:
    """Thresholds of both detectors.

    Rows a year are rounded up to the next power of the fourth root of 2, so that a few rows more
    leave thresholds, and with them past alarms, as they were.

    Args:
        held_out: The version on rows that it never learned from.
        measured: Their scale.
        rhythm: How many scored rows come a year.
        rate: False alarms a year of each detector, above 0.
        smallest_drop: Of the mean score, that matters.
        seed: Of the simulation.
    """
    rows = 2 ** (math.ceil(4 * math.log2(max(rhythm.rows, 1.0))) / 4)
    block = max(1, min(math.ceil(rows / _POINTS), len(held_out) // _BEFORE[0]))
    slack = math.sqrt(block) * max(_SLACK, smallest_drop / (2 * measured.deviation))
    points = rows / block
    scores = np.asarray(held_out.score, dtype=np.float64).tobytes()
    found = _thresholds(scores, block, points, slack, rate, seed)
    return Watch(block, points, slack, dict(zip(KINDS, found, strict=True)))


@lru_cache(maxsize=32)
def _thresholds(
    scores: bytes, block: int, points: float, slack: float, rate: float, seed: int
) -> tuple[float, ...]:
    """Of each detector; a backtest asks for those of one version window after window."""
    held_out = HeldOut(np.frombuffer(scores, dtype=np.float64))
    lives = _lives(held_out, block=block, points=points, seed=seed)
    return tuple(_threshold(kind, lives, per_point=rate / points, slack=slack) for kind in KINDS)


def points_before(held_out: HeldOut, measured: Scale, block: int) -> npt.NDArray[np.float64]:
    """Errors of held-out rows (R,), which come before the stream."""
    return measured.errors(held_out.score, block)[: _BEFORE[1]]


def _lives(held_out: HeldOut, *, block: int, points: float, seed: int) -> Lives:
    """Held-out points (R,) and points of a stream (P,), L times; each life has its own scale."""
    generator = np.random.default_rng(seed)
    before = min(len(held_out) // block, _BEFORE[1])
    length = int(min(max(points, _ENOUGH), _LIFE))
    found = []
    for _ in range(max(_SIMULATED // (before + length), 1)):
        drawn = HeldOut(_draw(held_out, (len(held_out),), generator))
        measured = scale(drawn)
        if measured is None:
            continue  # of few distinct scores a draw may have one alone
        stream = measured.errors(_draw(held_out, (length * block,), generator), block)
        found.append((points_before(drawn, measured, block), stream))
    return found


def _draw(
    held_out: HeldOut, shape: tuple[int, ...], generator: np.random.Generator
) -> npt.NDArray[Any]:
    if held_out.is_binary:
        measured = scale(held_out)
        assert measured is not None
        return (generator.random(shape) < measured.mean).astype(np.float64)
    return generator.choice(held_out.score, shape)


def _threshold(kind: str, lives: Lives, *, per_point: float, slack: float) -> float:
    """Where alarms are as frequent as they may be.

    The logarithm of their frequency is nearly linear in Page–Hinkley's lambda and in the logarithm
    of ADWIN's delta; that line is taken through the last steps of a ladder, and followed beyond
    them where alarms may be rarer than these lives can tell.
    """
    value, factor = _LADDER[kind]
    tried: list[tuple[float, int, float]] = []
    for _ in range(_STEPS):
        count, points = _counted(kind, lives, threshold=value, slack=slack)
        tried.append((value, count, count / points))
        if count < _ENOUGH or count / points <= per_point:
            break
        value *= factor
    used = [one for one in tried[-4:] if one[1]]
    if len(used) < 2:
        return tried[0][0]  # the most sensitive is rare enough
    log = kind == ADWIN
    x = np.array([math.log(value) if log else value for value, _, _ in used])
    weight = np.sqrt([count for _, count, _ in used])
    slope, start = np.polyfit(x, np.log([frequency for *_, frequency in used]), 1, w=weight)
    at = (math.log(per_point) - start) / slope
    return float(math.exp(at) if log else at)


def _counted(kind: str, lives: Lives, *, threshold: float, slack: float) -> tuple[int, int]:
    """Alarms and points of as many lives as it takes for a count, or of all."""
    count = points = 0
    for before, stream in lives:
        count += len(alarms(kind, before, stream, threshold=threshold, slack=slack))
        points += len(stream)
        if count >= _PLENTY:
            break
    return count, points
