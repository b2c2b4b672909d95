"""The paired comparison of two models' scores under the checks of the gate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perennial import statistics
from perennial.errors import EvaluationError
from perennial.types import Booleans, EvaluationReport, Floats, Strings


@dataclass(frozen=True)
class Compared:
    """Candidate minus champion over some rows.

    Attributes:
        estimate: Mean difference of the scores.
        interval: One-sided bounds, each at alpha.
        p_above: Of the test that the difference lies above the threshold.
        p_below: Of the test that it lies below.
        discordance: Share of rows on which the two differ.
        b: Rows that the candidate gained.
        c: Rows that it lost.
        independent: Rows, or as many independent ones as dependent rows are worth.
        binary: Whether the scores are independent and 0/1.
    """

    estimate: float
    interval: tuple[float, float]
    p_above: float
    p_below: float
    discordance: float
    b: int
    c: int
    independent: int
    binary: bool


def compare(
    report: EvaluationReport, mask: Booleans, alpha: float, *, threshold: float
) -> Compared:
    """Tango's test of 0/1 scores, over the design effect where rows depend; else of their mean.

    Args:
        report: Both models on the same rows.
        mask: The rows (N,), at least one.
        alpha: Level of each one-sided test.
        threshold: Difference that both tests are about.

    Raises:
        EvaluationError: The rows are one group.
    """
    champion, candidate = report.champion.score[mask], report.candidate.score[mask]
    cluster = report.cluster[mask]
    n = int(mask.sum())
    zero_one = bool(np.isin(np.concatenate([champion, candidate]), (0.0, 1.0)).all())
    b, c = int((candidate > champion).sum()), int((candidate < champion).sum())
    clusters = len(np.unique(cluster))
    if zero_one and clusters == n:
        return Compared(
            estimate=(b - c) / n,
            interval=statistics.tango_interval(b, c, n, alpha=alpha),
            p_above=statistics.tango_test(b, c, n, delta=threshold),
            p_below=statistics.tango_test(c, b, n, delta=-threshold),
            discordance=(b + c) / n,
            b=b,
            c=c,
            independent=n,
            binary=True,
        )
    if clusters < 2:
        raise EvaluationError(
            "All rows of a holdout are in one group: nothing can be tested on them.",
            where="data.group_column",
            mend="hold out rows of several groups",
        )
    difference = statistics.mean_difference(
        candidate - champion, cluster, alpha=alpha, threshold=threshold
    )
    if not zero_one and difference.interval[0] < difference.interval[1]:
        return Compared(
            estimate=difference.estimate,
            interval=difference.interval,
            p_above=difference.p_above,
            p_below=difference.p_below,
            discordance=(b + c) / n,
            b=b,
            c=c,
            independent=clusters,
            binary=False,
        )
    return _dependent(b, c, n, candidate - champion, cluster, alpha, threshold)


def _dependent(
    b: int, c: int, n: int, difference: Floats, cluster: Strings, alpha: float, threshold: float
) -> Compared:
    """Tango's test, and McNemar's, on the counts over the design effect."""
    gained, lost, rows = statistics.effective_counts(difference, cluster)
    above = statistics.tango_test(gained, lost, rows, delta=threshold)
    below = statistics.tango_test(lost, gained, rows, delta=-threshold)
    if threshold == 0:
        above, below = statistics.mcnemar(gained, lost), statistics.mcnemar(lost, gained)
    return Compared(
        estimate=float(difference.mean()),
        interval=statistics.tango_interval(gained, lost, rows, alpha=alpha),
        p_above=above,
        p_below=below,
        discordance=(b + c) / n,
        b=b,
        c=c,
        independent=max(round(rows), 1),
        binary=False,
    )
