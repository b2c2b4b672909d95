"""N rows in contiguous columns: what every material is made of.

Shapes: N rows; a feature column is (N, ...); C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.data.spill import joined, selected
from perennial.data.targets import padded
from perennial.types import Floats, Integers, Strings

UNKNOWN = -1
OWN = 0


@dataclass(frozen=True)
class Rows:
    """N rows with their identity.

    Attributes:
        features: Column name to values (N, ...), dtype as they came; memory-mapped where the
            source is, or where they do not fit into memory.
        label: Target (N, ...), see `perennial.data.targets`: of a class its index in the lineage's
            label names, int64.
        id: Row id (N,): an id column's value, else the content hash.
        content: Content hash (N,): features and label in canonical dtypes, 32 hex digits.
        cluster: Group column's value, else the content hash (N,); one cluster lies on one side
            of the split and counts as one in the gate.
        logits: Stored logits (N, C), columns in the order of the lineage's label names, NaN where
            unknown; None where no row has any.
        logits_version: Number of the version that gave them (N,), int32: `UNKNOWN` where there are
            none, `OWN` for the version that the rows are kept with, which has no number before it
            is committed. None as ``logits`` is.
        slices: Slice column to each row's value (N,), empty text where it is not known.
        time: When each row was (N,), as `perennial.data.columns.to_times` reads it; None where no
            column tells, and of rows that come from a file.
    """

    features: Mapping[str, npt.NDArray[Any]]
    label: npt.NDArray[Any]
    id: Strings
    content: Strings
    cluster: Strings
    logits: Floats | None = None
    logits_version: Integers | None = None
    slices: Mapping[str, Strings] = field(default_factory=dict)
    time: npt.NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.label)

    def take(self, index: npt.NDArray[Any] | slice) -> Rows:
        """The rows at an index vector, a boolean mask (N,) or a slice."""
        return Rows(
            features={name: selected(column, index) for name, column in self.features.items()},
            label=self.label[index],
            id=self.id[index],
            content=self.content[index],
            cluster=self.cluster[index],
            logits=None if self.logits is None else self.logits[index],
            logits_version=None if self.logits_version is None else self.logits_version[index],
            slices={name: column[index] for name, column in self.slices.items()},
            time=None if self.time is None else self.time[index],
        )


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Rows of several parts, in order; at least one part, all of one schema.

    Targets of positions are filled up to the longest of them.

    Where some parts have logits and others none, those of the others are unknown.
    """
    if len(parts) == 1:
        return parts[0]
    names = list(parts[0].features)
    merged = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("id", "content", "cluster")
    }
    parts = same_logits(parts)
    merged["label"] = joined_labels([part.label for part in parts])
    if parts[0].logits is not None:
        for name in ("logits", "logits_version"):
            merged[name] = np.concatenate([getattr(part, name) for part in parts])
    features = {name: joined([part.features[name] for part in parts]) for name in names}
    return Rows(features=features, **merged, slices=sliced(parts), time=_times(parts))


def _times(parts: Sequence[Rows]) -> npt.NDArray[Any] | None:
    """Times of several parts, in order, where all of them have one of one form."""
    found = [part.time for part in parts if part.time is not None]
    if len(found) < len(parts) or len({values.dtype.kind for values in found}) > 1:
        return None
    return np.concatenate(found)


def joined_labels(labels: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Targets (N, ...) of several parts, in order; those of positions as wide as the widest."""
    return np.concatenate(same_width(labels))


def same_width(labels: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """Targets (N, ...) of several parts; those of positions as wide as the widest."""
    if labels[0].ndim != 2:
        return list(labels)
    width = max(values.shape[1] for values in labels)
    return [padded(values, width) for values in labels]


def same_logits(parts: Sequence[Rows]) -> list[Rows]:
    """Parts of which all have logits, unknown ones where some have none, or none has any."""
    like = next((part.logits for part in parts if part.logits is not None), None)
    if like is None:
        return list(parts)
    return [
        part
        if part.logits is not None
        else replace(
            part,
            logits=np.full((len(part), like.shape[1]), np.nan, dtype=like.dtype),
            logits_version=np.full(len(part), UNKNOWN, dtype=np.int32),
        )
        for part in parts
    ]


def sliced(parts: Sequence[Rows]) -> dict[str, Strings]:
    """Slice columns of several parts, in order; empty text where a part lacks a column."""
    names = dict.fromkeys(name for part in parts for name in part.slices)
    return {
        name: np.concatenate(
            [part.slices.get(name, np.full(len(part), "", dtype="<U1")) for part in parts]
        )
        for name in names
    }
