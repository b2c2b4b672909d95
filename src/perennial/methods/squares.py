"""Sums over rows of squared per-example gradients, layer by layer, and the rest otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from perennial.errors import MethodError
from perennial.methods.layers import Rule
from perennial.methods.per_example import PerExample, alike, gradients, rounding, taken
from perennial.methods.recording import Call, given_to_all_rows, recording, unaccounted
from perennial.types import Batch

# elements formed at a time: on a CPU what stays in its cache, elsewhere 64 MiB
CHUNK = {"cpu": 1 << 19, "other": 1 << 24}


@dataclass
class Squares:
    """Sums over rows of squared per-example gradients, under way.

    Attributes:
        model: The model.
        logits: Batch data to outputs (B, ...), through it.
        warn: Takes a line for the user.
        sums: By parameter name.
        layered: ``id`` to name of the parameters that layers' rules account for.
        others: The rest.
        touched: Names that got a contribution.
        shared: Embeddings of positions, which give one output for all rows.
    """

    model: nn.Module
    logits: Callable[[Any], Tensor]
    warn: Callable[[str], None]
    sums: dict[str, Tensor] = field(default_factory=dict)
    layered: dict[int, str] = field(default_factory=dict)
    others: PerExample | None = None
    touched: set[str] = field(default_factory=set)
    shared: frozenset[nn.Module] = frozenset()

    def __post_init__(self) -> None:
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                self.sums[name] = torch.zeros_like(
                    parameter, dtype=torch.float32, memory_format=torch.contiguous_format
                )
                self.layered[id(parameter)] = name

    def probe(self, batch: Batch) -> None:
        """Find out on one row, and on two, which parameters the layers do not explain.

        Two sizes, since the length of a sequence may happen to be that of a batch.
        """
        odd: set[str] = set()
        seen, outcomes = [], []
        for rows in (1, 2):
            outputs, calls = self._forward(batch, rows)
            if not outputs.requires_grad:
                return
            odd |= unaccounted(outputs, calls, self.layered, rows)
            seen.append(calls)
            outcomes.append(outputs.detach())
        self._refuse_mixing(batch, *outcomes)
        if shared := given_to_all_rows(*seen):
            odd = self._believe(shared, batch, outputs, odd)
        self._move(odd, batch, outputs)

    def settle(self, batch: Batch, outputs: Tensor, calls: list[Call]) -> None:
        """Find out what the layers do not explain in this batch, as where rows choose a layer.

        What is odd here goes through the whole model from now on. Its sums so far are right: they
        are of batches in which it was not odd.
        """
        odd = unaccounted(outputs, calls, self.layered, len(batch))
        if picks_rows(outputs):
            known = [call for call in calls if not odd.issuperset(call.rules)]
            odd |= misaligned(outputs, known)
        self._move(odd, batch, outputs)

    def _move(self, odd: set[str], batch: Batch, outputs: Tensor) -> None:
        """Let parameters go through the whole model."""
        moved = odd & set(self.layered.values())
        if not moved:
            return
        self.layered = {i: name for i, name in self.layered.items() if name not in moved}
        moved |= set(self.others.parameters) if self.others else set()
        self.others = PerExample(
            self.model,
            self.logits,
            {name: p for name, p in self.model.named_parameters() if name in moved},
        )
        shape = (2, *outputs.shape[1:])
        # any direction will do, as long as no two of its values are alike
        direction = torch.linspace(0.5, 1, math.prod(shape), device=outputs.device)
        self.others.probe(taken(batch.data, torch.arange(2) % len(batch)), direction.reshape(shape))
        self._tell(self.others)

    def _refuse_mixing(self, batch: Batch, alone: Tensor, beside: Tensor) -> None:
        """Compare a row's outputs alone and beside another, unless they are random."""
        bound = max(rounding(parameter) for parameter in self.model.parameters())
        again = self._forward(batch, 1)[0].detach()
        if alike(again, alone, bound) and not alike(beside[:1], alone, bound):
            raise MethodError(
                "A row's outputs change with the rows beside it, so a row has no gradient of its "
                "own.",
                where=type(self.model).__name__,
                mend="compute every row from itself alone, as group or layer norm does, or leave "
                "ewc out (method=replay)",
            )

    def _tell(self, others: PerExample) -> None:
        names = _named(others.parameters)
        if others.refusal:
            self.warn(f"Fisher: {names} row by row, which is slower: {others.refusal}")
        else:
            self.warn(f"Fisher: {names} through the whole model, in chunks of rows")

    def _believe(
        self, shared: frozenset[nn.Module], batch: Batch, outputs: Tensor, odd: set[str]
    ) -> set[str]:
        """Repeat what all rows share, where that changes nothing; what is odd then."""
        self.shared = shared
        try:
            again, calls = self._forward(batch, 2)
        except (RuntimeError, ValueError, IndexError, TypeError):
            again, calls = outputs[:0], []
        if alike(again.detach(), outputs.detach(), 1e-5):
            explained = {name for call in calls if call.layer in shared for name in call.rules}
            return (odd - explained) | unaccounted(again, calls, self.layered, 2)
        self.shared = frozenset()
        return odd

    def _forward(self, batch: Batch, rows: int) -> tuple[Tensor, list[Call]]:
        """The first rows of a batch."""
        data = taken(batch.data, torch.arange(rows) % len(batch))
        with (
            torch.enable_grad(),
            recording(self.model, self.layered, shared=self.shared, rows=rows) as calls,
        ):
            return self.logits(data).float(), calls

    def add_layers(self, outputs: Tensor, calls: list[Call], direction: Tensor) -> None:
        """Squares of every parameter that layers' rules account for."""
        wanted = set(self.layered.values())
        calls = [call for call in calls if not wanted.isdisjoint(call.rules)]
        if not calls:
            return
        found = gradients(outputs, [call.output for call in calls], direction, retain=True)
        # uses of one parameter, in one layer called twice or in two that share it, are summed per
        # example before they are squared
        uses: dict[str, list[_Use]] = {}
        for call, gradient in zip(calls, found, strict=True):
            if gradient is None:
                continue
            inputs = call.inputs.float() if call.inputs.is_floating_point() else call.inputs
            for name, rule in call.rules.items():
                if name in wanted:
                    uses.setdefault(name, []).append((rule, inputs, gradient.float()))
        with torch.no_grad():
            for name, use in uses.items():
                self.sums[name] += _squares(use).view_as(self.sums[name])
                self.touched.add(name)

    def add_rows(self, data: Any, direction: Tensor) -> None:
        """Squares of the other parameters."""
        if self.others is None:
            return
        refused = bool(self.others.refusal)
        for name, squares in self.others.squares(data, direction):
            self.sums[name] += squares
        self.touched |= self.others.used
        if self.others.refusal and not refused:
            self._tell(self.others)

    def finished(self) -> dict[str, Tensor]:
        """The sums, checked."""
        if unused := sorted(set(self.sums) - self.touched):
            raise MethodError(
                f"Parameter {unused[0]!r} has no part in the output, so its importance is unknown.",
                where=type(self.model).__name__,
                mend="freeze it (requires_grad=False), or leave ewc out",
            )
        if wrong := sorted(name for name, v in self.sums.items() if not v.isfinite().all()):
            raise MethodError(
                f"The Fisher of parameter {wrong[0]!r} is not finite.",
                where=type(self.model).__name__,
                mend="check the rows and the weights for NaN and infinity, or leave ewc out",
            )
        return self.sums


