"""How well probabilities keep their word."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from perennial.statistics.means import Difference

Floats = npt.NDArray[np.floating[Any]]

# of resampled weights at a time
_CHUNK = 8 * 2**20


def expected_calibration_error(
    probabilities: Floats,
    label: npt.NDArray[np.integer[Any]],
    *,
    bins: int = 15,
    weight: Floats | None = None,
) -> float:
    """Distance of confidence from accuracy, of the most probable class, over equal-width bins.

    Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3.

    Args:
        probabilities: Of each class (N, C).
        label: True class (N,).
        bins: Of confidence, over [0, 1].
        weight: Of each row (N,); None counts each alike.

    Returns:
        A fraction, in [0, 1].
    """
    gap, index = _gaps(probabilities, label, bins)
    weight = np.ones(len(gap)) if weight is None else weight
    sums = np.bincount(index, weights=weight * gap, minlength=bins)
    return float(np.abs(sums).sum() / weight.sum())


def calibration_change(
    champion_probabilities: Floats,
    candidate_probabilities: Floats,
    label: npt.NDArray[np.integer[Any]],
    cluster: npt.NDArray[Any],
    *,
    alpha: float,
    threshold: float,
    bins: int = 15,
    resamples: int = 1000,
    seed: int = 0,
) -> Difference:
    """Change of the expected calibration error, candidate minus champion.

    Its standard error is that over bootstrap samples of clusters, the same ones for both models,
    and its test normal. The samples' own mean is not used: resampling adds to both errors alike.

    Args:
        champion_probabilities: Of each class (N, C).
        candidate_probabilities: Likewise.
        label: True class (N,).
        cluster: Rows with one cluster (N,) are drawn together.
        alpha: Level of each bound.
        threshold: Of the p-values.
        bins: Of confidence.
        resamples: Bootstrap samples.
        seed: Of the draws.
    """
    _, index = np.unique(cluster, return_inverse=True)
    clusters = int(index.max()) + 1
    size = np.bincount(index).astype(np.float64)
    sums = [
        _sums_by_cluster(*_gaps(probabilities, label, bins), index, clusters, bins)
        for probabilities in (champion_probabilities, candidate_probabilities)
    ]
    table = np.concatenate([*sums, size[:, None]], axis=1)
    before, after = _errors(table.sum(axis=0)[None], bins)
    generator = np.random.default_rng(seed)
    at_once = max(_CHUNK // (8 * clusters), 1)
    changes = []
    for start in range(0, resamples, at_once):
        shape = (min(at_once, resamples - start), clusters)
        drawn = generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=shape[0])
        champion, candidate = _errors(drawn.astype(np.float64) @ table, bins)
        changes.append(candidate - champion)
    error = float(np.std(np.concatenate(changes), ddof=1))
    return _normal(float(after[0] - before[0]), error, alpha=alpha, threshold=threshold)


def _gaps(
    probabilities: Floats, label: npt.NDArray[np.integer[Any]], bins: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Confidence minus whether it was right (N,), and the bin of the confidence (N,)."""
    confidence = np.asarray(probabilities.max(axis=1), dtype=np.float64)
    right = probabilities.argmax(axis=1) == label
    index = np.clip((confidence * bins).astype(np.int64), 0, bins - 1)
    return confidence - right, index


def _sums_by_cluster(
    gap: Floats,
    bin_index: npt.NDArray[np.int64],
    index: npt.NDArray[np.int64],
    clusters: int,
    bins: int,
) -> npt.NDArray[np.float64]:
    sums = np.zeros((clusters, bins))
    np.add.at(sums, (index, bin_index), gap)
    return sums


def _errors(sums: Floats, bins: int) -> tuple[Floats, Floats]:
    """Both models' errors (R,) from sums of gaps by bin and rows (R, 2·bins + 1)."""
    rows = sums[:, -1]
    champion = np.abs(sums[:, :bins]).sum(axis=1) / rows
    candidate = np.abs(sums[:, bins:-1]).sum(axis=1) / rows
    return champion, candidate


def _normal(estimate: float, error: float, *, alpha: float, threshold: float) -> Difference:
    if error == 0:
        above, below = float(estimate <= threshold), float(estimate >= threshold)
    else:
        z = (estimate - threshold) / error
        above, below = float(special.ndtr(-z)), float(special.ndtr(z))
    half = -float(special.ndtri(alpha)) * error
    return Difference(
        estimate=estimate,
        error=error,
        interval=(estimate - half, estimate + half),
        p_above=above,
        p_below=below,
    )
