"""Learning without forgetting: the champion as teacher."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F

from perennial.errors import MethodError, require_setting
from perennial.methods.base import Method

if TYPE_CHECKING:
    from torch import Tensor, nn

    from perennial.types import MethodContext, StepContext

ROWS = ("all", "new", "replayed")

# of a LightningModule in training, on the instance
_WRAPPED = ("training_step", "validation_step", "on_after_batch_transfer")


class LwF(Method):
    r"""Learning without forgetting (Li & Hoiem, ECCV 2016).

    Adds ``strength · T² · KL(p_T(teacher) ‖ p_T(model))``, the mean over rows, with p_T softmax at
    temperature T and the champion, in evaluation mode, as teacher. Cost: one forward of the teacher
    per step, one copy of the model; for a module that keeps its logits to itself one more forward.
    Choose it where rows of the past may not be kept and the new rows still look like them: on rows
    that the champion gets wrong it teaches the mistake. Of new classes the teacher says nothing:
    both distributions are over the champion's classes. Numbers, several labels at once and tokens
    have no softmax over a row's classes, and are refused.

    Args:
        strength: Weight of the term, at least 0.
        temperature: T, above 0.
        rows: Rows that the teacher speaks about: ``all``, ``new`` or ``replayed``.

    Raises:
        ConfigError: A value out of range.
    """

    name: ClassVar[str] = "lwf"
    requires: ClassVar[frozenset[str]] = frozenset({"logits", "softmax"})
    holds_champion: ClassVar[bool] = True

    def __init__(
        self, *, strength: float = 0.3, temperature: float = 2.0, rows: str = "all"
    ) -> None:
        for setting, value in (("strength", strength), ("temperature", temperature)):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            require_setting(number, f"method.lwf.{setting}", value, "a number")
        require_setting(
            0 <= strength < math.inf, "method.lwf.strength", strength, "at least 0 and finite"
        )
        require_setting(
            0 < temperature < math.inf, "method.lwf.temperature", temperature, "above 0 and finite"
        )
        require_setting(rows in ROWS, "method.lwf.rows", rows, f"one of {', '.join(ROWS)}")
        self.strength = float(strength)
        self.temperature = float(temperature)
        self.rows = rows
        self.weights: dict[str, Tensor] = {}
        self.classes: int | None = None
        self._teacher: nn.Module | None = None

    def prepare(self, context: MethodContext) -> None:
        """Take the champion's weights, and how many classes it knows.

        Raises:
            MethodError: The teacher is to speak about replayed rows, and none are replayed.
        """
        if self.rows == "replayed" and not context.replays:
            raise MethodError(
                "The teacher is to speak about replayed rows, and batches hold none.",
                where="method.lwf.rows",
                mend="add replay and give it history, 'method=[replay,lwf]', or set "
                "method.lwf.rows=all",
            )
        self.classes = context.old_classes
        self.weights = {n: v.detach().clone() for n, v in context.model.state_dict().items()}
        self._teacher = None

    def loss_terms(self, step: StepContext) -> dict[str, Tensor]:
        """The distillation term over the rows it is about."""
        origin = torch.from_numpy(step.batch.is_new.copy())
        mask = {"all": torch.ones_like(origin), "new": origin, "replayed": ~origin}[self.rows]
        if not mask.any():
            return {}
        logits = step.logits()
        teacher = self._speaking(step.model)
        assert step.logits_of is not None
        with torch.no_grad():
            taught = step.logits_of(teacher, step.batch.data)
        chosen = mask.to(logits.device)
        term = F.kl_div(
            self._log_p(logits[chosen]),
            self._log_p(taught[chosen]),
            log_target=True,
            reduction="batchmean",
        )
        return {"distillation": self.strength * self.temperature**2 * term}

    def _log_p(self, logits: Tensor) -> Tensor:
        return F.log_softmax(logits[:, : self.classes].float() / self.temperature, dim=1)

    def state_dict(self) -> dict[str, Any]:
        """The teacher's weights and number of classes."""
        return {"weights": dict(self.weights), "classes": self.classes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.weights = dict(state["weights"])
        self.classes = state["classes"]
        self._teacher = None

    def _speaking(self, model: nn.Module) -> nn.Module:
        """The teacher; built from the model at the first step, in a resumed run too."""
        if self._teacher is None:
            self._teacher = _copied(model)
            self._teacher.load_state_dict(self.weights)
            self._teacher.requires_grad_(False)
            # the same tensors from now on, not a second copy of them
            self.weights = self._teacher.state_dict()
        # a callback or the trainer may have set the whole module to training mode
        return self._teacher.eval()


def _copied(model: nn.Module) -> nn.Module:
    """A copy that knows nothing of the trainer, which a LightningModule holds on to."""
    own: dict[str, Any] = vars(model)
    held: dict[str, Any] = {name: own.pop(name) for name in _WRAPPED if name in own}
    trainer = own.get("_trainer")
    if trainer is not None:
        own["_trainer"] = None
    try:
        return copy.deepcopy(model)
    finally:
        own.update(held)
        if trainer is not None:
            own["_trainer"] = trainer
