"""The paired comparison of two models' scores under the checks of the gate."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
        independent: Rows, or groups of dependent ones.
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
    """Tango for independent 0/1 scores, cluster-robust for anything else.

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
    difference = statistics.clustered_difference(
        candidate - champion, cluster, alpha=alpha, threshold=threshold
    )
    found = Compared(
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
    if not zero_one and found.interval[0] < found.interval[1]:
        return found
    return _at_least_by_signs(found, candidate - champion, cluster, alpha, threshold)


def _at_least_by_signs(
    found: Compared, difference: Floats, cluster: Strings, alpha: float, threshold: float
) -> Compared:
    """The wider of two answers: by t over clusters, and by Tango over the clusters' signs.

    The t test knows no uncertainty where clusters agree, and is too sure of few discordant ones
    (measured: false promotion 8.9% at 2% discordance); the score bound is neither.
    """
    _, index = np.unique(cluster, return_inverse=True)
    total = np.bincount(index, weights=difference)
    b, c, n = int((total > 0).sum()), int((total < 0).sum()), len(total)
    low, high = statistics.tango_interval(b, c, n, alpha=alpha)
    above = statistics.tango_test(b, c, n, delta=threshold)
    below = statistics.tango_test(c, b, n, delta=-threshold)
    if threshold == 0:
        above, below = statistics.mcnemar_exact(b, c), statistics.mcnemar_exact(c, b)
    return replace(
        found,
        interval=(min(low, found.interval[0]), max(high, found.interval[1])),
        p_above=max(above, found.p_above),
        p_below=max(below, found.p_below),
    )
