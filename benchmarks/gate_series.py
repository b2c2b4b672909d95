"""Series of made-up candidates whose true difference is known, through the gate's own decision.

Shapes: S series, N rows, C clusters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from perennial.promotion.gate import decide
from perennial.promotion.policy import Check, Policy
from perennial.types import EvaluationReport, Predictions

Array = npt.NDArray[Any]
MARGIN, TOTAL, ALPHA = 0.02, 0.03, 0.05
# rows beside those drawn: new ones that are plainly better, or history that stays as it is
BESIDE = {"new": 20, "history/cycle-0": 200}


@dataclass(frozen=True)
class Rows:
    """Rows that all series of one kind share.

    Attributes:
        cluster: Number of each drawn row's cluster (N,).
        policy: What is asked of the candidate.
        beside: Holdout of the rows beside them, ``new`` or ``history/cycle-0``.
        fixed: Columns of the report that stay.
    """

    cluster: Array
    policy: Policy
    beside: str
    fixed: Mapping[str, Array]

    def checks(
        self, champion: Array, candidate: Array, best: Array | None = None
    ) -> Mapping[str, Check]:
        """The gate's checks by name.

        Args:
            champion: Scores on the drawn rows (N,).
            candidate: Likewise.
            best: Of the best champion ever; None where there was but one.
        """
        new = self.beside == "new"
        if best is not None:
            best = np.concatenate([best, np.full(BESIDE[self.beside], np.nan)])
        report = EvaluationReport(
            champion=self._predictions(champion, 0.0 if new else 1.0),
            candidate=self._predictions(candidate, 1.0),
            label_names=tuple("0123456789"),
            best=best,
            **self.fixed,
        )
        return {check.name: check for check in decide(report, self.policy).checks}

    def _predictions(self, score: Array, beside: float) -> Predictions:
        score = np.concatenate([score, np.full(BESIDE[self.beside], beside)])
        predicted = (self.fixed["label"] + (score < 1)) % 10
        return Predictions(prediction=predicted, score=score, loss=np.zeros(len(score)))


def rows(
    sizes: Array,
    *,
    drawn: str = "history",
    holdouts: int = 1,
    slices: bool = False,
    total: float | None = None,
) -> Rows:
    """Rows in clusters of these sizes (C,), ``history`` dealt to holdouts in order, or ``new``."""
    cluster = np.arange(len(sizes)).repeat(sizes)
    number = np.arange(len(cluster)) * holdouts // len(cluster)
    names = [f"history/cycle-{one}" if drawn == "history" else "new" for one in number]
    beside = "new" if drawn == "history" else "history/cycle-0"
    count = len(cluster) + BESIDE[beside]
    fixed = {
        "row_id": np.array([f"r{one}" for one in range(count)]),
        "cluster": np.array([*cluster, *range(len(cluster), count)]).astype(str),
        "holdout": np.array([*names, *([beside] * BESIDE[beside])]),
        "label": np.arange(count) % 10,
        "seen_by_champion": np.zeros(count, dtype=bool),
    }
    retention = {"margin": MARGIN, "total": total}
    # what has no say in the figure is not asked: it takes time
    apart: dict[str, Any] = {
        "slices": {"classes": False, "columns": []},
        "sanity": {"constant": False, "leak": None},
    }
    policy = Policy(alpha=ALPHA, retention=retention, **({} if slices else apart))
    return Rows(cluster, policy, beside, fixed)


def sizes(shape: str, clusters: int, generator: np.random.Generator) -> Array:
    """Cluster sizes (C,): ``single``, ``even``, ``uneven`` (geometric) or ``few big``."""
    if shape in ("single", "even"):
        return np.full(clusters, 1 if shape == "single" else 14)
    if shape == "few big":
        return np.where(np.arange(clusters) < clusters // 20, 60, 3)
    return generator.geometric(0.15, clusters)


def binary(
    generator: np.random.Generator,
    cluster: Array,
    *,
    discordance: float,
    difference: float,
    together: float = 0.0,
) -> tuple[Array, Array]:
    """0/1 scores (N,) of both models; a share of the rows takes its cluster's own outcome."""
    edges = np.cumsum([(discordance + difference) / 2, (discordance - difference) / 2])
    sign = np.array([1, -1, 0])
    whole = sign[np.searchsorted(edges, generator.random(int(cluster.max()) + 1))][cluster]
    alone = sign[np.searchsorted(edges, generator.random(len(cluster)))]
    drawn = np.where(generator.random(len(cluster)) < together, whole, alone)
    return (drawn <= 0).astype(float), (drawn >= 0).astype(float)


