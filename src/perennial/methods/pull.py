"""A quadratic pull towards the champion's weights, with its gradient and its proximal step.

Penalty ½ Σ P (θ − θ*)², with P a tensor or 1 for each parameter: what EWC, SI and L2-SP add.
Formed in chunks, so that nothing of a parameter's size is allocated, and never as Pθ − Pθ*, which
cancels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from perennial.errors import MethodError

CHUNK = 1 << 16


class Pull:
    """Anchor and precision by parameter name.

    Args:
        anchor: θ*, as the parameters lie in memory.
        precision: P, float32, alike; 1 for a parameter that has none.
        method: Name, for messages.
    """

    def __init__(
        self, anchor: dict[str, Tensor], precision: dict[str, Tensor], *, method: str
    ) -> None:
        self.anchor = anchor
        self.precision = precision
        self.method = method
        self._scratch: Tensor | None = None

    @torch.no_grad()
    def add_gradients(
        self, parameters: Mapping[str, nn.Parameter], factor: float, *, value: bool
    ) -> float | None:
        """Add factor · P (θ − θ*) to every gradient, in place.

        Args:
            parameters: Those that train, by name.
            factor: Of the penalty.
            value: Whether the penalty's value is wanted.

        Returns:
            factor / 2 · Σ P (θ − θ*)², or None.

        Raises:
            MethodError: A parameter has no anchor.
        """
        penalties: list[Tensor] = []
        for name, parameter in parameters.items():
            self._refuse_unknown(name)
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            tensors = self._on(name, parameter.device)
            flat = _flat(parameter, parameter.grad, *tensors)
            if flat is None:
                # rare layouts: correctness before memory
                parameter.grad = parameter.grad.contiguous()
                read = [tensor.reshape(-1) for tensor in (parameter, *tensors)]
                flat = [read[0], parameter.grad.view(-1), *read[1:]]
            for start in range(0, parameter.numel(), CHUNK):
                theta, grad, *rest = (tensor[start : start + CHUNK] for tensor in flat)
                penalty = self._add(theta, grad, *rest, factor=factor, value=value)
                penalties += [] if penalty is None else [penalty]
        if not penalties:
            return None
        # summed on the device, so that logging waits for it once
        total = torch.stack([one.to(penalties[0].device) for one in penalties]).sum()
        return float(total) * factor / 2

    @torch.no_grad()
    def shrink(self, parameters: Mapping[str, nn.Parameter], factors: Mapping[str, float]) -> None:
        """The proximal step θ ← (θ + cθ*) / (1 + c) with c = factor · P, stable at any strength.

        Args:
            parameters: Those that train, by name.
            factors: Learning rate times the penalty's factor, by name.
        """
        for name, parameter in parameters.items():
            self._refuse_unknown(name)
            tensors = self._on(name, parameter.device)
            flat = _flat(parameter, *tensors)
            if flat is None:
                anchor, *p = tensors
                share = _share(torch.ones_like(anchor, dtype=torch.float32), p, factors[name])
                parameter.add_((anchor.float() - parameter.float()).mul_(share).to(parameter.dtype))
                continue
            for start in range(0, parameter.numel(), CHUNK):
                theta, star, *p = (tensor[start : start + CHUNK] for tensor in flat)
                share = _share(self._buffer(len(theta), theta.device), p, factors[name])
                theta.add_((star.float() - theta.float()).mul_(share).to(theta.dtype))

    def _add(
        self,
        theta: Tensor,
        grad: Tensor,
        star: Tensor,
        p: Tensor | None = None,
        *,
        factor: float,
        value: bool,
    ) -> Tensor | None:
        """One chunk (n,) of the gradient; the penalty's share of it where asked for."""
        delta = self._buffer(len(theta), theta.device)
        if theta.dtype == delta.dtype:
            torch.sub(theta, star, out=delta)
        else:
            delta.copy_(theta).sub_(star)
        penalty = None
        if value:
            weighed = delta if p is None else p * delta
            penalty = (weighed * delta).sum(dtype=torch.float64)
        if p is None:
            grad.add_(delta.to(grad.dtype), alpha=factor)
        elif grad.dtype == delta.dtype:
            grad.addcmul_(p, delta, value=factor)
        else:
            grad.add_(delta.mul_(p), alpha=factor)
        return penalty

    def _on(self, name: str, device: torch.device) -> list[Tensor]:
        if self.anchor[name].device != device:
            self.anchor[name] = self.anchor[name].to(device)
            if name in self.precision:
                self.precision[name] = self.precision[name].to(device)
        found = [self.anchor[name]]
        return [*found, self.precision[name]] if name in self.precision else found

    def _buffer(self, size: int, device: torch.device) -> Tensor:
        if self._scratch is None or self._scratch.device != device or len(self._scratch) < size:
            self._scratch = torch.empty(CHUNK, dtype=torch.float32, device=device)
        return self._scratch[:size]

    def _refuse_unknown(self, name: str) -> None:
        if name not in self.anchor:
            raise MethodError(
                f"Parameter {name!r} became trainable after {self.method} was prepared.",
                where=f"method.{self.method}",
                mend=f"unfreeze it before training, or leave {self.method} out",
            )


def like(parameter: Tensor, values: Tensor) -> Tensor:
    """Float32 values in a parameter's own layout, so that both lie alike in memory."""
    layout = torch.empty_like(parameter, dtype=torch.float32, requires_grad=False)
    return layout.copy_(values)


def padded(values: Tensor, rows: int) -> Tensor:
    """Values (C, ...) with zeros for the rows of new classes: (rows, ...)."""
    return torch.cat([values, values.new_zeros(rows - len(values), *values.shape[1:])])


def free_rows(
    parameters: Mapping[str, Tensor], champion: Mapping[str, Tensor]
) -> dict[str, tuple[int, int]]:
    """Parameters that new classes gave rows: name to the champion's rows and the present ones."""
    pairs = {
        name: (champion[name].shape, parameter.shape)
        for name, parameter in parameters.items()
        if name in champion
    }
    return {n: (old[0], now[0]) for n, (old, now) in pairs.items() if old[:1] < now[:1]}


def carried(
    stored: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    champion: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """What a method left with the champion, zero where new classes have added rows.

    Args:
        stored: Values by parameter name.
        parameters: Those that train, by name.
        champion: Its weights.

    Returns:
        Float32 in the parameters' layout; without those that do not fit.
    """
    free = free_rows(parameters, champion)
    found = {}
    for name, parameter in parameters.items():
        values = stored.get(name)
        if values is not None and name in free and values.shape == champion[name].shape:
            values = padded(values, len(parameter))
        if values is not None and values.shape == parameter.shape:
            found[name] = like(parameter, values)
    return found


def anchors(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Copies of the present weights."""
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def _share(out: Tensor, p: list[Tensor], factor: float) -> Tensor:
    """C / (1 + c), written into ``out``."""
    if not p:
        return out.fill_(factor / (1 + factor))
    torch.mul(p[0], factor, out=out)
    return out.div_(out + 1)


def _flat(*tensors: Tensor) -> list[Tensor] | None:
    """Views (n,) in one order of tensors that lie alike and densely in memory, or None."""
    first = tensors[0]
    if len({tensor.stride() for tensor in tensors}) > 1 or not _is_dense(first):
        return None
    return [t.as_strided((t.numel(),), (1,), t.storage_offset()) for t in tensors]


def _is_dense(tensor: Tensor) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.is_contiguous() or (
        tensor.ndim in formats and tensor.is_contiguous(memory_format=formats[tensor.ndim])
    )
