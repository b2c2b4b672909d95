"""Per-example gradients of a layer's parameters from its input and the gradient at its output.

Exact for linear, convolution, embedding and norm layers; `rules` says which fields of a layer are
covered. What is not is for `perennial.methods.per_example`.

Shapes: B rows, L positions, I inputs, O outputs, G groups, V tokens, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CHANNEL_NORMS = (nn.GroupNorm, *_BATCH_NORMS)
_POSITION_NORMS = (nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Rule:
    """How one parameter's per-example gradients come from a call of its layer.

    Attributes:
        per_example: (inputs, gradient at the output) to gradients (B, ...) in the parameter's
            own shape.
        size: (inputs, gradient) to the largest number of elements formed for one row.
        squares: (inputs, gradient) to the sum over rows of squares, flat, where that is cheaper
            than squaring `per_example`; None for these arguments otherwise.
    """

    per_example: Callable[[Tensor, Tensor], Tensor]
    size: Callable[[Tensor, Tensor], int]
    squares: Callable[[Tensor, Tensor], Tensor | None] = lambda x, g: None


def rules(layer: nn.Module) -> dict[str, Rule]:
    """Rule by field for a layer's own parameters; empty where its class is not covered."""
    own = {name for name, _ in layer.named_parameters(recurse=False)}
    return {name: rule for name, rule in _rules(layer).items() if name in own}


def linear_rules(weight: Tensor) -> tuple[Rule, Rule]:
    """Rules of a linear map's weight and bias, also for one that is no `torch.nn.Linear`."""
    return (
        Rule(linear_weight, _constant(weight.numel()), linear_weight_squares),
        Rule(linear_bias, _constant(weight.shape[0])),
    )


def mixes_rows(layer: nn.Module) -> bool:
    """Whether a batch norm has no running statistics, so that a row has no gradient of its own."""
    return isinstance(layer, _BATCH_NORMS) and layer.running_mean is None


def linear_weight(inputs: Tensor, gradient: Tensor) -> Tensor:
    """Per-example weight gradients gᵀa of a linear layer, (B, O, I)."""
    rows = len(gradient)
    g_BLO = gradient.reshape(rows, -1, gradient.shape[-1])
    return torch.bmm(g_BLO.transpose(1, 2), inputs.reshape(rows, -1, inputs.shape[-1]))


def linear_weight_squares(inputs: Tensor, gradient: Tensor) -> Tensor | None:
    """(g²)ᵀ(a²), where a row has one position only."""
    if gradient.ndim != 2:
        return None
    return (gradient.square().T @ inputs.square()).flatten()


def linear_bias(_: Tensor, gradient: Tensor) -> Tensor:
    """Per-example bias gradients of a linear layer (B, O)."""
    return gradient.reshape(len(gradient), -1, gradient.shape[-1]).sum(dim=1)


def _rules(layer: nn.Module) -> dict[str, Rule]:
    kind: Any = type(layer)
    whole = {name: _constant(p.numel()) for name, p in layer.named_parameters(recurse=False)}
    if isinstance(layer, nn.Linear) and kind is nn.Linear:
        weight, bias = linear_rules(layer.weight)
        return {"weight": weight, "bias": bias}
    if isinstance(layer, _CONVOLUTIONS) and kind in _CONVOLUTIONS:
        return {
            "weight": Rule(partial(_convolution_weight, layer), partial(_window_size, layer)),
            "bias": Rule(lambda x, g: g.flatten(2).sum(dim=2), whole.get("bias", _constant(1))),
        }
    if isinstance(layer, nn.Embedding) and kind is nn.Embedding:
        if layer.max_norm is not None or layer.scale_grad_by_freq:
            return {}  # rescaled by what else is in the batch
        return {
            "weight": Rule(
                partial(_embedding_weight, layer),
                whole["weight"],
                partial(_embedding_squares, layer),
            )
        }
    if isinstance(layer, _POSITION_NORMS) and kind in _POSITION_NORMS:
        by_position = _normalised(layer)
        shape = tuple(layer.normalized_shape)

        def summed(values: Tensor) -> Tensor:
            return values.reshape(len(values), -1, *shape).sum(dim=1)

        return {
            name: Rule(
                (lambda x, g: summed(g * by_position(x))) if name == "weight" else
                (lambda x, g: summed(g)),
                size,
            )
            for name, size in whole.items()
        }  # fmt: skip
    if kind in _CHANNEL_NORMS:
        by_channel = _normalised(layer)

        def over_positions(values: Tensor) -> Tensor:
            return values.reshape(len(values), values.shape[1], -1).sum(dim=2)

        return {
            name: Rule(
                (lambda x, g: over_positions(g * by_channel(x))) if name == "weight" else
                (lambda x, g: over_positions(g)),
                size,
            )
            for name, size in whole.items()
        }  # fmt: skip
    return {}


