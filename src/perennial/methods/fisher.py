"""The diagonal of the Fisher information, exactly and layer by layer.

For each parameter the mean over rows of the *squared per-example* gradient of log p(y|x), formed
from a layer's inputs and the gradient at its output, so that no per-example gradient of the whole
model is ever stored.

Shapes: B rows, L positions, I inputs, O outputs, C classes, G groups.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
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

CHUNK = 1 << 24  # elements formed at a time, 64 MiB
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
    rows: int


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
            if count == 0:
                _check_uses(model, log_p, calls, names)
            _check_rows(model, calls, len(batch))
            for weight_B, label_B in _labels(log_p, batch, kind, seed, max_classes, targets):
                chosen = log_p.gather(1, label_B[:, None]).sum()
                _accumulate(chosen, calls, names, weight_B, sums, touched)
            count += len(batch)
    if count == 0:
        raise MethodError(
            "The Fisher needs rows, and there are none.",
            where="method.ewc",
            mend="give data.history=PATH, or leave ewc out",
        )
    if unused := sorted(set(sums) - touched):
        raise MethodError(
            f"Parameter {unused[0]!r} has no part in the output, so its importance is unknown.",
            where=type(model).__name__,
            mend="freeze it (requires_grad=False), or leave ewc out",
        )
    if wrong := sorted(name for name, value in sums.items() if not value.isfinite().all()):
        raise MethodError(
            f"The Fisher of parameter {wrong[0]!r} is not finite.",
            where=type(model).__name__,
            mend="check the rows and the weights for NaN and infinity, or leave ewc out",
        )
    return {name: value / count for name, value in sums.items()}, count


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
        if targets is None:
            raise MethodError(
                "The empirical Fisher needs observed labels, and none are given.",
                where="method.ewc.fisher",
                mend="use method.ewc.fisher=sampled",
            )
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
    rows = max(1, CHUNK // max(_size(*use) for use in uses))
    total = torch.zeros((), device=gradient.device)
    for start in range(0, len(gradient), rows):
        part = slice(start, start + rows)
        squares = sum(_per_example(one, f, x[part], g[part]) for one, f, x, g in uses)
        assert isinstance(squares, Tensor)
        squares = squares.flatten(1).square()
        if weight_B is not None:
            squares = squares * weight_B[part, None]
        total = total + squares.sum(dim=0)
    return total


def _size(layer: nn.Module, field: str, inputs: Tensor, gradient: Tensor) -> int:
    """Largest number of elements that `_per_example` forms for one row."""
    parameter = layer.get_parameter(field).numel()
    windows = 0
    if isinstance(layer, _CONVOLUTIONS) and field == "weight":
        windows = inputs.shape[1] * math.prod(layer.kernel_size) * math.prod(gradient.shape[2:])
    return max(parameter, windows, 1)


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
    """Per-example weight gradients (B, O, I/G, ...): one matrix product over sliding windows."""
    assert isinstance(layer, _CONVOLUTIONS)
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


def _normalised(layer: nn.Module, inputs: Tensor) -> Tensor:
    if isinstance(layer, nn.GroupNorm):
        return F.group_norm(inputs, layer.num_groups, eps=layer.eps)
    assert isinstance(layer, _BATCH_NORMS)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return F.batch_norm(
        inputs, layer.running_mean.float(), layer.running_var.float(), eps=layer.eps
    )


def _covered(model: nn.Module) -> list[nn.Module]:
    layers = []
    for name, module in model.named_modules():
        if isinstance(module, _BATCH_NORMS) and module.running_mean is None:
            raise MethodError(
                f"Batch norm {name!r} has no running statistics and mixes rows, so a row has no "
                "gradient of its own.",
                where=type(model).__name__,
                mend="build it with track_running_stats=True, or leave ewc out (method=replay)",
            )
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


def _check_rows(model: nn.Module, calls: list[_Call], rows: int) -> None:
    """Refuse a layer whose leading dimension is not the batch: its sums would cross examples."""
    for call in calls:
        if call.rows != rows:
            name = next(n for n, module in model.named_modules() if module is call.layer)
            raise MethodError(
                f"Layer {name!r} gets {call.rows} rows where the batch has {rows}; a row's own "
                "gradient cannot be told.",
                where=type(model).__name__,
                mend=f"keep rows first in its input, (B, ..., features), freeze {name}, or leave "
                "ewc out (method=replay)",
            )


def _check_uses(model: nn.Module, log_p: Tensor, calls: list[_Call], names: dict[int, str]) -> None:
    """Refuse a parameter that the graph uses more often than its layers were called."""
    recorded = Counter(
        names[id(p)]
        for call in calls
        for p in call.layer.parameters(recurse=False)
        if id(p) in names
    )
    used: Counter[str] = Counter()
    seen, left = set(), [log_p.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for following, _ in node.next_functions:
            variable = getattr(following, "variable", None)
            if variable is not None and id(variable) in names:
                used[names[id(variable)]] += 1
            left.append(following)
    for name, times in sorted(used.items()):
        if times > recorded[name]:
            raise MethodError(
                f"Parameter {name!r} is used outside of its layer's call, so its importance "
                "would be incomplete.",
                where=type(model).__name__,
                mend=f"call the layer itself, freeze {name}, or leave ewc out (method=replay)",
            )


@contextmanager
def _recording(layers: list[nn.Module]) -> Iterator[list[_Call]]:
    calls: list[_Call] = []

    def record(
        module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor
    ) -> None:
        if not output.requires_grad:  # a call under no_grad has no part in the gradient
            return
        inputs = args[0] if args else kwargs["input"]
        # an edge, not the tensor: an in-place activation behind the layer would replace the tensor
        calls.append(_Call(module, inputs.detach(), inputs._version, edge(output), len(output)))

    handles = [layer.register_forward_hook(record, with_kwargs=True) for layer in layers]
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
