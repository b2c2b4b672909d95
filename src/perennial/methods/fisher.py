"""The diagonal of the Fisher information, exactly and layer by layer.

For each parameter the mean over rows of the *squared per-example* gradient of log p(y|x), formed
from a layer's inputs and the gradient at its output, so that no per-example gradient of the whole
model is ever stored. What no layer's rule accounts for goes row by row, for those parameters only.

Shapes: B rows, C classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from perennial.errors import ConfigError, MethodError
from perennial.methods.layers import Rule, mixes_rows
from perennial.methods.recording import Call, given_to_all_rows, recording, unaccounted
from perennial.types import Batch, Strings

# elements formed at a time: on a CPU what stays in its cache, elsewhere 64 MiB
CHUNK = {"cpu": 1 << 19, "other": 1 << 24}
KINDS = ("sampled", "true", "empirical")


def diagonal_fisher(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    logits: Callable[[Any], Tensor],
    kind: str = "sampled",
    seed: int = 0,
    max_classes: int = 100,
    targets: Callable[[Any], Tensor] | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Tensor], int]:
    """Mean over rows of per-example squared gradients of log p(y|x).

    Linear, convolution, embedding, layer, batch, group and RMS norm layers and self-attention go
    layer by layer, at the cost of about one plain epoch; parameters shared between them are summed
    before squaring. Parameters that are used in any other way go row by row, which costs about as
    much as training on single rows.

    Estimated in evaluation mode; modes, buffers, generators, gradients and requirements of
    gradients are left as they were.

    Args:
        model: Rows come first in its inputs.
        batches: Rows on the model's device.
        logits: Batch data to logits (B, C), through ``model``.
        kind: ``sampled`` draws the label from the model's own distribution by hash(seed, row id),
            whatever the order, batch size or rank; ``true`` takes the expectation over all
            classes; ``empirical`` the observed label.
        seed: Of the draws.
        max_classes: Largest C for ``true``.
        targets: Batch data to observed labels (B,), for ``empirical``.
        warn: Told which parameters go row by row.

    Returns:
        Float32 tensors by parameter name, and the number of rows.

    Raises:
        ConfigError: The kind is unknown, or ``true`` with more classes than ``max_classes``.
        MethodError: There are no rows, a row has no gradient of its own, a trainable parameter has
            no part in the output, or a value is not finite.
    """
    if kind not in KINDS:
        raise ConfigError(
            f"{kind!r} is no kind of Fisher.",
            where="method.ewc.fisher",
            mend=f"use {', '.join(KINDS)}",
        )
    _refuse_mixed_rows(model)
    work = _Work(model, logits)
    count = 0
    with _evaluating(model):
        for batch in batches:
            if count == 0 and work.probe(batch):
                warn(f"Fisher: {_named(work.by_row)} row by row, which is slower")
            with (
                torch.enable_grad(),
                recording(model, work.layered, shared=work.shared, rows=len(batch)) as calls,
            ):
                log_p = F.log_softmax(logits(batch.data).float(), dim=1)
            for weight_B, label_B in _labels(log_p, batch, kind, seed, max_classes, targets):
                work.add_layers(log_p, calls, label_B, weight_B)
                work.add_rows(batch.data, label_B, weight_B)
            count += len(batch)
    if count == 0:
        raise MethodError(
            "The Fisher needs rows, and there are none.",
            where="method.ewc",
            mend="give data.history=PATH, or leave ewc out",
        )
    return {name: value / count for name, value in work.finished().items()}, count


@dataclass
class _Work:
    """Sums of squares under way.

    Attributes:
        model: The model.
        logits: Batch data to logits (B, C), through it.
        sums: By parameter name.
        layered: ``id`` to name of the parameters that layers' rules account for.
        by_row: The others, by name.
        touched: Names that got a contribution.
        shared: Embeddings of positions, which give one output for all rows.
    """

    model: nn.Module
    logits: Callable[[Any], Tensor]
    sums: dict[str, Tensor] = field(default_factory=dict)
    layered: dict[int, str] = field(default_factory=dict)
    by_row: dict[str, Tensor] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    shared: frozenset[nn.Module] = frozenset()

    def __post_init__(self) -> None:
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                self.sums[name] = torch.zeros_like(
                    parameter, dtype=torch.float32, memory_format=torch.contiguous_format
                )
                self.layered[id(parameter)] = name

    def probe(self, batch: Batch) -> bool:
        """Find out on one row, and on two, which parameters need to go row by row.

        Two sizes, since the length of a sequence may happen to be that of a batch.
        """
        parameters = dict(self.model.named_parameters())
        odd: set[str] = set()
        seen = []
        for rows in (1, 2):
            log_p, calls = self._forward(batch, rows)
            if not log_p.requires_grad:
                return False
            odd |= unaccounted(log_p, calls, self.layered, rows)
            seen.append(calls)
        if shared := given_to_all_rows(*seen):
            odd = self._believe(shared, batch, log_p, odd)
        self.by_row = {name: parameters[name] for name in parameters if name in odd}
        self.layered = {i: name for i, name in self.layered.items() if name not in odd}
        return bool(self.by_row)

    def _believe(
        self, shared: frozenset[nn.Module], batch: Batch, log_p: Tensor, odd: set[str]
    ) -> set[str]:
        """Repeat what all rows share, where that changes nothing; what is odd then."""
        self.shared = shared
        try:
            again, calls = self._forward(batch, 2)
        except (RuntimeError, ValueError, IndexError, TypeError):
            again, calls = log_p[:0], []
        if again.shape == log_p.shape and torch.allclose(again, log_p, atol=1e-5):
            explained = {name for call in calls if call.layer in shared for name in call.rules}
            return (odd - explained) | unaccounted(again, calls, self.layered, 2)
        self.shared = frozenset()
        return odd

    def _forward(self, batch: Batch, rows: int) -> tuple[Tensor, list[Call]]:
        """The first rows of a batch."""
        data = _taken(batch.data, torch.arange(rows) % len(batch))
        with (
            torch.enable_grad(),
            recording(self.model, self.layered, shared=self.shared, rows=rows) as calls,
        ):
            return F.log_softmax(self.logits(data).float(), dim=1), calls

    def add_layers(
        self, log_p: Tensor, calls: list[Call], label_B: Tensor, weight_B: Tensor | None
    ) -> None:
        """Squares of every parameter that layers' rules account for."""
        if not calls:
            return
        chosen = log_p.gather(1, label_B[:, None]).sum()
        outputs = [call.output for call in calls]
        gradients = _gradients(chosen, outputs, retain=True)
        # uses of one parameter, in one layer called twice or in two that share it, are summed per
        # example before they are squared
        uses: dict[str, list[_Use]] = {}
        for call, gradient in zip(calls, gradients, strict=True):
            if gradient is None:
                continue
            inputs = call.inputs.float() if call.inputs.is_floating_point() else call.inputs
            for name, rule in call.rules.items():
                uses.setdefault(name, []).append((rule, inputs, gradient.float()))
        with torch.no_grad():
            for name, found in uses.items():
                self.sums[name] += _squares(found, weight_B).view_as(self.sums[name])
                self.touched.add(name)

    def add_rows(self, data: Any, label_B: Tensor, weight_B: Tensor | None) -> None:
        """Squares of the other parameters, by the gradient of one row at a time."""
        if not self.by_row:
            return
        for row in range(len(label_B)):
            index = torch.tensor([row])
            with torch.enable_grad():
                log_p = F.log_softmax(self.logits(_taken(data, index)).float(), dim=1)
                gradients = _gradients(log_p[0, label_B[row]], list(self.by_row.values()))
            for name, gradient in zip(self.by_row, gradients, strict=True):
                if gradient is not None:
                    squares = gradient.float().square()
                    self.sums[name] += squares if weight_B is None else weight_B[row] * squares
                    self.touched.add(name)

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


