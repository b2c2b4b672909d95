"""A version's model from the constructor's name and arguments that its manifest keeps as data."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from perennial.errors import PerennialError, RegistryError

if TYPE_CHECKING:
    from torch import Tensor, nn

OURS = "perennial.models."


@runtime_checkable
class Recorded(Protocol):
    """A model that reads something elsewhere when it is founded, which its versions then keep."""

    def recorded(self) -> dict[str, Any]:
        """Arguments, as plain values, with which the constructor reads nothing elsewhere."""
        ...


def rebuild(
    constructor: Mapping[str, Any], *, allow: Iterable[str], ref: str, how: str
) -> nn.Module:
    """Build a version's model, without its weights.

    A version names its model's class but is never trusted to choose what is imported: a class
    that is not Perennial's own is built only if it is allowed.

    Args:
        constructor: ``target`` and ``arguments`` of the manifest, and ``head`` where new classes
            made the output layer wider than the arguments say; ``recorded``, arguments that hold
            what the model read elsewhere when it was founded; ``adapter``, its factors.
        allow: Import paths of the user's own classes that may be built.
        ref: The version, for messages.
        how: How to allow ``{target}``, for messages.

    Raises:
        RegistryError: The class is not allowed, not there, no module, or takes other arguments.
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
    try:
        model: nn.Module = found(**{**constructor["arguments"], **recorded})
        if head is not None:
            # any seed: weights are loaded over what is drawn here
            grow(model, Head(**head), seed=0)
        if adapter is not None:
            adapt(model, Adapter(**adapter))
        return model
    except Exception as error:
        # the class is foreign code: whatever it raises is the reason
        raise RegistryError(
            f"{target} could not be built with the arguments of {ref}: {_reason(error)}.",
            where=ref,
            mend="use the code that the version was trained with",
        ) from error


def _reason(error: Exception) -> str:
    return error.what.rstrip(".") if isinstance(error, PerennialError) else str(error)


def put_weights(model: nn.Module, weights: Mapping[str, Tensor], *, ref: str) -> None:
    """Load a version's weights into the model that was rebuilt for it.

    Raises:
        RegistryError: The class has changed since, so that they do not fit.
    """
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise RegistryError(
            f"The weights of {ref} do not fit {type(model).__name__} as it is now: {error}",
            where=ref,
            mend="use the code that the version was trained with",
        ) from error
