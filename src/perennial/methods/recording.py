"""Watch a forward pass: which layer got what, and which parameters that accounts for in full.

Shapes: B rows, L positions, S key positions, E features, H heads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge as edge
from torch.nn.modules import module as torch_modules

from perennial.methods.layers import Rule, linear_rules, rules


@dataclass(frozen=True)
class Call:
    """One use of a layer's parameters in a forward pass.

    Attributes:
        layer: The layer.
        rules: Parameter name in the model to its rule.
        inputs: What the layer got (B, ...).
        version: Of the inputs, to notice a change in place behind the layer.
        output: Edge of the graph where the gradient at the output arrives.
        rows: Leading size of the output.
    """

    layer: nn.Module
    rules: Mapping[str, Rule]
    inputs: Tensor
    version: int
    output: Any
    rows: int


@contextmanager
def recording(
    model: nn.Module,
    names: Mapping[int, str],
    *,
    shared: frozenset[nn.Module] = frozenset(),
    rows: int = 1,
) -> Iterator[list[Call]]:
    """Collect the calls of covered layers while the context is open.

    Args:
        model: Watched by hooks; its attention layers run an equal forward of this module's own,
            whose projections can be seen.
        names: ``id`` of each wanted parameter to its name.
        shared: Embeddings that give one output for all rows, as positions do; it is repeated for
            each row, so that the gradient arrives row by row.
        rows: How often.
    """
    calls: list[Call] = []

    def note(layer: nn.Module, found: Mapping[str, Rule], inputs: Tensor, output: Tensor) -> Tensor:
        if found and output.requires_grad:  # a call under no_grad has no part in the gradient
            version = inputs._version
            if layer in shared:
                leads = inputs.ndim == 2  # (1, L); else (L,)
                output = _repeated(output, rows, leads=leads)
                inputs = _repeated(inputs, rows, leads=leads)
            # an edge, not the tensor: an in-place activation behind it would replace the tensor
            seen = Call(layer, found, inputs.detach(), version, edge(output), len(output))
            calls.append(seen)
        return output

    def wanted(layer: nn.Module, by_field: Mapping[str, Rule]) -> dict[str, Rule]:
        own = dict(layer.named_parameters(recurse=False))
        return {names[id(own[f])]: r for f, r in by_field.items() if id(own[f]) in names}

    handles = []
    replaced: list[nn.MultiheadAttention] = []
    for layer in model.modules():
        if not _runs_its_class(layer):
            continue
        if type(layer) is nn.MultiheadAttention:
            layer.forward = _Attention(layer, names, note)  # type: ignore[method-assign]
            replaced.append(layer)
        elif found := wanted(layer, rules(layer)):
            # before the layer's own hooks, which may change what it gave
            hook = _hook(found, note)
            handles.append(layer.register_forward_hook(hook, prepend=True, with_kwargs=True))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
        for attention in replaced:
            del attention.forward


def _runs_its_class(layer: nn.Module) -> bool:
    """Whether what a hook sees first is what the layer's class computes."""
    # hooks on all modules come before any of a layer's own
    return "forward" not in vars(layer) and not torch_modules._global_forward_hooks


def unaccounted(log_p: Tensor, calls: list[Call], names: Mapping[int, str], rows: int) -> set[str]:
    """Parameters whose use in the graph the recorded calls do not explain in full.

    Used outside of a covered layer's call, in a layer whose leading size is not the batch's, or
    fed by something that was changed in place since.

    Args:
        log_p: What the graph ends in.
        calls: Recorded in the forward that led to it.
        names: ``id`` of each wanted parameter to its name.
        rows: B.
    """
    recorded = Counter(name for call in calls for name in call.rules)
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
    odd = {name for name, times in used.items() if times > recorded[name]}
    for call in calls:
        if call.rows != rows or call.inputs._version != call.version:
            odd |= set(call.rules)
    return odd


def given_to_all_rows(one: list[Call], two: list[Call]) -> frozenset[nn.Module]:
    """Embeddings whose input did not grow when a second row came."""
    shapes = {call.layer: call.inputs.shape for call in one}
    return frozenset(
        call.layer
        for call in two
        if isinstance(call.layer, nn.Embedding)
        and shapes.get(call.layer) == call.inputs.shape
        and (call.inputs.ndim == 1 or (call.inputs.ndim == 2 and len(call.inputs) == 1))
    )


def _hook(found: Mapping[str, Rule], note: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        inputs = args[0] if args else kwargs["input"]
        return note(layer, found, inputs, output)

    return hook


def _repeated(value: Tensor, rows: int, *, leads: bool) -> Tensor:
    """(L, ...), or (1, L, ...) where a 1 leads, for each of the rows."""
    positions = value if leads else value[None]
    return positions.expand(rows, *positions.shape[1:])


class _Attention:
    """`torch.nn.MultiheadAttention`'s forward over itself, with visible projections.

    Attention over another sequence, or with learned keys, runs as it is and stays unaccounted.
    """

    def __init__(
        self, layer: nn.MultiheadAttention, names: Mapping[int, str], note: Callable[..., Tensor]
    ) -> None:
        self.layer = layer
        self.note = note
        projections = (
            (layer.in_proj_weight, layer.in_proj_bias),
            (layer.out_proj.weight, layer.out_proj.bias),
        )
        self.rules = [
            {
                names[id(parameter)]: rule
                for parameter, rule in zip(pair, linear_rules(pair[0]), strict=True)
                if id(parameter) in names
            }
            if pair[0] is not None
            else {}
            for pair in projections
        ]

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        layer = self.layer
        plain = (
            layer.bias_k is None and not layer.add_zero_attn and layer.in_proj_weight is not None
        )
        if not (plain and query is key and query is value and query.ndim == 3):
            return nn.MultiheadAttention.forward(
                layer, query, key, value, key_padding_mask, need_weights, attn_mask,
                average_attn_weights, is_causal,
            )  # fmt: skip
        x = query if layer.batch_first else query.transpose(0, 1)
        rows, length, width = x.shape
        packed = F.linear(x, layer.in_proj_weight, layer.in_proj_bias)
        self.note(layer, self.rules[0], x, packed)
        q, k, v = (
            part.reshape(rows, length, layer.num_heads, -1).transpose(1, 2)
            for part in packed.chunk(3, dim=-1)
        )
        mask = _mask(attn_mask, key_padding_mask, rows, layer.num_heads, q.dtype)
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
            weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
            mixed = weights @ v
            weights = weights.mean(dim=1) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        mixed = mixed.transpose(1, 2).reshape(rows, length, width)
        output = F.linear(mixed, layer.out_proj.weight, layer.out_proj.bias)
        self.note(layer, self.rules[1], mixed, output)
        return (output if layer.batch_first else output.transpose(0, 1)), weights


def _mask(
    attention: Tensor | None, padding: Tensor | None, rows: int, heads: int, dtype: torch.dtype
) -> Tensor | None:
    """Both masks as one to add to the scores (B, H, L, S); True means left out."""
    total: Tensor | None = None
    if attention is not None:
        shaped = (
            attention.reshape(rows, heads, *attention.shape[1:])
            if attention.ndim == 3
            else attention
        )
        total = _additive(shaped, dtype)
    if padding is not None:
        added = _additive(padding, dtype)[:, None, None, :]
        total = added if total is None else total + added
    return total


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))
