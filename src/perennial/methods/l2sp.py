"""L2-SP: a pull towards the champion's weights, the same for every parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from perennial.errors import require_setting
from perennial.methods.base import Method
from perennial.methods.pull import Pull, anchors, free_rows, like, padded

if TYPE_CHECKING:
    from perennial.types import MethodContext, StepContext


class L2SP(Method):
    r"""L2-SP (Li, Grandvalet & Davoine, Explicit Inductive Bias for Transfer Learning, 2018).

    Adds the gradient of ``strength / 2 · ‖θ − θ*‖²``, θ* the champion's weights. Cost: one sweep
    over the parameters per step, one copy of the weights. Choose it where there is neither history
    nor a precision: it needs no row of the past. It holds back every parameter alike, also those
    that history does not need; rows that new classes added to the output layer are free.

    Args:
        strength: Weight of the penalty, at least 0.

    Raises:
        ConfigError: A value out of range.
    """

    name: ClassVar[str] = "l2sp"
    holds_champion: ClassVar[bool] = True

    def __init__(self, *, strength: float = 0.01) -> None:
        number = isinstance(strength, int | float) and not isinstance(strength, bool)
        require_setting(number, "method.l2sp.strength", strength, "a number")
        require_setting(
            0 <= strength < math.inf, "method.l2sp.strength", strength, "at least 0 and finite"
        )
        self.strength = float(strength)
        self.pull = Pull({}, {}, method=self.name)

    def prepare(self, context: MethodContext) -> None:
        """Take the anchor."""
        trainable = {n: p for n, p in context.model.named_parameters() if p.requires_grad}
        free = free_rows(trainable, context.champion.weights)
        held = {
            name: like(trainable[name], padded(torch.ones(old, *trainable[name].shape[1:]), now))
            for name, (old, now) in free.items()
        }
        self.pull = Pull(anchors(trainable), held, method=self.name)

    def add_gradients(self, step: StepContext) -> None:
        """Add strength · (θ − θ*)."""
        penalty = self.pull.add_gradients(step.parameters, self.strength, value=step.is_logging)
        if penalty is not None:
            step.log("l2sp/penalty", penalty)

    def state_dict(self) -> dict[str, Any]:
        """The anchor, and which rows are held to it where not all are."""
        return {"anchor": dict(self.pull.anchor), "held": dict(self.pull.precision)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.pull = Pull(dict(state["anchor"]), dict(state["held"]), method=self.name)
