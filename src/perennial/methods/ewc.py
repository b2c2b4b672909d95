"""Elastic weight consolidation, online, with the penalty's gradient in closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from perennial.errors import ConfigError, MethodError
from perennial.methods.base import Method
from perennial.methods.fisher import KINDS, diagonal_fisher

if TYPE_CHECKING:
    from perennial.types import MethodContext, StepContext

CHUNK = 1 << 16


class EWC(Method):
    r"""Online EWC (Kirkpatrick et al., 2017; Schwarz et al., Progress & Compress, 2018).

    Adds the gradient of ``strength / (2 N_new) · Δᵀ P Δ`` with Δ = θ − θ*, θ* the champion's
    weights and P the accumulated precision: after each cycle P ← decay · P + N_t · F̄_t, where
    F̄_t is the mean over that cycle's rows of squared per-example gradients. With P a sum over
    rows, a cycle counts by its size, and no part of history twice.

    The term enters once per optimizer step, after unscaling and before clipping. Cost: about one
    pass over the new rows per cycle, one fused sweep over the parameters per step, and two float32
    values per parameter. Under SGD keep lr · strength · max P / N_new below 2; under Adam the
    optimizer rescales the penalty, so a strength found with one does not carry over to the other.
    Replay represents history a second time: with it, a much smaller strength is right.

    Choose it with replay where memory is small, alone where rows may not be kept.

    Args:
        strength: Weight of the penalty; 1 is the posterior's own, at least 0.
        decay: Share of the old precision that is kept per cycle, in [0, 1].
        fisher: ``sampled``, ``true`` or ``empirical``.
        max_classes: Largest number of classes for ``true``.

    Raises:
        ConfigError: A value out of range.
    """

    name: ClassVar[str] = "ewc"
    requires: ClassVar[frozenset[str]] = frozenset({"logits"})
    needs_history: ClassVar[bool] = True

    def __init__(
        self,
        *,
        strength: float = 1.0,
        decay: float = 1.0,
        fisher: str = "sampled",
        max_classes: int = 100,
    ) -> None:
        for setting, value in (
            ("strength", strength),
            ("decay", decay),
            ("max_classes", max_classes),
        ):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            _check(number, setting, value, "a number")
        _check(0 <= strength < math.inf, "strength", strength, "at least 0 and finite")
        _check(0 <= decay <= 1, "decay", decay, "from 0 to 1")
        _check(fisher in KINDS, "fisher", fisher, f"one of {', '.join(KINDS)}")
        _check(max_classes >= 2, "max_classes", max_classes, "at least 2")
        self.strength = float(strength)
        self.decay = float(decay)
        self.fisher = fisher
        self.max_classes = max_classes
        self.precision: dict[str, Tensor] = {}
        self.anchor: dict[str, Tensor] = {}
        self.new_count = 1
        self._scratch: Tensor | None = None

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
        self.precision = {}
        for name, parameter in parameters.items():
            if name not in stored or stored[name].shape != parameter.shape:
                found = tuple(stored[name].shape) if name in stored else "missing"
                raise MethodError(
                    f"The champion's precision of {name!r} is {found}, and the parameter "
                    f"{tuple(parameter.shape)}.",
                    where="method.ewc",
                    mend="train the same parameters as before, or leave ewc out",
                )
            # in the parameter's own layout, so that all lie alike in memory
            layout = torch.empty_like(parameter, dtype=torch.float32, requires_grad=False)
            self.precision[name] = layout.copy_(stored[name])
        self.anchor = {n: p.detach().clone() for n, p in parameters.items()}
        self.new_count = max(context.new_count, 1)

    @torch.no_grad()
    def add_gradients(self, step: StepContext) -> None:
        """Add strength / N_new · P (θ − θ*), in chunks of one scratch buffer."""
        factor = self.strength / self.new_count
        penalties: list[Tensor] = []
        for name, parameter in step.parameters.items():
            if name not in self.precision:
                raise MethodError(
                    f"Parameter {name!r} became trainable after EWC was prepared; it has no "
                    "precision.",
                    where="method.ewc",
                    mend="unfreeze it before training, or leave ewc out",
                )
            precision, anchor = self._on(name, parameter.device)
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            flat = _flat(parameter, anchor, precision)
            for start in range(0, parameter.numel(), CHUNK):
                chunk = [tensor[start : start + CHUNK] for tensor in flat]
                penalty = self._add(*chunk, factor=factor, value=step.is_logging)
                penalties += [] if penalty is None else [penalty]
        if penalties:
            # summed on the device, so that logging waits for it once
            total = torch.stack([value.to(penalties[0].device) for value in penalties]).sum()
            step.log("ewc/penalty", float(total) * factor / 2)

    def _add(
        self, theta: Tensor, star: Tensor, p: Tensor, grad: Tensor, *, factor: float, value: bool
    ) -> Tensor | None:
        """One chunk (n,) of the gradient; the penalty's share of it where asked for."""
        delta = self._buffer(len(theta), theta.device)
        if theta.dtype == delta.dtype:
            torch.sub(theta, star, out=delta)
        else:
            delta.copy_(theta).sub_(star)
        penalty = (p * delta * delta).sum(dtype=torch.float64) if value else None
        if grad.dtype == delta.dtype:
            grad.addcmul_(p, delta, value=factor)
        else:
            grad.add_(delta.mul_(p), alpha=factor)
        return penalty

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
        """Precision, anchor and row count."""
        return {
            "precision": dict(self.precision),
            "anchor": dict(self.anchor),
            "new_count": self.new_count,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.precision = dict(state["precision"])
        self.anchor = dict(state["anchor"])
        self.new_count = int(state["new_count"])

    def _estimate(self, context: MethodContext, *, history: bool) -> dict[str, Tensor]:
        assert context.logits is not None
        mean, count = diagonal_fisher(
            context.model,
            context.history() if history else context.new(),
            logits=context.logits,
            kind=self.fisher,
            seed=context.seed,
            max_classes=self.max_classes,
            targets=context.targets,
            warn=context.warn,
        )
        return {name: value * count for name, value in mean.items()}

    def _on(self, name: str, device: torch.device) -> tuple[Tensor, Tensor]:
        if self.precision[name].device != device:
            self.precision[name] = self.precision[name].to(device)
            self.anchor[name] = self.anchor[name].to(device)
        return self.precision[name], self.anchor[name]

    def _buffer(self, size: int, device: torch.device) -> Tensor:
        if self._scratch is None or self._scratch.device != device:
            self._scratch = torch.empty(CHUNK, dtype=torch.float32, device=device)
        return self._scratch[:size]


def _flat(parameter: Tensor, anchor: Tensor, precision: Tensor) -> list[Tensor]:
    """Parameter, anchor, precision and gradient as (n,), in one order; the gradient is a view."""
    assert parameter.grad is not None
    tensors = (parameter, anchor, precision, parameter.grad)
    if len({tensor.stride() for tensor in tensors}) == 1 and _is_dense(parameter):
        return [
            tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())
            for tensor in tensors
        ]
    # rare layouts: correctness before memory
    parameter.grad = parameter.grad.contiguous()
    return [*(tensor.reshape(-1) for tensor in tensors[:3]), parameter.grad.view(-1)]


def _is_dense(tensor: Tensor) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.is_contiguous() or (
        tensor.ndim in formats and tensor.is_contiguous(memory_format=formats[tensor.ndim])
    )


def _check(good: bool, name: str, value: object, words: str) -> None:
    if not good:
        raise ConfigError(
            f"{name} is {value!r}; it must be {words}.",
            where=f"method.ewc.{name}",
            mend=f"give a value {words}",
        )
