"""N rows in contiguous columns: what every material is made of.

Shapes: N rows; a feature column is (N, ...).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.types import Integers, Strings


@dataclass(frozen=True)
class Rows:
    """N rows with their identity.

    Attributes:
        features: Column name to values (N, ...), dtype as they came; memory-mapped where the
            source is.
        label: Index into the lineage's label names (N,), int64.
        id: Row id (N,): an id column's value, else the content hash.
        content: Content hash (N,): features and label in canonical dtypes, 32 hex digits.
        cluster: Group column's value, else the content hash (N,); one cluster lies on one side
            of the split and counts as one in the gate.
    """

    features: Mapping[str, npt.NDArray[Any]]
    label: Integers
    id: Strings
    content: Strings
    cluster: Strings

    def __len__(self) -> int:
        return len(self.label)

    def take(self, index: npt.NDArray[Any] | slice) -> Rows:
        """The rows at an index vector, a boolean mask (N,) or a slice."""
        return Rows(
            features={name: column[index] for name, column in self.features.items()},
            label=self.label[index],
            id=self.id[index],
            content=self.content[index],
            cluster=self.cluster[index],
        )


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Rows of several parts, in order; at least one part, all of one schema."""
    if len(parts) == 1:
        return parts[0]
    names = list(parts[0].features)
    merged = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Rows)
        if field.name != "features"
    }
    features = {name: np.concatenate([part.features[name] for part in parts]) for name in names}
    return Rows(features=features, **merged)