# operations by which values can choose which rows a layer gets
_PICKING = ("Index", "Masked", "Gather", "Scatter", "Take", "Sort", "Topk", "Where", "Nonzero")


def picks_rows(outputs: Tensor) -> bool:
    """Whether the graph behind outputs holds an operation that can send rows to chosen layers."""
    waiting, seen = [outputs.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__.startswith(_PICKING):
            return True
        waiting += [following for following, _ in node.next_functions]
    return False


def misaligned(outputs: Tensor, calls: list[Call]) -> set[str]:
    """Parameters of calls whose rows are not the batch's, though they are as many.

    As where as many tokens as the batch has rows were sent to one of several layers. Weighing the
    rows of the outputs has to weigh the same rows of a gradient.

    Args:
        outputs: (B, ...).
        calls: Of the forward that gave them, of B rows each.
    """
    rows = len(outputs)
    if rows < 2 or not calls or not outputs.requires_grad:
        return set()
    # powers of two round nothing; sixteen of them, not to leave the range of a half
    weights = torch.exp2(torch.arange(rows, device=outputs.device) % 16 - 8.0)
    # no two outputs of a row alike, as a softmax does not notice a common one
    width = outputs[0].numel()
    plain = torch.linspace(0.5, 1, width, device=outputs.device).expand(rows, width)
    edges = [call.output for call in calls]
    one, other = (
        gradients(outputs, edges, direction.reshape(outputs.shape), retain=True)
        for direction in (plain, plain * weights[:, None])
    )
    return {
        name
        for call, g, weighed in zip(calls, one, other, strict=True)
        if g is not None and weighed is not None and not _weighed(g, weighed, weights)
        for name in call.rules
    }


def _weighed(gradient: Tensor, found: Tensor, weights: Tensor) -> bool:
    expected = gradient.float().reshape(len(weights), -1) * weights[:, None]
    largest = expected.abs().amax(dim=1, keepdim=True)
    # a wrong row is off by half of its gradient or more
    bound = 0.1 * largest + 1e-6 * weights[:, None] * gradient.float().abs().max()
    wrong: Tensor = (found.float().reshape(expected.shape) - expected).abs() > bound
    return not bool(wrong.any())


_Use = tuple[Rule, Tensor, Tensor]


def _squares(uses: list[_Use]) -> Tensor:
    """Sum over rows of squared per-example gradients of one parameter, flat."""
    rule, inputs, gradient = uses[0]
    if len(uses) == 1:
        direct = rule.squares(inputs, gradient)
        if direct is not None:
            return direct
    chunk = CHUNK.get(gradient.device.type, CHUNK["other"])
    rows = max(1, chunk // max(max(r.size(x, g), 1) for r, x, g in uses))
    total: Tensor | None = None
    for start in range(0, len(gradient), rows):
        part = slice(start, start + rows)
        values = rule.per_example(inputs[part], gradient[part])
        for other, x, g in uses[1:]:
            values = values + other.per_example(x[part], g[part])
        values = values.flatten(1)
        if total is None:
            total = values.new_zeros(values.shape[1])
        if len(values) == 1:
            total.addcmul_(values[0], values[0])
        else:
            total += values.square().sum(dim=0)
    assert total is not None
    return total


def _named(parameters: Mapping[str, Tensor]) -> str:
    names = sorted(parameters)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'goes' if len(names) == 1 else 'go'}"
