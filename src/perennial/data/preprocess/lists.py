"""Lists of unequal length to a rectangle and its mask.

Shapes: N rows, L positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Names
from typing import Any

import numpy as np

from perennial.data.columns import Column
from perennial.data.preprocess.base import Features
from perennial.errors import require_setting


class Lists:
    """A column of lists of numbers, token ids say, to (N, L) and ``attention_mask`` (N, L) uint8.

    Rows, memory and holdouts keep the lists as they came. What is filled up is masked, so that
    batches are made of rows of like length and cut: see `perennial.data.lengths`.

    Args:
        column: Lists of numbers, which may differ in length and be empty.
        max_length: L; of a longer list the first L count.
        fill: What stands behind a list's end.

    Raises:
        ConfigError: ``max_length`` is below 1.
    """

    def __init__(self, *, column: str = "tokens", max_length: int = 128, fill: int = 0) -> None:
        require_setting(max_length >= 1, "data.preprocess.max_length", max_length, "at least 1")
        self.column = column
        self.max_length = max_length
        self.fill = fill

    @property
    def columns(self) -> tuple[str, ...]:
        """The one column."""
        return (self.column,)

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments."""
        return {"column": self.column, "max_length": self.max_length, "fill": self.fill}

    def kind(self, column: str, nature: str) -> str:
        """``list`` for its column, ``fixed`` for others."""
        return "list" if column == self.column else "fixed"

    def fit(self, features: Features) -> None:
        """Nothing is fitted."""

    def knowing(self, label_names: Names[str]) -> Lists:
        """Itself: lists know no classes."""
        return self

    def apply(self, features: Features) -> dict[str, Column]:
        """The column filled up behind, its mask, then columns of fixed shape."""
        lists = [one[: self.max_length] for one in features[self.column].tolist()]
        sizes = np.array([len(one) for one in lists], dtype=np.int64)
        mask = np.arange(self.max_length) < sizes[:, None]
        values = np.concatenate(lists) if lists else np.empty(0)
        found = np.full(mask.shape, self.fill, dtype=values.dtype)
        found[mask] = values
        others = {name: column for name, column in features.items() if name != self.column}
        return {self.column: found, "attention_mask": mask.astype(np.uint8)} | others

    def notes(self, features: Features, *, name: str) -> list[str]:
        """How many lists are cut."""
        cut = sum(len(one) > self.max_length for one in features[self.column].tolist())
        if not cut:
            return []
        return [
            f"{name}: {cut} of {len(features[self.column])} lists are cut at {self.max_length} "
            "(data.preprocess.max_length)"
        ]

    def fills(self) -> dict[str, Any]:
        """``padding``: what fills up."""
        return {"padding": self.fill}

    def state(self) -> dict[str, Any]:
        """None."""
        return {}

    def files(self) -> dict[str, bytes]:
        """None."""
        return {}

    def load(self, state: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Nothing was fitted."""
