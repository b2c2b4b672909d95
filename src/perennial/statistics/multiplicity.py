"""Several tests as one family."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def holm(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Holm's step-down adjusted p-values (Scandinavian Journal of Statistics 6, 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    scaled = (len(p) - np.arange(len(p))) * p[order]
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def benjamini_hochberg(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """P-values adjusted for the false discovery rate by Benjamini and Hochberg's step-up.

    See Journal of the Royal Statistical Society B 57, 1995.
    The smallest of them is Simes' p-value of the hypothesis that nothing is there at all.

    Args:
        p_values: (..., M); each row of M is a family.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, axis=-1, kind="stable")
    ranks = np.arange(1, p.shape[-1] + 1)
    scaled = np.take_along_axis(p, order, axis=-1) * p.shape[-1] / ranks
    stepped = np.minimum.accumulate(scaled[..., ::-1], axis=-1)[..., ::-1]
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(stepped, 1.0), axis=-1)
    return adjusted


def holm_levels(p_values: npt.ArrayLike, *, alpha: float) -> npt.NDArray[np.float64]:
    """Level at which Holm's procedure tests each hypothesis.

    The r-th smallest of m p-values is tested at alpha / (m - r + 1) as long as all before it were
    rejected; what is left when one is not is tested at the level of that one. A hypothesis is
    rejected exactly where its own p-value is at most its level, so that a confidence bound at this
    level excludes it exactly where the procedure rejects it.

    Args:
        p_values: (M,).
        alpha: Of the family.

    Returns:
        Levels (M,), in (0, alpha].
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = alpha / (len(p) - np.arange(len(p)))
    kept = np.flatnonzero(p[order] > steps)
    levels = np.empty_like(p)
    levels[order] = np.minimum(steps, steps[kept[0]]) if len(kept) else steps
    return levels
