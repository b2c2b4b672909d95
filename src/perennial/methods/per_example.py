"""Per-example gradients of any parameters, through the model as a whole.

For what no layer's rule explains: in chunks of rows by `torch.func`, and one row at a time where a
model refuses that, as it does with control flow that depends on values, autograd functions of its
own, random operations, or some recurrent layers.

Shapes: B rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from perennial.errors import MethodError

# elements of per-example gradients formed at a time, 8 MiB on a CPU and 256 MiB elsewhere: on a
# CPU twice that was no faster, and eight times that slower than single rows
CHUNK = {"cpu": 1 << 21, "other": 1 << 26}


@dataclass
class PerExample:
    """Squares of per-example gradients of some of a model's parameters.

    Attributes:
        model: In evaluation mode.
        outputs: Batch data to outputs (B, ...), through ``model``.
        parameters: The wanted ones, by name.
        used: Names that had a part in the outputs.
        refusal: Why rows go one at a time; empty while they go in chunks.
    """

    model: nn.Module
    outputs: Callable[[Any], Tensor]
    parameters: Mapping[str, Tensor]
    used: set[str] = field(default_factory=set)
    refusal: str = ""

    def probe(self, data: Any, direction_B: Tensor) -> None:
        """Find out whether chunks work here: they do where they give what single rows give.

        Args:
            data: Of a few rows; a forward may change it.
            direction_B: As in `squares`.
        """
        single: dict[str, Tensor] = {}
        for name, squares in self._one_by_one(data, direction_B, range(len(direction_B))):
            single[name] = single[name] + squares if name in single else squares
        if self._rows < 2:
            self.refusal = "two rows' gradients are larger than a chunk"
            return
        chunked = self._tried(data, direction_B)
        if chunked is not None and not _agree(chunked, single, self.parameters):
            self.refusal = "in chunks the model gives other gradients"

    def squares(self, data: Any, direction_B: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Names with sums over rows of squared gradients of outputs · direction, float32.

        Args:
            data: Of B rows.
            direction_B: Gradient at the outputs, in their shape.

        Yields:
            One name several times: the sums are to be added.

        Raises:
            MethodError: Autograd refuses the model.
        """
        size, count = max(self._rows, 1), len(direction_B)
        for start in range(0, count, size):
            rows = range(start, min(start + size, count))
            found = None
            if not self.refusal and len(rows) > 1:
                found = self._tried(
                    taken(data, torch.tensor(rows)), direction_B[start : start + size]
                )
            if found is None:
                yield from self._one_by_one(data, direction_B, rows)
            else:
                yield from found.items()

    @property
    def _rows(self) -> int:
        elements = sum(parameter.numel() for parameter in self.parameters.values())
        device = next(iter(self.parameters.values())).device.type
        return CHUNK.get(device, CHUNK["other"]) // elements

    def _tried(self, data: Any, direction_B: Tensor) -> dict[str, Tensor] | None:
        """The sums by one chunk; None, and the reason kept, where the model refuses."""
        try:
            return self._chunk(data, direction_B)
        except Exception as error:
            # the model is foreign code under a transformation: whatever it raises is a refusal,
            # and what is wrong in itself is raised again by the single rows
            words = str(error).strip().splitlines() or [type(error).__name__]
            self.refusal = words[0]
            return None

    def _chunk(self, data: Any, direction_B: Tensor) -> dict[str, Tensor]:
        leaves, form = tree_flatten(data)
        is_rows = [isinstance(leaf, Tensor) for leaf in leaves]
        through = _Through(self.model, self.outputs)
        # copies, so that what a forward writes into a buffer is not written into the model's own
        buffers = {f"model.{name}": value.clone() for name, value in self.model.named_buffers()}

        def value(parameters: dict[str, Tensor], row: list[Any], direction: Tensor) -> Tensor:
            single = [
                leaf[None] if whole else leaf for leaf, whole in zip(row, is_rows, strict=True)
            ]
            swapped = {f"model.{name}": tensor for name, tensor in parameters.items()}
            outputs = functional_call(
                through, {**buffers, **swapped}, (tree_unflatten(single, form),)
            )
            total: Tensor = (outputs.float()[0] * direction).sum()
            return total

        per_example = vmap(
            grad(value),
            in_dims=(None, [0 if whole else None for whole in is_rows], 0),
            randomness="error",
        )
        fixed = {name: parameter.detach() for name, parameter in self.parameters.items()}
        with torch.no_grad(), warnings.catch_warnings():
            # an operation without a rule of its own is looped over by torch, which is right
            warnings.filterwarnings("ignore", "There is a performance drop")
            gradients = per_example(fixed, leaves, direction_B)
        return {name: g.float().square().sum(dim=0) for name, g in gradients.items()}

    def _one_by_one(
        self, data: Any, direction_B: Tensor, rows: range
    ) -> Iterator[tuple[str, Tensor]]:
        for row in rows:
            with torch.enable_grad():
                outputs = self.outputs(taken(data, torch.tensor([row]))).float()
                found = gradients(
                    outputs, list(self.parameters.values()), direction_B[row : row + 1]
                )
            for name, gradient in zip(self.parameters, found, strict=True):
                if gradient is not None:
                    self.used.add(name)
                    yield name, gradient.float().square()


