"""Sequences of items, by name, to positions in the lineage's catalogue.

Shapes: N rows, L items of a sequence.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from collections.abc import Sequence as Names
from typing import Any

import numpy as np

from perennial.data.columns import SEPARATOR, Column
from perennial.data.preprocess.base import Features
from perennial.errors import require_setting

CATALOGUE = "catalogue.json"
NO_ITEM = 0


class Sequence:
    """The items that a row's user met, oldest first, to their positions (N, L) int64.

    The catalogue is the lineage's own: the names of its targets, so that an item has one number as
    input and as target. With ``data.new_classes=grow`` it gets longer, and old positions stay.
    Position 0 fills up on the left. An item that the catalogue lacks is passed over, as if it had
    not been met; of the others the last L count.

    Args:
        column: Lists of item names, or text with ``|`` between them; empty for a new user.
        max_length: L.

    Raises:
        ConfigError: ``max_length`` is below 1.
    """

    def __init__(self, *, column: str = "items", max_length: int = 50) -> None:
        require_setting(max_length >= 1, "data.preprocess.max_length", max_length, "at least 1")
        self.column = column
        self.max_length = max_length
        self._places: dict[str, int] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """The one column."""
        return (self.column,)

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments."""
        return {"column": self.column, "max_length": self.max_length}

    def kind(self, column: str, nature: str) -> str:
        """``sequence`` for its column, ``fixed`` for others."""
        return "sequence" if column == self.column else "fixed"

    def fit(self, features: Features) -> None:
        """Nothing is fitted: the catalogue is made of the targets."""

    def knowing(self, label_names: Names[str]) -> Sequence:
        """The same with the lineage's items as its catalogue, of which the first is none."""
        own = copy.copy(self)
        own._places = {name: place for place, name in enumerate(label_names)}
        return own

    def apply(self, features: Features) -> dict[str, Column]:
        """The column as positions, filled up on the left, then columns of fixed shape."""
        sequences = features[self.column].tolist()
        found = np.full((len(sequences), self.max_length), NO_ITEM, dtype=np.int64)
        for row, sequence in enumerate(sequences):
            met = [self._places[name] for name in _split(sequence) if name in self._places]
            if kept := met[-self.max_length :]:
                found[row, -len(kept) :] = kept
        return {self.column: found} | {k: v for k, v in features.items() if k != self.column}

    def notes(self, features: Features, *, name: str) -> list[str]:
        """How many rows hold an item that the catalogue lacks."""
        sequences = features[self.column].tolist()
        count = sum(any(one not in self._places for one in _split(row)) for row in sequences)
        if not count:
            return []
        return [f"{name}: {count} rows with an item in {self.column} that is not known yet"]

    def fills(self) -> dict[str, Any]:
        """``items``: positions of the catalogue, 0 included."""
        return {"items": len(self._places)}

    def state(self) -> dict[str, Any]:
        """None beside the catalogue."""
        return {}

    def files(self) -> dict[str, bytes]:
        """The catalogue, once there is one."""
        if not self._places:
            return {}
        return {CATALOGUE: json.dumps(list(self._places), ensure_ascii=False, indent=0).encode()}

    def load(self, state: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Take a version's catalogue."""
        self._places = {name: place for place, name in enumerate(json.loads(files[CATALOGUE]))}


def _split(sequence: str) -> list[str]:
    return sequence.split(SEPARATOR) if sequence else []