def continuous(
    generator: np.random.Generator,
    cluster: Array,
    *,
    shape: str,
    difference: float,
    correlation: float = 0.0,
    scale: float = 1.0,
) -> tuple[Array, Array]:
    """Scores (N,) whose differences have this mean, and spread as ``scale`` of their shape."""

    def drawn(count: int) -> Array:
        values = generator.normal(size=count)
        if shape == "normal":
            return values
        skewed = np.exp(values) - math.exp(0.5)
        return skewed if shape == "lognormal" else -skewed

    own = math.sqrt(1 - correlation) * drawn(len(cluster))
    common = math.sqrt(correlation) * drawn(int(cluster.max()) + 1)[cluster]
    champion = generator.normal(size=len(cluster))
    return champion, champion + scale * (own + common) + difference


def naive(champion: Array, candidate: Array) -> bool:
    """The rule that people write: what was measured against the threshold."""
    return bool(np.mean(candidate) - np.mean(champion) > -MARGIN)


def plain_t(champion: Array, candidate: Array) -> bool:
    """A t test of the rows, as if independent and normal."""
    difference = candidate - champion
    error = float(np.std(difference, ddof=1)) / math.sqrt(len(difference))
    t = (float(difference.mean()) + MARGIN) / error if error else math.inf
    return bool(t > stats.t.isf(ALPHA, len(difference) - 1))


def bootstrap(generator: np.random.Generator, b: Array, c: Array, n: int) -> Array:
    """Whether the percentile bootstrap's bound clears the margin (S,), of counts (S,)."""
    shares = np.stack([b, c, n - b - c], axis=1) / n
    drawn = generator.multinomial(n, shares, size=(500, len(b)))
    difference = (drawn[..., 0] - drawn[..., 1]) / n
    cleared: Array = np.quantile(difference, ALPHA, axis=0) > -MARGIN
    return cleared


def successor(
    generator: np.random.Generator,
    right: Array,
    *,
    accuracy: float,
    discordance: float,
    difference: float,
) -> Array:
    """0/1 scores (N,) of a model that differs by chance, row by row, from one with these (N,).

    Args:
        generator: Of the draws.
        right: Scores of the model before.
        accuracy: Of that model, in truth.
        discordance: Share of rows on which the two differ.
        difference: In accuracy, in truth.
    """
    gained, lost = (discordance + difference) / 2, (discordance - difference) / 2
    turned = np.where(right > 0, lost / accuracy, gained / (1 - accuracy))
    found: Array = np.where(generator.random(len(right)) < turned, 1 - right, right)
    return found


@dataclass
class Lineage:
    """Champions on one frozen holdout.

    Attributes:
        champion: Scores of the champion (N,).
        best: Scores of the best champion ever on these rows (N,).
        accuracy: Of the champion, in truth.
        cycles: How often a candidate became champion.
    """

    champion: Array
    best: Array
    accuracy: float
    cycles: int = 0

    def promote(self, candidate: Array, difference: float) -> None:
        """It serves from now on, and differs so much from the champion, in truth."""
        self.champion, self.accuracy = candidate, self.accuracy + difference
        self.cycles += 1
        if candidate.mean() > self.best.mean():
            self.best = candidate
