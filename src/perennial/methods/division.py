"""How new and replayed rows of a batch go through the model, and what their losses weigh."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from perennial.errors import ConfigError, MethodError, require_setting
from perennial.methods.batch_norm import batch_norms
from perennial.types import Part

if TYPE_CHECKING:
    from perennial.types import Booleans, MethodContext, StepContext

FORWARDS = ("auto", "joint", "separate")
STATISTICS = ("auto", "mixed", "frozen", "new")


class Division:
    """The settings of a method that mixes history into batches.

    Args:
        method: Its name, for messages.
        new_weight: Weight of the new rows' mean loss, in (0, 1), the replayed rows' being the rest;
            None weighs rows alike, which is the mean over the batch.
        forward: ``joint`` sends a batch through the model at once, ``separate`` new and replayed
            rows one after the other; ``auto`` separates only where another setting needs it.
        running_statistics: Of batch norms. ``mixed`` normalises the rows of a forward by themselves
            and learns from all of them; ``new`` learns from the new rows alone, in separate
            forwards; ``frozen`` normalises by the champion's and leaves them. ``auto`` is ``mixed``
            in a joint forward and ``frozen`` in separate ones: a served model normalises by one
            set of statistics, so that training must not normalise by two
            (``benchmarks/batch_norm.py``).

    Raises:
        ConfigError: A value out of range, or two that contradict each other.
    """

    def __init__(
        self, *, method: str, new_weight: float | None, forward: str, running_statistics: str
    ) -> None:
        if new_weight is not None:
            number = isinstance(new_weight, int | float) and not isinstance(new_weight, bool)
            good = number and math.isfinite(new_weight) and 0 < new_weight < 1
            require_setting(
                good, f"method.{method}.new_weight", new_weight, "above 0 and below 1, or null"
            )
        require_setting(
            forward in FORWARDS,
            f"method.{method}.forward",
            forward,
            f"one of {', '.join(FORWARDS)}",
        )
        words = f"one of {', '.join(STATISTICS)}"
        known = running_statistics in STATISTICS
        require_setting(known, f"method.{method}.running_statistics", running_statistics, words)
        if forward == "joint" and (new_weight is not None or running_statistics == "new"):
            setting = "running_statistics" if new_weight is None else "new_weight"
            raise ConfigError(
                f"One joint forward cannot tell new from replayed rows, as {setting} asks for.",
                where=f"method.{method}.forward, method.{method}.{setting}",
                mend=f"use method.{method}.forward=auto or separate",
            )
        self.method = method
        self.new_weight = None if new_weight is None else float(new_weight)
        self.forward = forward
        self.running_statistics = running_statistics

    def check(self, context: MethodContext) -> None:
        """Refuse settings that the model would ignore, and say what follows from the others.

        Raises:
            MethodError: It has no batch norm, or none with running statistics.
        """
        manner, norms = self.running_statistics, batch_norms(context.model)
        without = [norm for norm in norms if not norm.track_running_stats]
        none_learns = len(without) == len(norms)
        if manner != "auto" and (none_learns or (without and manner == "frozen")):
            what = "a batch norm without running statistics" if without else "no batch norm"
            raise MethodError(
                f"{type(context.model).__name__} has {what}, so that running_statistics={manner} "
                "would be ignored.",
                where=f"method.{self.method}.running_statistics",
                mend=f"leave method.{self.method}.running_statistics at auto",
            )
        apart = self.forward == "separate" or self.new_weight is not None or manner == "new"
        if apart and not none_learns and manner == "auto":
            context.warn(
                f"{self.method}: new and replayed rows go through the model separately, so batch "
                "norms keep the champion's statistics"
            )
        elif apart and not none_learns and manner != "frozen":
            context.warn(
                f"{self.method}: with running_statistics={manner} new and replayed rows are each "
                "normalised by themselves, but not when the model serves: where they differ much, "
                "scores fall far"
            )

    def parts(self, step: StepContext) -> tuple[Part, ...]:
        """The forwards of a step; none where the batch goes through the model as it came."""
        is_new, manner = step.batch.is_new, self.running_statistics
        if self.forward == "separate" or manner == "new" or self._weighs(is_new):
            return divided(is_new, self.new_weight, "frozen" if manner == "auto" else manner)
        if manner == "frozen":
            return (Part(rows=is_new | True, weight=1.0, statistics="running"),)
        return ()

    def _weighs(self, is_new: Booleans) -> bool:
        """Whether the weight is another than that of the mean over the batch."""
        return self.new_weight is not None and abs(self.new_weight - is_new.mean()) > 1e-9


def divided(
    is_new: Booleans, new_weight: float | None, running_statistics: str
) -> tuple[Part, ...]:
    """New and replayed rows as parts; a single row is normalised by running statistics.

    Args:
        is_new: Origin mask (B,).
        new_weight: Of the new rows; None is their share.
        running_statistics: ``mixed``, ``frozen`` or ``new``.
    """
    weight = float(is_new.mean()) if new_weight is None else new_weight
    replayed = {"mixed": "update", "new": "batch", "frozen": "running"}[running_statistics]
    new = "running" if running_statistics == "frozen" else "update"
    kinds = [(is_new, weight, new), (~is_new, 1 - weight, replayed)]
    present = [kind for kind in kinds if kind[0].any()]
    total = sum(weight for _, weight, _ in present)
    return tuple(
        Part(
            rows=rows,
            weight=weight / total,
            # the variance of one row is zero
            statistics=manner if rows.sum() > 1 else "running",
        )
        for rows, weight, manner in present
    )
