"""Weights to the dtypes of the model they are for, without spoiling a value."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from perennial.errors import CheckpointError


def converted(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, where: str
) -> dict[str, Tensor]:
    """Weights in the model's dtypes.

    Args:
        found: Under the model's names, of its shapes.
        wanted: The model's.
        where: Shown in messages.

    Raises:
        CheckpointError: A value is not finite, or would become another: complex or whole numbers
            for real ones, a share for a whole number, a number too large for the dtype.
    """
    return {name: _as(found[name], value, name, where) for name, value in wanted.items()}


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors with values that are not finite."""
    return [name for name, value in tensors.items() if not _is_finite(value)]


def _as(value: Tensor, like: Tensor, name: str, where: str) -> Tensor:
    if not _is_finite(value):
        raise CheckpointError(
            f"The checkpoint's {name!r} holds values that are not finite.",
            where=where,
            mend="it was saved after training had diverged; use an earlier one",
        )
    result = value.to(like.dtype) if _kind(value) == _kind(like) else _exactly(value, like)
    if result is None:
        raise CheckpointError(
            f"The checkpoint's {name!r} is {_told(value)}, and the model's is {_told(like)}: other "
            "values would come of it.",
            where=where,
            mend="save the weights as the model has them; quantised ones dequantised first",
        )
    if not _is_finite(result) or (_kind(like) == "whole" and not torch.equal(result, value)):
        raise CheckpointError(
            f"The checkpoint's {name!r} holds values too large for {_told(like)}.",
            where=where,
            mend="build the model in the dtype it was trained in, or save what it can hold",
        )
    return result


def _exactly(value: Tensor, like: Tensor) -> Tensor | None:
    """A count that was saved as a real number, if it is whole; nothing else is as good as equal."""
    if (_kind(value), _kind(like)) != ("real", "whole"):
        return None
    result = value.to(like.dtype)
    return result if torch.equal(result.to(value.dtype), value) else None


def _kind(value: Tensor) -> str:
    if value.is_complex():
        return "complex"
    if value.is_floating_point():
        return "real"
    return "flag" if value.dtype == torch.bool else "whole"


def _told(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _is_finite(value: Tensor) -> bool:
    # float8 has no kernel of its own for this
    small = value.is_floating_point() and value.element_size() == 1
    return bool(torch.isfinite(value.float() if small else value).all())
