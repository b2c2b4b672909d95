"""Elastic weight consolidation, online, with the penalty's gradient in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from perennial.errors import MethodError, require_setting
from perennial.methods.base import Method
from perennial.methods.fisher import KINDS, diagonal_fisher
from perennial.methods.pull import Pull, anchors, carried

if TYPE_CHECKING:
    from torch import Tensor

    from perennial.types import MethodContext, StepContext

STEPS = ("explicit", "proximal")

# Measured on the retention-plasticity frontier (docs/methods.md), under AdamW
ALONE = {"explicit": 100.0, "proximal": 1000.0}
BESIDE_REPLAY = 0.1
MAX_CLASSES = 100


class EWC(Method):
    r"""Online EWC (Kirkpatrick et al., 2017; Schwarz et al., Progress & Compress, 2018).

    Adds the gradient of ``strength / (2 N_new) · Δᵀ P Δ`` with Δ = θ − θ*, θ* the champion's
    weights and P the accumulated precision: after each cycle P ← decay · P + N_t · F̄_t, where
    F̄_t is the mean over that cycle's rows of squared per-example gradients. With P a sum over
    rows, a cycle counts by its size, and no part of history twice.

    The term enters once per optimizer step, after unscaling and before clipping. Cost: about one
    pass over the new rows per cycle, one fused sweep over the parameters per step, and two float32
    values per parameter.

    The ``explicit`` step adds the gradient; under SGD it is stable while
    lr · strength · max P / N_new < 2, and a warning says where it is not. Under Adam the optimizer
    rescales the penalty, so a strength found with one does not carry over to the other. The
    ``proximal`` step θ ← (θ + cθ*)/(1 + c), c = lr · strength · P / N_new, follows the optimizer's
    own step, is stable at any strength and means the same under every optimizer.
    Replay represents history a second time: with it, a much smaller strength is right.

    Rows of the output layer that new classes added have precision 0; with the next cycle they
    have that of their own rows.

    Choose it with replay where memory is small, alone where rows may not be kept.

    Args:
        strength: Weight of the penalty, at least 0; 1 is the posterior's own. None takes what was
            measured to be good: 0.1 where batches replay history, else 100, or 1000 for the
            proximal step, which under Adam is weaker by the learning rate.
        decay: Share of the old precision that is kept per cycle, in [0, 1].
        fisher: ``sampled``, ``true`` (or True, as which YAML reads it) or ``empirical``.
        max_classes: Largest number of classes, or of output dimensions, for ``true``, and for it
            alone; None is 100.
        step: ``explicit`` or ``proximal``.

    Raises:
        ConfigError: A value out of range.
    """

    name: ClassVar[str] = "ewc"
    requires: ClassVar[frozenset[str]] = frozenset({"logits"})
    needs_history: ClassVar[bool] = True
    holds_champion: ClassVar[bool] = True
    weighs_parameters: ClassVar[bool] = True

    def __init__(
        self,
        *,
        strength: float | None = None,
        decay: float = 1.0,
        fisher: str | bool = "sampled",
        max_classes: int | None = None,
        step: str = "explicit",
    ) -> None:
        kind = "true" if fisher is True else fisher
        limit = MAX_CLASSES if max_classes is None else max_classes
        for setting, value in (
            ("strength", 0 if strength is None else strength),
            ("decay", decay),
            ("max_classes", limit),
        ):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            require_setting(number, f"method.ewc.{setting}", value, "a number")
        given = 0 if strength is None else strength
        require_setting(
            0 <= given < math.inf, "method.ewc.strength", strength, "at least 0 and finite"
        )
        require_setting(0 <= decay <= 1, "method.ewc.decay", decay, "from 0 to 1")
        require_setting(kind in KINDS, "method.ewc.fisher", fisher, f"one of {', '.join(KINDS)}")
        require_setting(limit >= 2, "method.ewc.max_classes", max_classes, "at least 2")
        unused = max_classes is not None and kind != "true"
        require_setting(
            not unused,
            "method.ewc.max_classes",
            max_classes,
            "null unless method.ewc.fisher is true",
        )
        require_setting(step in STEPS, "method.ewc.step", step, f"one of {', '.join(STEPS)}")
        self.strength = None if strength is None else float(strength)
        self.weight = ALONE[step] if strength is None else float(strength)
        self.decay = float(decay)
        self.fisher = str(kind)
        self.max_classes = limit
        self.step = step
        self.precision: dict[str, Tensor] = {}
        self.anchor: dict[str, Tensor] = {}
        self.new_count = 1
        self._pull: Pull | None = None
        self._warned = False
        self._warn: Callable[[str], None] = lambda line: None

    def prepare(self, context: MethodContext) -> None:
        """Take precision and anchor from the champion; estimate what it does not carry.

        Raises:
            MethodError: There is neither a stored precision nor history to estimate it from, or
                the stored one does not fit the model.
        """
        parameters = {n: p for n, p in context.model.named_parameters() if p.requires_grad}
        stored = context.champion.methods.get("ewc")
        if stored is None:
            if not context.history_count:
                raise MethodError(
                    "EWC needs a precision, and there is no history to estimate it from.",
                    where="method.ewc",
                    mend="give data.history=PATH, or use method=none",
                )
            stored = self._estimate(context, history=True)
        self.precision = carried(stored, parameters, context.champion.weights)
        for name, parameter in parameters.items():
            if name not in self.precision:
                found = tuple(stored[name].shape) if name in stored else "missing"
                raise MethodError(
                    f"The champion's precision of {name!r} is {found}, and the parameter "
                    f"{tuple(parameter.shape)}.",
                    where="method.ewc",
                    mend="train the same parameters as before, or leave ewc out",
                )
        self.anchor = anchors(parameters)
        self.new_count = max(context.new_count, 1)
        if self.strength is None:
            self.weight = BESIDE_REPLAY if context.replays else ALONE[self.step]
            where = "beside replay" if context.replays else "without replay"
            context.warn(f"ewc: strength {self.weight:g}, the measured default {where}")
        self._pull = None
        self._warn = context.warn

    def add_gradients(self, step: StepContext) -> None:
        """Add strength / N_new · P (θ − θ*)."""
        if self.step == "proximal":
            return
        self._watch_stability(step)
        penalty = self.pull.add_gradients(step.parameters, self.factor, value=step.is_logging)
        if penalty is not None:
            step.log("ewc/penalty", penalty)

    def after_step(self, step: StepContext) -> None:
        """The proximal step, where it was chosen."""
        if self.step == "proximal":
            rates = step.learning_rates()
            self.pull.shrink(
                step.parameters, {name: rates[name] * self.factor for name in step.parameters}
            )

    @property
    def factor(self) -> float:
        """Strength / N_new."""
        return self.weight / self.new_count

    @property
    def pull(self) -> Pull:
        """The penalty over the present precision and anchor."""
        if self._pull is None:
            self._pull = Pull(self.anchor, self.precision, method=self.name)
        return self._pull

    def finish(self, context: MethodContext) -> dict[str, Tensor]:
        """Precision for the next cycle: decay · P + N_new · F̄_new at the candidate's weights."""
        fresh = self._estimate(context, history=False)
        old = self.precision
        return {
            name: (
                value if name not in old else value + self.decay * old[name].to(value.device)
            ).cpu()
            for name, value in fresh.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Precision, anchor, row count and the strength in use."""
        return {
            "precision": dict(self.precision),
            "anchor": dict(self.anchor),
            "new_count": self.new_count,
            "weight": self.weight,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.precision = dict(state["precision"])
        self.anchor = dict(state["anchor"])
        self.new_count = int(state["new_count"])
        self.weight = float(state["weight"])
        self._pull = None

    def _estimate(self, context: MethodContext, *, history: bool) -> dict[str, Tensor]:
        logits = context.logits
        assert logits is not None
        # the precision is the champion's, which knows nothing of new classes
        classes = context.old_classes if history else None
        # a remembered row stands for those that it was drawn from
        weight = context.history_weight if history else None
        mean, count = diagonal_fisher(
            context.model,
            context.history() if history else context.new(),
            logits=lambda data: _first(logits(context.model, data), classes),
            kind=self.fisher,
            seed=context.seed,
            max_classes=self.max_classes,
            targets=context.targets,
            likelihood=context.likelihood,
            weight=weight,
            warn=context.warn,
        )
        rows = count if weight is None else float(weight.sum())
        return {name: value * rows for name, value in mean.items()}

    def _watch_stability(self, step: StepContext) -> None:
        """Warn once where plain SGD would overshoot; Adam and its kin bound their steps."""
        if self._warned or not step.is_plain_sgd:
            return
        self._warned = True
        rates = step.learning_rates()
        worst = max(
            (rates[n] * self.factor * float(self.precision[n].max()) for n in step.parameters),
            default=0.0,
        )
        if worst >= 2:
            self._warn(
                f"ewc: lr · strength · max P / N_new is {worst:.3g}, and above 2 the explicit step "
                "is unstable under SGD: set method.ewc.step=proximal, or a smaller strength"
            )


def _first(logits: Tensor, classes: int | None) -> Tensor:
    """Logits (B, ..., classes) of (B, ..., C)."""
    return logits if classes in (None, logits.shape[-1]) else logits[..., :classes]
