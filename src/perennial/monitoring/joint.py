"""The tests of all columns at once, and of what a model makes of them.

Shapes: P vectors of the reference, N of the window, D dimensions, B draws.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from perennial.monitoring.classifier import classifier_test
from perennial.monitoring.columns import Measured
from perennial.monitoring.mmd import (
    bandwidth,
    discrepancies,
    gaussian_kernel,
    mmd_test,
    permutations,
    tail_p_value,
)
from perennial.types import Booleans, Floats

TESTS = ("mmd", "classifier")


class Vectors:
    """Vectors of the reference, and the tests of others against them.

    Args:
        name: ``rows`` or ``features``.
        reference: (P, D), finite.
        tests: Of `TESTS`.
        count: Permutations.
        seed: Of them, and of halves.
        device: Where kernels are computed.
    """

    def __init__(
        self,
        name: str,
        reference: Floats,
        *,
        tests: tuple[str, ...],
        count: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.name = name
        self._reference = reference
        self._tests = tests
        self._count = count
        self._seed = seed
        self._device = device

    def measured(self, vectors: Floats) -> list[Measured]:
        """The tests of a window's vectors (N, D)."""
        found = []
        if "mmd" in self._tests:
            old, new = self._tensor(self._reference), self._tensor(vectors)
            squared, p = mmd_test(old, new, count=self._count, seed=self._seed)
            effect = float(np.sqrt(max(squared, 0.0)))
            found.append(Measured(self.name, "mmd", squared, p, p, effect))
        if "classifier" in self._tests:
            both = np.concatenate([self._reference, vectors])
            first = np.arange(len(both)) < len(self._reference)
            area, p = classifier_test(both, first, seed=self._seed)
            found.append(Measured(self.name, "classifier", area, p, p, abs(2 * area - 1)))
        return found

    def drawn(self, masks: Booleans) -> list[Floats]:
        """P-values (B,) of each test, of some of the reference's vectors (B, P) by the others."""
        found = []
        if "mmd" in self._tests:
            found.append(self._discrepant(masks))
        if "classifier" in self._tests:
            p_values = [classifier_test(self._reference, ~one, seed=self._seed)[1] for one in masks]
            found.append(np.array(p_values))
        return found

    def _discrepant(self, masks: Booleans) -> Floats:
        size, total = int(masks[0].sum()), masks.shape[1]
        generator = np.random.default_rng(self._seed)
        null = permutations(size, total, count=self._count, generator=generator)
        values = discrepancies(self._kernel, np.concatenate([masks, null]))
        return tail_p_value(values[: len(masks)], values[len(masks) :])

    @cached_property
    def _kernel(self) -> Tensor:
        vectors = self._tensor(self._reference)
        return gaussian_kernel(vectors, bandwidth(vectors, seed=self._seed))

    def _tensor(self, vectors: npt.NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(vectors, np.float32)).to(self._device)
