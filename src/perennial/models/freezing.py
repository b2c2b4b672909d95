"""Parameters that do not train, by the patterns of their names."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from perennial.errors import ConfigError

_SHOWN = 6


def freeze(model: nn.Module, patterns: Sequence[str], *, where: str = "model.freeze") -> list[str]:
    """Take parameters out of training; returns their names.

    A batch norm, or an instance norm that tracks statistics, whose parameters are all frozen also
    keeps its running statistics, see `keep_statistics`.

    Args:
        model: Changed in place.
        patterns: Shell patterns of parameter names, ``encoder.*``.
        where: The setting, for messages.

    Raises:
        ConfigError: A pattern meets no parameter, or none is left to train.
    """
    names = matched(model, patterns, where=where)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in names:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            "Every parameter is frozen, so that nothing can be learned.",
            where=where,
            mend="leave at least the output layer out",
        )
    if names:
        keep_statistics(model)
    return sorted(names)


def matched(model: nn.Module, patterns: Sequence[str], *, where: str) -> set[str]:
    """Names of the parameters that any of the patterns meets.

    Raises:
        ConfigError: A pattern meets none.
    """
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    found: set[str] = set()
    for pattern in patterns:
        met = {name for name in names if fnmatchcase(name, pattern)}
        if not met:
            raise dead_pattern(pattern, names, where=where)
        found |= met
    return found


def dead_pattern(pattern: str, names: Sequence[str], *, where: str) -> ConfigError:
    """The error for a pattern that meets no parameter."""
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return ConfigError(
        f"The pattern {pattern!r} meets no parameter.",
        where=where,
        mend=f"patterns are of whole names, as encoder.*; the model has {shown or 'none'}",
    )


def keep_statistics(model: nn.Module) -> None:
    """Keep the running statistics of norms whose own parameters are all frozen.

    Such a norm stays in evaluation mode whatever mode the model is set to, since what is frozen is
    to stay what it was.

    Args:
        model: Changed in place.
    """
    for layer in model.modules():
        own = list(layer.parameters(recurse=False))
        # batch norms and instance norms
        tracks = isinstance(layer, _NormBase) and layer.running_mean is not None
        if tracks and own and not any(p.requires_grad for p in own):
            layer.eval()
            # whoever calls train() on the whole model, Lightning or the user's own code, comes here
            layer.train = _Stays(layer)  # type: ignore[method-assign]


class _Stays:
    """Stands in for a layer's ``train``, and changes nothing."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, mode: bool = True) -> nn.Module:
        return self.layer
