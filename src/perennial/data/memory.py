"""Memory: a bounded, durable sample of history that travels with a version."""

from __future__ import annotations

import numpy as np

from perennial.data.rows import Rows, concatenate
from perennial.data.selection import class_balanced, reservoir
from perennial.errors import ConfigError

SELECTIONS = ("uniform", "class_balanced")


class Memory:
    """Keeps a sample of every row it was ever shown, without repetition by id.

    See `perennial.data.selection` for why it needs no state besides the rows.

    Args:
        capacity: Rows to keep, at least 1.
        seed: Decides which; one seed per lineage, or samples of different cycles do not merge
            into one.
        selection: ``uniform`` over rows, or ``class_balanced``, with as many rows of each class as
            there can be.

    Raises:
        ConfigError: The capacity is below 1, or the selection unknown.
    """

    def __init__(self, capacity: int = 2000, seed: int = 0, selection: str = "uniform") -> None:
        if capacity < 1:
            raise ConfigError(
                f"A memory cannot keep {capacity} rows.",
                where="data.memory.capacity",
                mend="use at least 1; history=memory and replay need many more",
            )
        if selection not in SELECTIONS:
            raise ConfigError(
                f"{selection!r} is not a way to select rows.",
                where="data.memory.selection",
                mend=f"use {' or '.join(SELECTIONS)}",
            )
        self.capacity = capacity
        self.seed = seed
        self.selection = selection

    def update(self, previous: Rows | None, new: Rows) -> Rows:
        """The memory after ``new`` was shown, lowest priority first.

        Args:
            previous: What an earlier `update` returned, or None.
            new: Rows learned since; those remembered already count once.
        """
        rows = new if previous is None or not len(previous) else concatenate([previous, new])
        # return_index gives the first occurrence, so a remembered row keeps its remembered form
        _, first = np.unique(rows.id, return_index=True)
        rows = rows.take(np.sort(first))
        if self.selection == "class_balanced":
            return rows.take(class_balanced(rows.id, rows.label, self.capacity, self.seed))
        return rows.take(reservoir(rows.id, self.capacity, self.seed))
