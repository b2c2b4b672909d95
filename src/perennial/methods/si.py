"""Synaptic intelligence: importance from the path that training took."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from perennial.errors import MethodError, require_setting
from perennial.methods.base import Method
from perennial.methods.pull import Pull, anchors, carried, like

if TYPE_CHECKING:
    from torch import Tensor

    from perennial.types import MethodContext, StepContext


class SI(Method):
    r"""Synaptic intelligence (Zenke, Poole & Ganguli, ICML 2017).

    Along training, ω ← ω − g · δθ collects how much each parameter's steps lowered the loss, with g
    the loss's gradient before any penalty. After it, Ω ← Ω + max(ω, 0) / ((θ − θ*)² + damping), and
    the penalty is ``strength · Σ Ω (θ − θ*)²``. Only steps that were really taken count, and θ is
    where the path ended, also where earlier weights are kept or interpolated ones: ω over another
    displacement than its own would be no importance.

    Cost: one sweep over the parameters before and one after each step; five values per parameter.
    Choose it where no pass over data after training is wanted: it needs neither rows of the past
    nor a Fisher. A champion that Perennial did not train has left no path, so that it is protected
    from the second cycle on.

    Args:
        strength: Weight of the penalty, at least 0.
        damping: Added to squared displacements, above 0.

    Raises:
        ConfigError: A value out of range.
    """

    name: ClassVar[str] = "si"
    learns_from_training: ClassVar[bool] = True
    holds_champion: ClassVar[bool] = True
    weighs_parameters: ClassVar[bool] = True

    def __init__(self, *, strength: float = 10.0, damping: float = 0.1) -> None:
        for setting, value in (("strength", strength), ("damping", damping)):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            require_setting(number, f"method.si.{setting}", value, "a number")
        require_setting(
            0 <= strength < math.inf, "method.si.strength", strength, "at least 0 and finite"
        )
        require_setting(0 < damping < math.inf, "method.si.damping", damping, "above 0 and finite")
        self.strength = float(strength)
        self.damping = float(damping)
        self.path: dict[str, Tensor] = {}
        self.pull = Pull({}, {}, method=self.name)
        self.end: dict[str, Tensor] = {}
        self._gradient: dict[str, Tensor] = {}

    def prepare(self, context: MethodContext) -> None:
        """Take the anchor, and the importance that earlier cycles left.

        Raises:
            MethodError: The stored importance does not fit the model.
        """
        trainable = {n: p for n, p in context.model.named_parameters() if p.requires_grad}
        stored = context.champion.methods.get("si")
        if stored is None and context.champion.id:
            context.warn(
                f"si: {context.champion.id} left no path of its training, so nothing is protected "
                "in this cycle; from the next one on it is"
            )
        self.path = {name: like(p, torch.zeros(p.shape)) for name, p in trainable.items()}
        nothing = {name: value.clone() for name, value in self.path.items()}
        importance = (
            nothing if stored is None else carried(stored, trainable, context.champion.weights)
        )
        for name in trainable:
            if name not in importance:
                raise MethodError(
                    f"The champion's importance of {name!r} does not fit the parameter.",
                    where="method.si",
                    mend="train the same parameters as before, or leave si out",
                )
        self.pull = Pull(anchors(trainable), importance, method=self.name)
        self.end = anchors(trainable)

    @torch.no_grad()
    def observe_gradients(self, step: StepContext) -> None:
        """Keep the loss's gradient and the weights before the step."""
        for name, parameter in step.parameters.items():
            self.end[name] = parameter.detach().clone()
            if parameter.grad is None:
                self._gradient.pop(name, None)
            else:
                # copies: the optimizer changes the one, methods and clipping the other
                self._gradient[name] = parameter.grad.detach().clone()

    def add_gradients(self, step: StepContext) -> None:
        """Add 2 · strength · Ω (θ − θ*)."""
        penalty = self.pull.add_gradients(step.parameters, 2 * self.strength, value=step.is_logging)
        if penalty is not None:
            step.log("si/penalty", penalty)

    def after_step(self, step: StepContext) -> None:
        """ω ← ω − g · δθ, for the step that was taken."""
        for name, parameter in step.parameters.items():
            now, before = parameter.detach(), self.end[name]
            if name in self._gradient:
                travelled = now.float() - before.float()
                self.path[name].sub_(self._gradient[name].float() * travelled)
            before.copy_(now)

    def finish(self, context: MethodContext) -> dict[str, Tensor]:
        """Importance for the next cycle."""
        if not self.path:
            return {}
        importance = self.pull.precision
        left = {}
        for name, path in self.path.items():
            moved = self.end[name].float().cpu() - self.pull.anchor[name].float().cpu()
            gained = path.cpu().clamp(min=0) / (moved.square() + self.damping)
            left[name] = (importance[name].cpu() + gained).contiguous()
        return left

    def state_dict(self) -> dict[str, Any]:
        """Path, where it stands, importance and anchor."""
        return {
            "path": dict(self.path),
            "end": dict(self.end),
            "importance": dict(self.pull.precision),
            "anchor": dict(self.pull.anchor),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.path, self.end = dict(state["path"]), dict(state["end"])
        self.pull = Pull(dict(state["anchor"]), dict(state["importance"]), method=self.name)