def _constant(size: int) -> Callable[[Tensor, Tensor], int]:
    return lambda inputs, gradient: size


def _normalised(layer: Any) -> Callable[[Tensor], Tensor]:
    """The normalised inputs, before weight and bias."""
    if isinstance(layer, nn.LayerNorm):
        return lambda x: F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    if isinstance(layer, nn.RMSNorm):
        return lambda x: F.rms_norm(x, layer.normalized_shape, eps=layer.eps)
    if isinstance(layer, nn.GroupNorm):
        return lambda x: F.group_norm(x, layer.num_groups, eps=layer.eps)
    return lambda x: F.batch_norm(
        x, layer.running_mean.float(), layer.running_var.float(), eps=layer.eps
    )


def _embedding_weight(layer: nn.Embedding, inputs: Tensor, gradient: Tensor) -> Tensor:
    """Per-example gradients (B, V, D); formed only where a weight is shared with another layer."""
    rows, width = len(gradient), gradient.shape[-1]
    tokens = inputs.reshape(rows, -1, 1).expand(-1, -1, width)
    values = gradient.reshape(rows, -1, width)
    full = gradient.new_zeros(rows, layer.num_embeddings, width)
    full.scatter_add_(1, tokens, values)
    if layer.padding_idx is not None:
        full[:, layer.padding_idx] = 0
    return full


def _embedding_squares(layer: nn.Embedding, inputs: Tensor, gradient: Tensor) -> Tensor:
    """An example's repeated tokens are merged first, then squared and summed by token."""
    rows, width = len(gradient), gradient.shape[-1]
    tokens = inputs.reshape(rows, -1)
    row = torch.arange(rows, device=tokens.device)[:, None]
    keys, index = torch.unique(row * layer.num_embeddings + tokens, return_inverse=True)
    merged = gradient.new_zeros(len(keys), width)
    merged.index_add_(0, index.reshape(-1), gradient.reshape(-1, width))
    total = gradient.new_zeros(layer.num_embeddings, width)
    total.index_add_(0, keys % layer.num_embeddings, merged.square())
    if layer.padding_idx is not None:
        total[layer.padding_idx] = 0
    return total.flatten()


def _window_size(layer: Any, inputs: Tensor, gradient: Tensor) -> int:
    windows = inputs.shape[1] * math.prod(layer.kernel_size) * math.prod(gradient.shape[2:])
    return max(int(windows), int(layer.weight.numel()))


def _convolution_weight(layer: Any, inputs: Tensor, gradient: Tensor) -> Tensor:
    """Per-example weight gradients (B, O, I/G, ...): one matrix product over sliding windows."""
    x = _padded(layer, inputs)
    rows, groups, kernel = len(x), layer.groups, layer.kernel_size
    positions = gradient.shape[2:]
    step = x.stride()[2:]
    # (B, I, kernel..., positions...) as a view; copied once, for one chunk of rows
    windows = x.as_strided(
        (*x.shape[:2], *kernel, *positions),
        (
            *x.stride()[:2],
            *(s * d for s, d in zip(step, layer.dilation, strict=True)),
            *(s * d for s, d in zip(step, layer.stride, strict=True)),
        ),
        x.storage_offset(),
    )
    windows = windows.reshape(rows * groups, -1, math.prod(positions))
    g = gradient.reshape(rows * groups, -1, math.prod(positions))
    return (g @ windows.transpose(1, 2)).reshape(rows, -1, x.shape[1] // groups, *kernel)


def _padded(layer: Any, inputs: Tensor) -> Tensor:
    # torch keeps the amounts for F.pad here, also for padding="same"
    amounts = layer._reversed_padding_repeated_twice
    if layer.padding_mode != "zeros":
        return F.pad(inputs, amounts, mode=layer.padding_mode)
    return F.pad(inputs, amounts)
