"""The score of a window's rows before their labels come.

Shapes: M held-out rows, N rows of the window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from perennial.monitoring.performance.record import Record
from perennial.monitoring.performance.stream import HeldOut
from perennial.statistics import estimation
from perennial.statistics.estimation import Estimate

BLIND = (
    "An estimate without labels cannot see concept drift: where inputs mean something else than "
    "they did, the model is as sure as before."
)
THRESHOLD = "average thresholded confidence"
CALIBRATED = "calibrated confidence"
AREA = "calibrated confidence, area under the ROC curve"

# held-out rows from which on a confidence can be calibrated, and rows of a window worth an estimate
FEWEST = 50


@dataclass(frozen=True)
class Estimated:
    """One estimate of a window's score.

    Attributes:
        how: `THRESHOLD`, `CALIBRATED` or `AREA`.
        then: The same score of the held-out rows, as their labels give it.
        now: Of the window's rows, estimated.
        level: Below which value it alarms; None where it never does.
    """

    how: str
    then: float
    now: Estimate
    level: float | None = None

    @property
    def is_low(self) -> bool:
        """Whether it alarms."""
        return self.level is not None and self.now.value < self.level

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "how": self.how,
            "then": self.then,
            "now": self.now.value,
            "interval": list(self.now.interval),
            "alarms_below": self.level,
        }


def why_not(held_out: HeldOut, record: Record) -> str | None:
    """Why no score can be estimated, in a sentence without a full stop; None where one can."""
    if held_out.confidence is None or not held_out.is_binary:
        return "the task has no probability of one class a row, from which a score is estimated"
    if np.isnan(record.confidence).any():
        return "the window was recorded without confidences"
    if len(held_out) < FEWEST:
        return f"{len(held_out)} held-out rows are too few to calibrate confidences: {FEWEST}"
    if len(record) < FEWEST:
        return f"a window of {len(record)} rows is too small for an estimate: {FEWEST}"
    if len(np.unique(held_out.score)) < 2:
        every = "right" if held_out.score[0] else "wrong"
        return f"the champion was {every} on every held-out row, which calibrates nothing"
    return None


def estimates(
    held_out: HeldOut,
    record: Record,
    *,
    alarm: float,
    smallest_drop: float,
    level: float = 0.95,
    seed: int = 0,
) -> list[Estimated]:
    """Estimates of a window's score, the one that may alarm first.

    Calibrated confidence alarms where its estimate is so far below the score of the held-out rows
    that a window of rows like these is with the given probability, and by what matters at least.
    That distance has a normal distribution: rows of a window and of the holdout vary both.

    Args:
        held_out: The version on rows that it never learned from; `why_not` has nothing against it.
        record: The window's.
        alarm: Probability of a false alarm on one window, in (0, 1).
        smallest_drop: Of the score, that matters.
        level: Of the intervals, in (0, 1).
        seed: Of bootstrap samples.
    """
    assert held_out.confidence is not None
    right = held_out.score == 1
    then = float(right.mean())
    ways: dict[str, Callable[..., Estimate]] = {
        CALIBRATED: estimation.estimate_accuracy,
        THRESHOLD: estimation.estimate_by_threshold,
    }
    found = []
    for how, estimate in ways.items():
        now = estimate(held_out.confidence, right, record.confidence, level=level, seed=seed)
        limit = None
        if how == CALIBRATED:
            error = _error_of_distance(held_out, record)
            drop = max(-float(special.ndtri(min(alarm, 0.5))) * error, smallest_drop)
            limit = then - drop
        found.append(Estimated(how, then, now, limit))
    if held_out.classes == 2 and held_out.predicted is not None and record.predicted.ndim == 1:
        found += _area(held_out, record, level=level, seed=seed)
    return found


def _error_of_distance(held_out: HeldOut, record: Record) -> float:
    """Of a window's mean calibrated confidence less the holdout's score, while nothing changes.

    The former varies with the window's rows and with the calibration; of that, what follows the
    holdout's score cancels. Let p be calibrated confidence: the distance is the mean of p over the
    window less that over the holdout, because a calibration gives its own rows their own mean.
    """
    assert held_out.confidence is not None
    p = estimation.calibrator(held_out.confidence, held_out.score)(held_out.confidence)
    return float(p.std(ddof=1)) * float(np.sqrt(1 / len(record) + 1 / len(held_out)))


def _area(held_out: HeldOut, record: Record, *, level: float, seed: int) -> list[Estimated]:
    """Nothing where the window's rows seem to be of one class."""
    assert held_out.confidence is not None
    assert held_out.predicted is not None
    right = held_out.score == 1
    positive = np.where(right, held_out.predicted, 1 - held_out.predicted) == 1
    before = _of_class_one(held_out.predicted, held_out.confidence)
    later = _of_class_one(record.predicted, record.confidence)
    now = estimation.estimate_auc(before, positive, later, level=level, seed=seed)
    then = estimation.expected_auc(before, positive.astype(np.float64))
    return [] if now is None or np.isnan(then) else [Estimated(AREA, then, now)]


def _of_class_one(predicted: Any, confidence: Any) -> Any:
    return np.where(predicted == 1, confidence, 1 - confidence)
