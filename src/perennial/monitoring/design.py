"""Raw columns as vectors in which distances mean something, for tests of all columns at once.

Shapes: N rows, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.data.columns import TEXT
from perennial.monitoring.reference import Reference
from perennial.types import Floats

# names of a column that have a dimension of their own, and dimensions in all
NAMES = 16
MOST = 256
# in standard deviations: one wild value must not be all there is to see
CLIP = 5.0


class Design:
    """How columns become vectors, as a reference fixes it.

    A number is standardised by the reference and cut at five standard deviations; where one is
    missing it is the mean, and a dimension of its own says so, if the reference has a gap. A
    category is one of its most frequent names, or none of these. Columns of texts and of several
    numbers a row stay out: what they mean is in the model's features.

    Args:
        reference: Fixes scales and names.
    """

    def __init__(self, reference: Reference) -> None:
        self._numbers: dict[str, tuple[float, float, bool]] = {}
        self._names: dict[str, npt.NDArray[Any]] = {}
        width = 0
        for column in reference.columns:
            kind = reference.kind(column)
            if kind == "number" and width < MOST:
                values = reference.numbers(column)
                gaps = np.isnan(values)
                if gaps.all():
                    continue
                there = values[~gaps]
                scale = float(there.std()) or 1.0
                self._numbers[column] = (float(there.mean()), scale, bool(gaps.any()))
                width += 1 + bool(gaps.any())
            elif kind == "category" and width < MOST:
                names, counts = np.unique(reference.rows.features[column], return_counts=True)
                frequent = names[np.argsort(-counts, kind="stable")][:NAMES]
                self._names[column] = frequent
                width += len(frequent)
        self.width = width

    def vectors(self, features: Mapping[str, npt.NDArray[Any]]) -> Floats:
        """Raw columns as vectors (N, D), float32."""
        parts = []
        for column, (mean, scale, has_gaps) in self._numbers.items():
            values = (features[column].reshape(-1).astype(np.float64) - mean) / scale
            gaps = np.isnan(values)
            parts.append(np.where(gaps, 0.0, np.clip(values, -CLIP, CLIP)))
            if has_gaps:
                parts.append(gaps.astype(np.float64))
        for column, names in self._names.items():
            values = features[column].astype(TEXT, copy=False)
            parts += [(values == name).astype(np.float64) for name in names.tolist()]
        found: Floats = np.stack(parts, axis=1).astype(np.float32)
        return found
