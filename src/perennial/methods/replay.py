"""Experience replay: every batch mixes new rows with remembered ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from perennial.errors import ConfigError
from perennial.methods.base import Method
from perennial.methods.division import Division

if TYPE_CHECKING:
    from perennial.types import MethodContext, Part, StepContext


class Replay(Method):
    r"""Experience replay (Rolnick et al., Experience Replay for Continual Learning, 2019).

    A batch of fixed size holds a fixed share of new rows; the rest is replayed from history. The
    loss is ``new_weight · L_new + (1 − new_weight) · L_replayed``, each L the mean over its rows as
    the module's own ``training_step`` forms it; without a weight it is the mean over the batch.
    Cost: nothing but that only the new share of a batch is new; with a weight, new and replayed
    rows go through the model in two smaller forwards instead of one. Choose it wherever rows of
    the past may be kept.

    Args:
        new_fraction: Share of new rows in a batch, in (0, 1).
        new_weight: Weight of the new rows' loss, in (0, 1); None is their share of the batch.
        forward: ``auto``, ``joint`` or ``separate``; see `perennial.methods.division.Division`.
        running_statistics: Of batch norms, ``auto``, ``mixed``, ``frozen`` or ``new``; likewise.

    Raises:
        ConfigError: A value out of range, or two that contradict each other.
    """

    name: ClassVar[str] = "replay"
    needs_history: ClassVar[bool] = True

    def __init__(
        self,
        *,
        new_fraction: float = 0.2,
        new_weight: float | None = None,
        forward: str = "auto",
        running_statistics: str = "auto",
    ) -> None:
        if not 0 < new_fraction < 1:
            raise ConfigError(
                f"new_fraction is {new_fraction}; it must lie between 0 and 1.",
                where="method.replay.new_fraction",
                mend="0.2 is 20% new and 80% replayed rows; method=none replays nothing",
            )
        self.new_fraction = float(new_fraction)
        self.division = Division(
            method=self.name,
            new_weight=new_weight,
            forward=forward,
            running_statistics=running_statistics,
        )

    def new_share(self, new_rows: int, history_rows: int) -> float:
        """The fixed share."""
        return self.new_fraction

    def prepare(self, context: MethodContext) -> None:
        """Check that the model heeds every setting.

        Raises:
            MethodError: It would ignore one.
        """
        self.division.check(context)

    def divide(self, step: StepContext) -> tuple[Part, ...]:
        """New and replayed rows, where they go through the model separately."""
        return self.division.parts(step)
