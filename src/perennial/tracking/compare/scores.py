"""Levels and paired differences with their intervals, by the statistics of the gate.

Shapes: N rows of one run's holdouts, M rows that two runs share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from perennial import statistics
from perennial.errors import EvaluationError
from perennial.promotion.comparison import compare, discordant
from perennial.promotion.predictions import Scores
from perennial.types import EvaluationReport, Predictions

ALPHA = 0.05
PARTS = ("new", "history")

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A level or a difference.

    Attributes:
        value: The estimate.
        n: Rows.
        interval: Bounds, each one-sided at `ALPHA`; None where they are not known.
    """

    value: float
    n: int
    interval: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        interval = None if self.interval is None else list(self.interval)
        return {"value": self.value, "n": self.n, "interval": interval}


def level(score: Floats, cluster: npt.NDArray[np.int64]) -> Estimate:
    """Mean score with its interval.

    Shares of rows by Clopper and Pearson's exact bounds, dependent rows counted as so many
    independent ones as they are worth; other scores by their mean over clusters.

    Args:
        score: Of each row (N,), N at least 1.
        cluster: Rows with one number (N,) are dependent.
    """
    mean, n = float(score.mean()), len(score)
    clusters = int(np.count_nonzero(np.bincount(cluster)))
    if ((score == 0) | (score == 1)).all():
        k, rows = float(score.sum()), float(n)
        if clusters < n:
            k, _, rows = statistics.effective_counts(score, cluster)
        return Estimate(mean, n, statistics.share_bounds(k, rows, alpha=ALPHA))
    if clusters < 2:
        return Estimate(mean, n)
    found = statistics.mean_difference(score, cluster, alpha=ALPHA, threshold=0.0)
    return Estimate(mean, n, found.interval)


def levels(scores: Scores, who: str) -> dict[str, Estimate]:
    """Levels on new rows and on history, where there are such rows.

    Args:
        scores: Stored with a version.
        who: ``champion`` or ``candidate``.
    """
    new, score = scores.is_new, getattr(scores, who)
    masks = {"new": new, "history": ~new}
    return {
        part: level(score[mask], scores.cluster[mask]) for part, mask in masks.items() if mask.any()
    }


def share(value: float, n: int) -> Estimate:
    """A share of which only mean and rows are known, the rows taken as independent."""
    interval = statistics.share_bounds(round(value * n), n, alpha=ALPHA)
    return Estimate(value, n, interval)


@dataclass(frozen=True)
class Shared:
    """Two models on the M rows that both were scored on.

    Attributes:
        before: Scores (M,) of what the other is held against.
        after: Of the other.
        cluster: Rows with one number (M,) are dependent.
        is_new: Rows (M,) that were new to both.
    """

    before: Floats
    after: Floats
    cluster: npt.NDArray[np.int64]
    is_new: Booleans


def own(scores: Scores, *, reverse: bool = False) -> Shared:
    """Champion and candidate of one cycle; the other way round with ``reverse``."""
    before, after = scores.champion, scores.candidate
    if reverse:
        before, after = after, before
    return Shared(before, after, scores.cluster, scores.is_new)


def join(before: Scores, after: Scores) -> Shared | None:
    """The candidates of two cycles on the rows that both held out, by row id.

    Rows are new where they were new to both. None where no row is shared, an id is twice in one
    of them, or a shared row has another target: then the ids are not those of the same rows.
    """
    if before.row_id.equals(after.row_id):
        there = here = np.arange(len(after.candidate))
    else:
        if any(len(pc.unique(one.row_id)) < len(one.row_id) for one in (before, after)):
            return None
        found = pc.index_in(after.row_id, value_set=before.row_id)
        here = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
        there = found.drop_null().to_numpy(zero_copy_only=False)
    if not len(here):
        return None
    first, second = before.label[there], after.label[here]
    if first.shape != second.shape or not np.array_equal(first, second):
        return None
    return Shared(
        before=before.candidate[there],
        after=after.candidate[here],
        cluster=after.cluster[here],
        is_new=before.is_new[there] & after.is_new[here],
    )


def differences(shared: Sequence[Shared]) -> list[dict[str, Estimate]]:
    """Paired differences, after minus before, on new rows and on history, where there are any.

    Counts of independent 0/1 scores get their bounds all at once: one search for many runs.
    """
    masks = [{"new": one.is_new, "history": ~one.is_new} for one in shared]
    kept = [
        (place, part, mask)
        for place, parts in enumerate(masks)
        for part, mask in parts.items()
        if mask.any()
    ]
    pairs = [_picked(shared[place], mask) for place, _, mask in kept]
    counts = [discordant(one.before, one.after, one.cluster) for one in pairs]
    tables = [
        (*one, len(pair.after)) for one, pair in zip(counts, pairs, strict=True) if one is not None
    ]
    b, c, n = np.array(tables, dtype=np.float64).reshape(-1, 3).T
    bounds = zip(*statistics.tango_intervals(b, c, n, alpha=ALPHA), strict=True)
    found: list[dict[str, Estimate]] = [{} for _ in shared]
    for (place, part, _), pair, one in zip(kept, pairs, counts, strict=True):
        if one is None:
            found[place][part] = _difference(pair)
            continue
        low, high = next(bounds)
        rows = len(pair.after)
        found[place][part] = Estimate((one[0] - one[1]) / rows, rows, (float(low), float(high)))
    return found


def _picked(shared: Shared, mask: Booleans) -> Shared:
    return Shared(
        shared.before[mask], shared.after[mask], shared.cluster[mask], shared.is_new[mask]
    )


def _difference(shared: Shared) -> Estimate:
    """Of scores that are not counted, as the gate compares them."""
    every = np.ones(len(shared.after), dtype=np.bool_)
    try:
        found = compare(_report(shared), every, ALPHA, threshold=0.0)
    except EvaluationError:  # all rows are one group: nothing is known of its spread
        change = shared.after - shared.before
        return Estimate(float(change.mean()), len(change))
    return Estimate(found.estimate, found.rows, found.interval)


def _report(shared: Shared) -> EvaluationReport:
    """What the gate's comparison takes; of it, it reads the scores and the clusters."""
    n, cluster = len(shared.after), cast(Any, shared.cluster)
    blank = np.empty(n, dtype=np.str_)
    models = (
        Predictions(prediction=np.zeros(n), score=score, loss=np.zeros(n))
        for score in (shared.before, shared.after)
    )
    champion, candidate = models
    return EvaluationReport(
        row_id=blank,
        cluster=cluster,
        holdout=blank,
        label=np.zeros(n),
        seen_by_champion=np.zeros(n, dtype=np.bool_),
        champion=champion,
        candidate=candidate,
    )
