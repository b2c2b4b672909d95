"""The paired comparison of two models' scores under the checks of the gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial import statistics
from perennial.errors import EvaluationError
from perennial.types import Booleans, EvaluationReport, Floats, Strings

# with fewer, a mean of strongly skewed scores passes at the margin too often: minus a lognormal
# of sigma 1 in 6.7% of all series at 200 rows, in 8.6% at 50, where 5% is nominal
LEAST_FOR_MEANS = 200
# and of so many groups, whose means are less skewed than single rows
LEAST_GROUPS = 50


@dataclass(frozen=True)
class Compared:
    """Candidate minus champion over some rows.

    Attributes:
        estimate: Mean difference of the scores.
        interval: One-sided bounds, each at alpha.
        p_above: Of the test that the difference lies above the threshold.
        p_below: Of the test that it lies below.
        variance: Of one row's difference, so many rows counted as there are: the discordance for
            independent 0/1 scores, more where rows depend or count differently.
        discordance: Share of rows on which the two differ, 0/1 scores only.
        independent: Rows, or as many independent ones as dependent rows are worth.
        rows: Rows that were compared.
        error: Standard error of the estimate; None where counts are tested.
        skewness: Of the estimate's distribution; 0 where counts are tested.
    """

    estimate: float
    interval: tuple[float, float]
    p_above: float
    p_below: float
    variance: float
    discordance: float
    independent: int
    rows: int
    error: float | None = None
    skewness: float = 0.0

    @property
    def decides(self) -> bool:
        """Whether there are rows enough to decide on: a mean needs 200, in 50 groups."""
        enough = self.rows >= LEAST_FOR_MEANS and self.independent >= LEAST_GROUPS
        return self.error is None or enough

    def power(self, *, margin: float, alternative: float, alpha: float) -> float:
        """That the test passes at a true difference.

        Args:
            margin: The test is that the difference lies above -margin; negative for a minimum
                effect, 0 for McNemar's.
            alternative: True difference.
            alpha: Level.
        """
        if self.error is not None:
            return statistics.mean_power(
                self.error,
                margin=margin,
                alternative=alternative,
                alpha=alpha,
                skewness=self.skewness,
            )
        rows, discordance = self.independent, self.discordance
        if margin == 0:
            return statistics.mcnemar_power(
                rows, discordance=discordance, alternative=alternative, alpha=alpha
            )
        return statistics.tango_power(
            rows, discordance=discordance, margin=margin, alternative=alternative, alpha=alpha
        )


def compare(
    report: EvaluationReport,
    mask: Booleans,
    alpha: float,
    *,
    threshold: float,
    weight: Floats | None = None,
) -> Compared:
    """Compare two models on some rows.

    0/1 scores by Tango's test, by McNemar's where the threshold is 0, on counts over the design
    effect where rows depend or count differently; other scores by their mean over clusters.

    Args:
        report: Both models on the same rows.
        mask: The rows (N,), at least one.
        alpha: Level of each one-sided test.
        threshold: Difference that both tests are about.
        weight: Of each of the rows that the mask keeps; None where all count alike.

    Raises:
        EvaluationError: The rows are one group.
    """
    champion, candidate = report.champion.score[mask], report.candidate.score[mask]
    difference, cluster, n = candidate - champion, report.cluster[mask], int(mask.sum())
    counts = discordant(champion, candidate, cluster) if weight is None else None
    if counts is not None:
        b, c = counts
        return _counted(b, c, n, rows=n, estimate=(b - c) / n, alpha=alpha, threshold=threshold)
    clusters = len(np.unique(cluster))
    if clusters < 2:
        raise EvaluationError(
            "All rows of a holdout are in one group: nothing can be tested on them.",
            where="data.group_column",
            mend="hold out rows of several groups",
        )
    # models that nowhere differ are counted: a mean without spread would know no uncertainty
    if (_zero_one(champion) and _zero_one(candidate)) or not difference.any():
        return _dependent(difference, cluster, weight, alpha, threshold)
    found = statistics.mean_difference(
        difference, cluster, weight=weight, alpha=alpha, threshold=threshold
    )
    return Compared(
        estimate=found.estimate,
        interval=found.interval,
        p_above=found.p_above,
        p_below=found.p_below,
        variance=n * found.error**2,
        discordance=float((difference != 0).mean()),
        independent=clusters,
        rows=n,
        error=found.error,
        skewness=found.skewness,
    )


def discordant(before: Floats, after: Floats, cluster: npt.NDArray[Any]) -> tuple[int, int] | None:
    """Rows that only ``after`` gets right and that only ``before`` does, of independent 0/1 scores.

    Args:
        before: Scores (N,).
        after: Likewise, of the same rows.
        cluster: Rows with one value (N,) are dependent.

    Returns:
        Both counts; None where scores are others than 0 and 1 or any two rows are dependent.
    """
    if not (_zero_one(before) and _zero_one(after) and len(np.unique(cluster)) == len(cluster)):
        return None
    return int((after > before).sum()), int((after < before).sum())


def _zero_one(score: Floats) -> bool:
    return bool(((score == 0) | (score == 1)).all())


def _dependent(
    difference: Floats, cluster: Strings, weight: Floats | None, alpha: float, threshold: float
) -> Compared:
    b, c, n = statistics.effective_counts(np.sign(difference), cluster, weight=weight)
    return _counted(
        b,
        c,
        n,
        rows=len(difference),
        estimate=float(np.average(difference, weights=weight)),
        alpha=alpha,
        threshold=threshold,
    )


def _counted(
    b: float, c: float, n: float, *, rows: int, estimate: float, alpha: float, threshold: float
) -> Compared:
    """Tests of b gained and c lost among n rows, which may be what ``rows`` rows are worth."""
    if threshold == 0:
        above, below = statistics.mcnemar(b, c), statistics.mcnemar(c, b)
    else:
        above = statistics.tango_test(b, c, n, delta=threshold)
        below = statistics.tango_test(c, b, n, delta=-threshold)
    return Compared(
        estimate=estimate,
        interval=statistics.tango_interval(b, c, n, alpha=alpha),
        p_above=above,
        p_below=below,
        variance=(b + c) / n * rows / n,
        discordance=(b + c) / n,
        independent=max(round(n), 1),
        rows=rows,
    )
