"""A version's model from the constructor's name and arguments that its manifest keeps as data."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from perennial.errors import PerennialError, RegistryError

if TYPE_CHECKING:
    from torch import Tensor, nn

OURS = "perennial.models."
_TOLD = 500  # characters of a reason, which may repeat an argument
_SPARE = 64  # parameters that a constructor may make and put others in the place of


@runtime_checkable
class Recorded(Protocol):
    """A model that reads something elsewhere when it is founded, which its versions then keep."""

    def recorded(self) -> dict[str, Any]:
        """Arguments, as plain values, with which the constructor reads nothing elsewhere."""
        ...


def rebuild(
    constructor: Mapping[str, Any],
    *,
    weights: Mapping[str, Tensor],
    allow: Iterable[str],
    ref: str,
    how: str,
) -> nn.Module:
    """Build a version's model and put its weights into it.

    A version names its model's class but is never trusted to choose what is imported: a class
    that is not Perennial's own is built only if it is allowed.

    Args:
        constructor: ``target`` and ``arguments`` of the manifest, and ``head`` where new classes
            made the output layer wider than the arguments say; ``recorded``, arguments that hold
            what the model read elsewhere when it was founded; ``adapter``, its factors.
        weights: The version's, of which a model of ours may not be larger.
        allow: Import paths of the user's own classes that may be built.
        ref: The version, for messages.
        how: How to allow ``{target}``, for messages.

    Raises:
        RegistryError: The class is not allowed, not there, no module, takes other arguments, or
            does not fit the weights.
    """
    from torch import nn

    from perennial.models.adapter import Adapter, adapt
    from perennial.models.head import Head, grow

    target = str(constructor["target"])
    if not target.startswith(OURS) and target not in set(allow):
        raise RegistryError(
            f"{ref} is a {target}, which is not built unless you allow it.",
            where=ref,
            mend=how.format(target=target) + ", if you trust that class",
        )
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RegistryError(
            f"{ref} is a {target}, which cannot be imported: {error}.",
            where=ref,
            mend="run where its module lies, or install the package that holds it",
        ) from error
    ours = target not in set(allow)  # what a module of ours merely imported is not ours
    is_module = inspect.isclass(found) and issubclass(found, nn.Module)
    if not is_module or (ours and not found.__module__.startswith(OURS)):
        raise RegistryError(
            f"{ref} names {target}, which is no torch.nn.Module.",
            where=ref,
            mend="restore the version from a copy",
        )
    head, adapter = constructor.get("head"), constructor.get("adapter")
    recorded = constructor.get("recorded") or {}
    if hasattr(found, "recorded") and not recorded:
        raise RegistryError(
            f"{ref} does not hold what a {target} is built of, which is read nowhere else.",
            where=ref,
            mend="restore the version from a copy",
        )
    arguments = {**constructor["arguments"], **recorded}
    try:
        if ours:
            _refuse_longer(constructor["arguments"], weights)
            _refuse_larger(found, arguments, weights)
        model: nn.Module = found(**arguments)
        wide = max((head or {}).get("outputs", 0), (adapter or {}).get("rank", 0))
        if wide > sum(value.numel() for value in weights.values()):
            raise ValueError(f"a layer of {wide:,} is wider than all that is stored")
        if head is not None:
            # any seed: weights are loaded over what is drawn here
            grow(model, Head(**head), seed=0)
        if adapter is not None:
            adapt(model, Adapter(**adapter))
    except Exception as error:
        # the class is foreign code: whatever it raises is the reason
        raise RegistryError(
            f"{target} could not be built with the arguments of {ref}: {_reason(error)}.",
            where=ref,
            mend="use the code that the version was trained with",
        ) from error
    _put(model, weights, ref=ref)
    return model


def _refuse_longer(arguments: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Refuse lists of more sizes than there are tensors that they could be of."""
    for name, value in arguments.items():
        if isinstance(value, list) and len(value) > len(weights) + _SPARE:
            raise ValueError(
                f"{name} lists {len(value):,} sizes, and {len(weights):,} tensors are stored"
            )


def _refuse_larger(
    found: Callable[..., nn.Module], arguments: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> None:
    """Try the constructor where nothing is allocated: arguments may claim any size or depth."""
    import torch
    from torch.nn.modules.module import register_module_parameter_registration_hook

    stored = sum(value.numel() for value in weights.values())
    claimed = tensors = 0

    def count(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        nonlocal claimed, tensors
        claimed += 0 if parameter is None else parameter.numel()
        tensors += parameter is not None
        # a constructor may register a weight again to tie it
        if claimed > 2 * stored:
            raise ValueError(
                f"they make a larger model than the {stored:,} numbers that are stored"
            )
        # a layer without a number takes memory and time as well
        if tensors > 2 * len(weights) + _SPARE:
            raise ValueError(f"they make more layers than the {len(weights):,} tensors are of")

    handle = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            found(**arguments)
    finally:
        handle.remove()


def _reason(error: Exception) -> str:
    what = error.what.rstrip(".") if isinstance(error, PerennialError) else str(error)
    return f"{what[:_TOLD]} …" if len(what) > _TOLD else what or type(error).__name__


def _put(model: nn.Module, weights: Mapping[str, Tensor], *, ref: str) -> None:
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise RegistryError(
            f"The weights of {ref} do not fit {type(model).__name__} as it is now: {error}",
            where=ref,
            mend="use the code that the version was trained with",
        ) from error