class _Through(nn.Module):
    """A forward that runs a function over a model, so that the model's tensors can be swapped."""

    def __init__(self, model: nn.Module, outputs: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.model = model
        # kept from registration: where it is the model itself, its tensors would count twice
        self._outputs = (outputs,)

    def forward(self, data: Any) -> Tensor:
        return self._outputs[0](data)


def gradients(
    outputs: Tensor, inputs: list[Any], direction: Tensor, *, retain: bool = False
) -> tuple[Tensor | None, ...]:
    """Of outputs · direction by the inputs.

    Raises:
        MethodError: Autograd refuses the model.
    """
    try:
        return torch.autograd.grad(
            outputs, inputs, direction, retain_graph=retain, allow_unused=True
        )
    except RuntimeError as error:
        raise MethodError(
            f"The model's gradient cannot be formed: {str(error).splitlines()[0]}",
            where="method.ewc",
            mend="write operations that change a tensor in place out of place, or leave ewc out",
        ) from error


def taken(data: Any, index: Tensor) -> Any:
    """Rows of a batch's data, whatever containers it is made of."""
    return tree_map(lambda v: v[index.to(v.device)] if isinstance(v, Tensor) else v, data)


def rounding(parameter: Tensor) -> float:
    """Largest relative difference that rounding explains between two ways of forming a value."""
    # a GPU may multiply float32 with ten bits of mantissa
    exact = parameter.dtype in (torch.float32, torch.float64) and parameter.device.type == "cpu"
    return 1e-3 if exact else 0.05


def alike(found: Tensor, expected: Tensor, bound: float, *, least: float = 0.0) -> bool:
    """Whether two tensors differ by no more than ``bound`` of the largest expected value.

    Args:
        found: Of any shape.
        expected: Another shape is not alike.
        bound: Relative, as from `rounding`.
        least: Absolute difference that never counts.
    """
    if found.shape != expected.shape:
        return False
    largest = float(expected.abs().nan_to_num(0, 0, 0).max())
    return torch.allclose(found, expected, rtol=0, atol=max(bound * largest, least), equal_nan=True)


def _agree(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], parameters: Mapping[str, Tensor]
) -> bool:
    largest = max((float(v.abs().nan_to_num(0, 0, 0).max()) for v in expected.values()), default=0)
    # a gradient that is zero but for rounding has no digits to agree on
    least = 1e-9 * largest
    return all(
        alike(value, expected[name], rounding(parameters[name]), least=least)
        if name in expected
        else not value.any()
        for name, value in found.items()
    )
