"""ADWIN and Page–Hinkley over a stream of errors, and when the change was that they saw.

Both are river's; both start from the held-out rows, so that a version that is worse from its first
row on is seen as well. Only a rise of the errors counts.

Shapes: P points of a stream, R points of held-out rows before it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from perennial.errors import ConfigError
from perennial.types import Floats

ADWIN = "ADWIN"
PAGE_HINKLEY = "Page–Hinkley"
KINDS = (ADWIN, PAGE_HINKLEY)


def require_river() -> None:
    """Refuse to go on without river.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import river.drift  # noqa: F401
    except ImportError:
        raise ConfigError(
            "Detectors of a change in the errors need river.",
            where="trigger",
            mend="pip install 'perennial[monitor]'",
        ) from None


def alarms(
    kind: str, before: Floats, errors: Floats, *, threshold: float, slack: float = 0.0
) -> list[int]:
    """Points of a stream at which a detector saw the errors rise.

    After an alarm a detector goes on: ADWIN with what it kept, Page–Hinkley from nothing.

    Args:
        kind: ``ADWIN``, Bifet & Gavaldà, 2007, or ``Page–Hinkley``, Page, 1954.
        before: Errors of held-out rows (R,), of mean 0 and variance 1.
        errors: Of the stream (P,), in the same unit.
        threshold: ADWIN's delta, or Page–Hinkley's lambda.
        slack: Page–Hinkley's delta: half the rise that it is to see soonest.

    Returns:
        Positions in ``errors``, rising.
    """
    rises = _adwin(threshold) if kind == ADWIN else _page_hinkley(threshold, slack)
    for value in before.tolist():
        rises(value)
    return [at for at, value in enumerate(errors.tolist()) if rises(value)]


def _adwin(delta: float) -> Callable[[float], bool]:
    from river import drift

    detector = drift.ADWIN(delta=delta, clock=1)

    def rises(value: float) -> bool:
        before = detector.estimation
        detector.update(value)
        # it sees falls as well, and forgets what was before them; those are no alarm
        return bool(detector.drift_detected and detector.estimation > before)

    return rises


def _page_hinkley(threshold: float, slack: float) -> Callable[[float], bool]:
    from river import drift

    # without fading, so that the threshold means the same however long the stream is
    detector = drift.PageHinkley(mode="up", threshold=threshold, delta=slack, alpha=1.0)

    def rises(value: float) -> bool:
        detector.update(value)
        return bool(detector.drift_detected)

    return rises


def changed_at(before: Floats, errors: Floats) -> int:
    """Where in a stream the errors most likely rose, given that they did up to its end.

    The split that a likelihood ratio test for a rise of the mean at a known variance likes best
    (Hinkley, Biometrika 57, 1970).

    Args:
        before: Errors of held-out rows (R,).
        errors: Of the stream up to the alarm (P,), at least one.

    Returns:
        Position of the first point after the change, in [0, P).
    """
    points = np.concatenate([before, errors])
    starts = np.arange(max(len(before), 1), len(points))
    if not len(starts):
        return 0
    total: npt.NDArray[np.float64] = np.cumsum(points)
    left, right = total[starts - 1], total[-1] - total[starts - 1]
    after = len(points) - starts
    rise = (right / after - left / starts) * np.sqrt(starts * after / len(points))
    return int(starts[int(np.argmax(rise))] - len(before))
