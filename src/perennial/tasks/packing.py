"""Several documents in one row of fixed length, none of which sees another.

Shapes: D documents, T their longest, R rows of length L, V tokens of the vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perennial.errors import ConfigError

WHERE = "task.pack"
# logits that differ by more than this share of their spread have seen something else
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class Packing:
    """Where each token of D documents lies.

    Attributes:
        place: Position in the flattened rows (D, T), 0 at padding.
        used: Which positions of the documents hold a token (D, T).
        rows: R.
        length: L.
    """

    place: Tensor
    used: Tensor
    rows: int
    length: int

    def packed(self, values: Tensor) -> Tensor:
        """Values of tokens (D, T) as rows (R, L), 0 where no document lies."""
        flat = values.new_zeros(self.rows * self.length)
        flat[self.place[self.used]] = values[self.used]
        return flat.reshape(self.rows, self.length)

    def unpacked(self, values: Tensor) -> Tensor:
        """What the rows gave (R, L, V), by document (D, T, V); at padding it means nothing."""
        return values.flatten(0, 1)[self.place]

    def positions(self) -> Tensor:
        """Position of each token in its document (R, L), from 0."""
        return self.packed(
            torch.arange(self.used.shape[1], device=self.place.device).expand_as(self.place)
        )

    def visible(self, dtype: torch.dtype) -> Tensor:
        """What is added to attention's scores (R, 1, L, L).

        0 for the same document's past, else the least number; each position sees itself, so that no
        row of it is empty.
        """
        number = torch.arange(1, len(self.place) + 1, device=self.place.device)
        owner = self.packed(number[:, None].expand_as(self.place))
        same = owner[:, :, None] == owner[:, None, :]
        seen = same.tril() & (owner != 0)[:, :, None]
        seen |= torch.eye(self.length, dtype=torch.bool, device=owner.device)
        least = torch.finfo(dtype).min
        return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, least)[:, None]


def first_fit(lengths: Sequence[int], *, length: int) -> tuple[list[tuple[int, int]], int]:
    """Row and start of each document, and the number of rows, by first fit, longest first.

    It needs at most 11/9 of the least possible number of rows and one more (Johnson, 1973).

    Args:
        lengths: Of the documents, in tokens.
        length: Of a row.

    Raises:
        ConfigError: A document is longer than a row.

    >>> first_fit([3, 5, 2], length=6)
    ([(1, 0), (0, 0), (1, 3)], 2)
    """
    if lengths and max(lengths) > length:
        raise ConfigError(
            f"A document has {max(lengths)} tokens, and a packed row {length}.",
            where=WHERE,
            mend="give at least as many as the longest document has (data.preprocess.max_length)",
        )
    filled: list[int] = []
    found = [(0, 0)] * len(lengths)
    for index in sorted(range(len(lengths)), key=lambda one: -lengths[one]):
        row = next((r for r, used in enumerate(filled) if used + lengths[index] <= length), None)
        if row is None:
            row = len(filled)
            filled.append(0)
        found[index] = (row, filled[row])
        filled[row] += lengths[index]
    return found, len(filled)


def packing(used: Tensor, *, length: int) -> Packing:
    """How to pack documents.

    Args:
        used: Which positions (D, T) hold a token: the first ones of each document.
        length: Of a row.

    Raises:
        ConfigError: A document is too long, or does not begin at its row's first position.
    """
    lengths = used.sum(dim=1)
    along = torch.arange(used.shape[1], device=used.device)
    if bool((used != (along < lengths[:, None])).any()):
        raise ConfigError(
            "A document has padding before or between its tokens.",
            where=WHERE,
            mend="fill documents up on the right",
        )
    places, rows = first_fit(lengths.tolist(), length=length)
    start = torch.tensor([row * length + at for row, at in places], device=used.device)
    return Packing(((start[:, None] + along) * used).long(), used, rows, length)


def through(
    call: Callable[[Mapping[str, Tensor]], Tensor],
    columns: Mapping[str, Tensor],
    packed: Packing,
    *,
    mask: str | None,
    names: frozenset[str] | None,
    dtype: torch.dtype,
) -> Tensor:
    """Logits (D, T, V) of documents that went through a model packed.

    Args:
        call: Columns (R, L) to logits (R, L, V).
        columns: Of the documents (D, T), the mask among them.
        packed: Where they lie.
        mask: Name under which the model takes the mask, in place of the documents' own.
        names: What the model takes; None for any name.
        dtype: Of the mask.

    Raises:
        ConfigError: A column has no value for each token.
    """
    inputs = {}
    for name, values in columns.items():
        if values.shape != packed.used.shape:
            raise ConfigError(
                f"Column {name!r} is {tuple(values.shape)}, and cannot be packed beside tokens "
                f"{tuple(packed.used.shape)}.",
                where=f"{WHERE}, data.features",
                mend="leave it out of data.features, or set task.pack=null",
            )
        if name != mask:
            inputs[name] = packed.packed(values)
    if names is None or "position_ids" in names:
        inputs["position_ids"] = packed.positions()
    if mask is not None and (names is None or mask in names):
        inputs[mask] = packed.visible(dtype)
    return packed.unpacked(call(inputs))


def accepted(model: nn.Module) -> frozenset[str] | None:
    """Names that a model's ``forward`` takes; None where it takes any."""
    parameters = inspect.signature(model.forward).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        # transformers' models name what they use, and pass the rest on
        return None
    return frozenset(parameters)


def floating(model: nn.Module) -> torch.dtype:
    """The dtype that a model computes in."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


@contextmanager
def quietly(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; each module's mode is then what it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def same_logits(alone: Tensor, packed: Tensor, used: Tensor) -> bool:
    """Whether logits (D, T, V) agree at the documents' tokens, up to the dtype's rounding."""
    a, b = alone[used].double(), packed[used].double()
    spread = (a - a.mean(dim=0)).abs().max()
    return bool((a - b).abs().max() <= TOLERANCE[alone.dtype] * spread.clamp(min=1e-6))
