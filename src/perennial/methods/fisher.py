"""The diagonal of the Fisher information, exactly and layer by layer.

For each parameter the mean over rows of the *squared per-example* gradient of log p(y|x), formed
from a layer's inputs and the gradient at its output, so that no per-example gradient of the whole
model is ever stored.

Shapes: B rows, L positions, I inputs, O outputs, C classes, G groups.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge as edge

from perennial.errors import ConfigError, MethodError
from perennial.types import Batch, Strings

KINDS = ("sampled", "true", "empirical")
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_NORMS = (nn.LayerNorm, nn.GroupNorm, *_BATCH_NORMS)


@dataclass(frozen=True)
class _Call:
    """One use of a layer in a forward pass."""

    layer: nn.Module
    inputs: Tensor
    version: int
    output: Any


def diagonal_fisher(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    logits: Callable[[Any], Tensor],
    kind: str = "sampled",
    seed: int = 0,
    max_classes: int = 100,
    targets: Callable[[Any], Tensor] | None = None,
) -> tuple[dict[str, Tensor], int]:
    """Mean over rows of per-example squared gradients of log p(y|x).

    Estimated in evaluation mode; modes, buffers, generators, gradients and requirements of
    gradients are left as they were.

    Args:
        model: Linear, convolution and norm layers with whatever else has no trainable parameters.
        batches: Rows on the model's device.
        logits: Batch data to logits (B, C), through ``model``.
        kind: ``sampled`` draws the label from the model's own distribution by hash(seed, row id),
            whatever the order, batch size or rank; ``true`` takes the expectation over all
            classes; ``empirical`` the observed label.
        seed: Of the draws.
        max_classes: Largest C for ``true``.
        targets: Batch data to observed labels (B,), for ``empirical``.

    Returns:
        Float32 tensors by parameter name, and the number of rows.

    Raises:
        ConfigError: The kind is unknown, or ``true`` with more classes than ``max_classes``.
        MethodError: A layer is not covered, or a trainable parameter has no part in the output.
    """
    if kind not in KINDS:
        raise ConfigError(
            f"{kind!r} is no kind of Fisher.",
            where="method.ewc.fisher",
            mend=f"use {', '.join(KINDS)}",
        )
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    layers = _covered(model)
    sums = {
        name: torch.zeros_like(p, dtype=torch.float32)
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    touched: set[str] = set()
    count = 0
    with _evaluating(model):
        for batch in batches:
            with torch.enable_grad(), _recording(layers) as calls:
                log_p = F.log_softmax(logits(batch.data).float(), dim=1)
            for weight_B, label_B in _labels(log_p, batch, kind, seed, max_classes, targets):
                chosen = log_p.gather(1, label_B[:, None]).sum()
                _accumulate(chosen, calls, names, weight_B, sums, touched)
            count += len(batch)
    if unused := sorted(set(sums) - touched):
        raise MethodError(
            f"Parameter {unused[0]!r} has no part in the output, so its importance is unknown.",
            where=type(model).__name__,
            mend="freeze it (requires_grad=False), or leave ewc out",
        )
    return {name: value / max(count, 1) for name, value in sums.items()}, count


def uniform_by_id(ids: Strings, seed: int) -> Tensor:
    """A number in [0, 1) for each row id, float64 (B,), from a hash of seed and id."""
    values = []
    for row in ids.tolist():
        digest = hashlib.blake2b(f"{seed}\0{row}".encode(), digest_size=8, person=b"fisher")
        values.append((int.from_bytes(digest.digest(), "little") >> 11) / 2**53)
    return torch.tensor(values, dtype=torch.float64)


def _labels(
    log_p: Tensor,
    batch: Batch,
    kind: str,
    seed: int,
    max_classes: int,
    targets: Callable[[Any], Tensor] | None,
) -> Iterator[tuple[Tensor | None, Tensor]]:
    """Labels (B,) to differentiate at, each with the weights (B,) of its squares or None for 1."""
    if kind == "empirical":
        assert targets is not None
        yield None, targets(batch.data)
        return
    p = log_p.detach().double().exp()
    if kind == "sampled":
        u = uniform_by_id(batch.ids, seed).to(p.device)
        cumulative = (p / p.sum(dim=1, keepdim=True)).cumsum(dim=1)
        label = torch.searchsorted(cumulative, u[:, None], right=True)[:, 0]
        yield None, label.clamp(max=p.shape[1] - 1)
        return
    classes = p.shape[1]
    if classes > max_classes:
        raise ConfigError(
            f"The true Fisher goes over all {classes} classes; the limit is {max_classes}.",
            where="method.ewc.max_classes",
            mend="use method.ewc.fisher=sampled, or raise the limit",
        )
    for position in range(classes):
        yield p[:, position].float(), torch.full_like(p[:, 0], position, dtype=torch.long)


def _accumulate(
    chosen: Tensor,
    calls: list[_Call],
    names: dict[int, str],
    weight_B: Tensor | None,
    sums: dict[str, Tensor],
    touched: set[str],
) -> None:
    outputs = [call.output for call in calls]
    gradients = torch.autograd.grad(chosen, outputs, retain_graph=True, allow_unused=True)
    # calls of one parameter, from one layer used twice or two layers that share it, are summed
    # per example before they are squared
    by_name: dict[str, list[tuple[nn.Module, str, Tensor, Tensor]]] = {}
    for call, gradient in zip(calls, gradients, strict=True):
        if gradient is None:
            continue
        layer, inputs = call.layer, call.inputs
        if inputs._version != call.version:
            raise MethodError(
                f"The input of a {type(layer).__name__} layer is changed in place behind it.",
                where="method.ewc",
                mend="write that operation out of place, or leave ewc out",
            )
        for field, parameter in layer.named_parameters(recurse=False):
            if id(parameter) in names:
                use = (layer, field, inputs.float(), gradient.float())
                by_name.setdefault(names[id(parameter)], []).append(use)
    with torch.no_grad():
        for name, uses in by_name.items():
            sums[name] += _squares(uses, weight_B).view_as(sums[name])
            touched.add(name)


def _squares(uses: list[tuple[nn.Module, str, Tensor, Tensor]], weight_B: Tensor | None) -> Tensor:
    """Sum over rows of squared per-example gradients of one parameter, flat."""
    layer, field, inputs, gradient = uses[0]
    if len(uses) == 1 and isinstance(layer, nn.Linear) and gradient.ndim == 2 and field == "weight":
        g2_BO = gradient.square() if weight_B is None else gradient.square() * weight_B[:, None]
        return (g2_BO.T @ inputs.square()).flatten()
    per_example = _per_example(*uses[0])
    for use in uses[1:]:
        per_example = per_example + _per_example(*use)
    squares = per_example.flatten(1).square()
    if weight_B is not None:
        squares = squares * weight_B[:, None]
    return squares.sum(dim=0)


def _per_example(layer: nn.Module, field: str, inputs: Tensor, gradient: Tensor) -> Tensor:
    """Gradients of one call's parameter, (B, ...) in the parameter's own shape."""
    rows = len(gradient)
    if isinstance(layer, nn.Linear):
        g_BLO = gradient.reshape(rows, -1, gradient.shape[-1])
        if field == "bias":
            return g_BLO.sum(dim=1)
        return torch.einsum("blo,bli->boi", g_BLO, inputs.reshape(rows, -1, inputs.shape[-1]))
    if isinstance(layer, _CONVOLUTIONS):
        if field == "bias":
            return gradient.flatten(2).sum(dim=2)
        return _convolution_weight(layer, inputs, gradient)
    if isinstance(layer, nn.LayerNorm):
        shape = layer.normalized_shape
        by_position = gradient
        if field == "weight":
            by_position = gradient * F.layer_norm(inputs, shape, eps=layer.eps)
        return by_position.reshape(rows, -1, *shape).sum(dim=1)
    assert isinstance(layer, _NORMS)
    by_position = gradient
    if field == "weight":
        by_position = gradient * _normalised(layer, inputs)
    return by_position.reshape(rows, gradient.shape[1], -1).sum(dim=2)


def _convolution_weight(layer: nn.Module, inputs: Tensor, gradient: Tensor) -> Tensor:
    """Per-example weight gradients (B, O, I/G, ...): one grouped convolution with B·G groups."""
    assert isinstance(layer, _CONVOLUTIONS)
    rows, dimensions = len(gradient), gradient.ndim - 2
    inputs = _padded(layer, inputs)
    groups, channels = layer.groups, inputs.shape[1] // layer.groups
    outputs = gradient.shape[1] // groups
    # gradient with respect to the weight of y = conv(x, w) is conv(x, g) with stride and dilation
    # exchanged; rows, groups and input channels become groups of it
    x = inputs.reshape(1, rows * groups * channels, *inputs.shape[2:])
    g = gradient.reshape(rows, groups, 1, outputs, *gradient.shape[2:])
    g = g.expand(rows, groups, channels, outputs, *gradient.shape[2:])
    g = g.reshape(rows * groups * channels * outputs, 1, *gradient.shape[2:])
    convolve = (F.conv1d, F.conv2d, F.conv3d)[dimensions - 1]
    result = convolve(
        x, g, stride=layer.dilation, dilation=layer.stride, groups=rows * groups * channels
    )
    kernel = layer.kernel_size
    result = result[(..., *[slice(0, size) for size in kernel])]
    result = result.reshape(rows, groups, channels, outputs, *kernel)
    return result.transpose(2, 3).reshape(rows, groups * outputs, channels, *kernel)


def _padded(layer: Any, inputs: Tensor) -> Tensor:
    # torch keeps the amounts for F.pad here, also for padding="same"
    amounts = layer._reversed_padding_repeated_twice
    if layer.padding_mode != "zeros":
        return F.pad(inputs, amounts, mode=layer.padding_mode)
    return F.pad(inputs, amounts)


def _normalised(layer: nn.Module, inputs: Tensor) -> Tensor:
    if isinstance(layer, nn.GroupNorm):
        return F.group_norm(inputs, layer.num_groups, eps=layer.eps)
    assert isinstance(layer, _BATCH_NORMS)
    if layer.running_mean is None or layer.running_var is None:
        raise MethodError(
            "A batch norm without running statistics mixes rows; a row has no gradient of its own.",
            where=type(layer).__name__,
            mend="build it with track_running_stats=True, or leave ewc out",
        )
    return F.batch_norm(
        inputs, layer.running_mean.float(), layer.running_var.float(), eps=layer.eps
    )


def _covered(model: nn.Module) -> list[nn.Module]:
    layers = []
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad]
        if not own:
            continue
        if type(module) not in (nn.Linear, *_CONVOLUTIONS, *_NORMS):
            raise MethodError(
                f"The Fisher of layer {name or '(root)'!r} ({type(module).__name__}) is not "
                "covered: linear, convolution and norm layers are.",
                where=type(model).__name__,
                mend=f"freeze {name or 'its parameters'} (requires_grad=False), or leave ewc out "
                "(method=replay)",
            )
        layers.append(module)
    return layers


@contextmanager
def _recording(layers: list[nn.Module]) -> Iterator[list[_Call]]:
    calls: list[_Call] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # an edge, not the tensor: an in-place activation behind the layer would replace the tensor
        calls.append(_Call(module, inputs[0].detach(), inputs[0]._version, edge(output)))

    handles = [layer.register_forward_hook(record) for layer in layers]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    model.eval()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for module, training in modes:
            module.training = training
