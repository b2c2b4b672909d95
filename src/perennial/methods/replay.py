"""Experience replay: every batch mixes new rows with remembered ones."""

from __future__ import annotations

from typing import ClassVar

from perennial.errors import ConfigError
from perennial.methods.base import Method


class Replay(Method):
    """Experience replay (Rolnick et al., Experience Replay for Continual Learning, 2019).

    A batch of fixed size holds a fixed share of new rows; the rest is replayed from history. The
    loss is the mean over the batch, so the share is also the weight. Cost: nothing but that only
    the new share of a batch is new. Choose it wherever rows of the past may be kept.

    Args:
        new_fraction: Share of new rows in a batch, in (0, 1).

    Raises:
        ConfigError: The share is out of range.
    """

    name: ClassVar[str] = "replay"
    needs_history: ClassVar[bool] = True

    def __init__(self, *, new_fraction: float = 0.2) -> None:
        if not 0 < new_fraction < 1:
            raise ConfigError(
                f"new_fraction is {new_fraction}; it must lie between 0 and 1.",
                where="method.replay.new_fraction",
                mend="0.2 is 20% new and 80% replayed rows; method=none replays nothing",
            )
        self.new_fraction = float(new_fraction)

    def new_share(self, new_rows: int, history_rows: int) -> float:
        """The fixed share."""
        return self.new_fraction