_Use = tuple[Rule, Tensor, Tensor]


def _squares(uses: list[_Use], weight_B: Tensor | None) -> Tensor:
    """Sum over rows of squared per-example gradients of one parameter, flat."""
    rule, inputs, gradient = uses[0]
    if len(uses) == 1:
        direct = rule.squares(inputs, gradient, weight_B)
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
            share = 1.0 if weight_B is None else float(weight_B[start])
            total.addcmul_(values[0], values[0], value=share)
            continue
        squares = values.square()
        if weight_B is not None:
            squares *= weight_B[part, None]
        total += squares.sum(dim=0)
    assert total is not None
    return total


def _gradients(
    value: Tensor, inputs: list[Any], *, retain: bool = False
) -> tuple[Tensor | None, ...]:
    try:
        return torch.autograd.grad(value, inputs, retain_graph=retain, allow_unused=True)
    except RuntimeError as error:
        raise MethodError(
            f"The model's gradient cannot be formed: {str(error).splitlines()[0]}",
            where="method.ewc",
            mend="write operations that change a tensor in place out of place, or leave ewc out",
        ) from error


def _taken(data: Any, index: Tensor) -> Any:
    """Rows of a batch's data, whatever containers it is made of."""
    return tree_map(lambda v: v[index.to(v.device)] if isinstance(v, Tensor) else v, data)


def _named(by_row: Mapping[str, Tensor]) -> str:
    names = sorted(by_row)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'goes' if len(names) == 1 else 'go'}"


def _refuse_mixed_rows(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if mixes_rows(module):
            raise MethodError(
                f"Batch norm {name!r} has no running statistics and mixes rows, so a row has no "
                "gradient of its own.",
                where=type(model).__name__,
                mend="build it with track_running_stats=True, or leave ewc out (method=replay)",
            )


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
