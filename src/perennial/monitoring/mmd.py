"""Maximum mean discrepancy between two sets of vectors, and its permutations as one product.

Gretton, Borgwardt, Rasch, Schölkopf & Smola, *A Kernel Two-Sample Test* (JMLR 13, 2012).

Shapes: N vectors of the first set, M of the second, T = N + M, D dimensions, P permutations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import special
from torch import Tensor

from perennial.types import Booleans

# vectors whose distances give the bandwidth
MEDIAN_OF = 500
# as many permutations beyond a value say by themselves how likely it is
RESOLVED = 10


def bandwidth(vectors: Tensor, *, seed: int = 0) -> float:
    """The median distance between vectors (T, D), of at most `MEDIAN_OF` random ones.

    Which of the two sets a vector is of does not enter, so that permutations remain a test. Where
    half of all distances are 0, the mean of the others; 1 where all are.
    """
    generator = np.random.default_rng(seed)
    some = generator.permutation(len(vectors))[:MEDIAN_OF]
    chosen = vectors[torch.from_numpy(some).to(vectors.device)]
    distances = torch.pdist(chosen.double().cpu())
    found = float(distances.median())
    if found > 0:
        return found
    positive = distances[distances > 0]
    return float(positive.mean()) if len(positive) else 1.0


def gaussian_kernel(vectors: Tensor, width: float) -> Tensor:
    """exp(−d² / (2 width²)) of all pairs (T, T), of vectors (T, D), in their dtype."""
    centred = vectors - vectors.mean(dim=0)
    squares = centred.square().sum(dim=1)
    kernel = torch.addmm(squares[:, None] + squares[None, :], centred, centred.T, alpha=-2.0)
    return kernel.clamp_(min=0).mul_(-0.5 / width**2).exp_()


def discrepancies(kernel: Tensor, first: Booleans) -> npt.NDArray[np.float64]:
    """Unbiased MMD² of several divisions of the same vectors in two: one matrix product for all.

    Args:
        kernel: (T, T), symmetric.
        first: Which vectors are of the first set (P, T), each row with at least two and not more
            than T − 2.

    Returns:
        (P,). It may be below 0.
    """
    rows = kernel.sum(dim=1, dtype=torch.float64)
    diagonal = kernel.diagonal().double()
    # what is the same of all divisions is subtracted, so that float32 sums lose little
    mean = float(rows.sum() / len(rows) ** 2)
    masks = torch.from_numpy(np.ascontiguousarray(first)).to(kernel.device)
    weights = masks.to(kernel.dtype)
    within = torch.einsum("pt,pt->p", weights @ (kernel - mean), weights).double()
    count = masks.sum(dim=1).double()
    within = within + mean * count.square()
    own = masks.double() @ torch.stack([rows, diagonal], dim=1)
    across = own[:, 0] - within
    rest = rows.sum() - within - 2 * across
    other = len(rows) - count
    found = (
        (within - own[:, 1]) / (count * (count - 1))
        + (rest - (diagonal.sum() - own[:, 1])) / (other * (other - 1))
        - 2 * across / (count * other)
    )
    result: npt.NDArray[np.float64] = found.cpu().numpy()
    return result


def permutations(first: int, total: int, *, count: int, generator: np.random.Generator) -> Booleans:
    """Random divisions (P, T) of T vectors, ``first`` of them in the first set."""
    keys = generator.random((count, total), dtype=np.float32)
    masks = np.zeros((count, total), dtype=bool)
    np.put_along_axis(masks, np.argpartition(keys, first - 1, axis=1)[:, :first], True, axis=1)
    return masks


def tail_p_value(values: Any, null: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """P-values of a statistic by permutation, below what these resolve by their moments.

    Where at least ten of the P values under permutation are as large, their share (one added to
    both); beyond, the upper tail of Pearson's type III with their mean, variance and skewness
    (Mielke & Berry, *Permutation Methods*, 2007), which has the kind of tail that MMD² has, a sum
    of weighted χ².

    Args:
        values: (...,).
        null: (P,).
    """
    at = np.asarray(values, dtype=np.float64)
    beyond = len(null) - np.searchsorted(np.sort(null), at, side="left")
    shares = (1 + beyond) / (1 + len(null))
    mean, deviation = float(null.mean()), float(null.std())
    if deviation == 0:
        return np.asarray(np.where(at > mean, 1 / (1 + len(null)), 1.0))
    skew = max(float(((null - mean) ** 3).mean()) / deviation**3, 1e-3)
    shape = 4 / skew**2
    scaled = shape + (at - mean) / deviation * np.sqrt(shape)
    modelled = special.gammaincc(shape, np.maximum(scaled, 0.0))
    return np.asarray(np.where(beyond >= RESOLVED, shares, np.minimum(modelled, shares)))


def mmd_test(
    first: Tensor, second: Tensor, *, count: int = 500, seed: int = 0
) -> tuple[float, float]:
    """Unbiased MMD² of two sets, and its p-value by permutation.

    Args:
        first: (N, D), at least two vectors.
        second: (M, D), likewise, of the same dtype and device.
        count: Permutations.
        seed: Of them.

    Returns:
        MMD² and p; see `tail_p_value`.
    """
    both = torch.cat([first, second])
    kernel = gaussian_kernel(both, bandwidth(both, seed=seed))
    generator = np.random.default_rng(seed)
    masks = permutations(len(first), len(both), count=count, generator=generator)
    own = (np.arange(len(both)) < len(first))[None]
    values = discrepancies(kernel, np.concatenate([own, masks]))
    return float(values[0]), float(tail_p_value(values[0], values[1:]))
