"""Learning rates by parameter, and the optimizer over those that train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from perennial.errors import ConfigError
from perennial.models.freezing import dead_pattern

OptimizerFactory = Callable[..., Optimizer]
OWN = ("layer_decay", "groups", "replace")


@dataclass(frozen=True)
class Grouped:
    """An optimizer's constructor with rates by parameter.

    Attributes:
        factory: Partial of the constructor, with ``lr``.
        layer_decay: Each layer's rate is this share, in (0, 1], of the next one's; see `depths`.
            None gives all layers one rate.
        groups: Settings by pattern: ``pattern`` of parameter names, and what the optimizer takes
            for a group (``lr``, ``weight_decay``), instead of the general ones. The first pattern
            that meets a name counts; its ``lr`` is taken as it is, without decay.
        replace: Whether a LightningModule's own ``configure_optimizers`` is replaced.
    """

    factory: OptimizerFactory
    layer_decay: float | None = None
    groups: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    replace: bool = False

    def __post_init__(self) -> None:
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ConfigError(
                f"optimizer.layer_decay is {self.layer_decay}.",
                where="optimizer.layer_decay",
                mend="give a share from above 0 to 1, 0.9 for instance, or null",
            )
        for group in self.groups:
            if not isinstance(group, Mapping) or "pattern" not in group or len(group) < 2:
                raise ConfigError(
                    f"A group of parameters is {group!r}.",
                    where="optimizer.groups",
                    mend="give each a pattern and what is different: {pattern: head.*, lr: 0.01}",
                )

    @property
    def by_parameter(self) -> bool:
        """Whether parameters differ in their settings at all."""
        return self.layer_decay is not None or bool(self.groups)

    def __call__(self, parameters: Any, **settings: Any) -> Optimizer:
        """What the constructor makes."""
        return self.factory(parameters, **settings)


def learning_rate(factory: OptimizerFactory) -> float | None:
    """The rate that a partial of an optimizer's constructor carries, if any."""
    inner = factory.factory if isinstance(factory, Grouped) else factory
    rate = getattr(inner, "keywords", {}).get("lr")
    return None if rate is None else float(rate)


def build_optimizer(factory: OptimizerFactory, model: nn.Module, lr: float | None) -> Optimizer:
    """An optimizer over the parameters that train, with ``lr`` replaced where it is given.

    Raises:
        ConfigError: The optimizer refuses its settings, nothing trains, or a pattern meets nothing.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = parameter_groups(factory, model, lr) if _by_parameter(factory) else None
    try:
        trainable = [parameter for _, parameter in named] if groups is None else groups
        return factory(trainable) if lr is None else factory(trainable, lr=lr)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"The optimizer could not be built: {error}.",
            where="optimizer",
            mend="check the settings under optimizer in --cfg job",
        ) from error


def parameter_groups(
    factory: OptimizerFactory, model: nn.Module, lr: float | None
) -> list[dict[str, Any]]:
    """The trainable parameters in groups of equal settings, in the order of the model.

    Raises:
        ConfigError: A pattern meets no parameter that trains, or none that an earlier one leaves
            to it; layers cannot be told apart, or one alone trains; or there is no rate to be
            decayed.
    """
    assert isinstance(factory, Grouped)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    names = [name for name, _ in named]
    first = (next((g for g in factory.groups if fnmatchcase(n, g["pattern"])), {}) for n in names)
    counting = {group.get("pattern") for group in first}
    for group in factory.groups:
        if not any(fnmatchcase(name, group["pattern"]) for name in names):
            raise dead_pattern(group["pattern"], names, where="optimizer.groups")
        if group["pattern"] not in counting:
            raise ConfigError(
                f"Every parameter that {group['pattern']!r} meets is met by an earlier pattern.",
                where="optimizer.groups",
                mend="put the narrower pattern first, or take this one out",
            )
        _try(factory.factory, {key: value for key, value in group.items() if key != "pattern"})
    rates = {} if factory.layer_decay is None else _decayed(model, lr, factory.layer_decay)
    found: dict[tuple[tuple[str, Any], ...], list[nn.Parameter]] = {}
    for name, parameter in named:
        own = next((g for g in factory.groups if fnmatchcase(name, g["pattern"])), {})
        settings = {"lr": rates[name]} if name in rates else {}
        settings |= {key: value for key, value in own.items() if key != "pattern"}
        key = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in settings.items())
        found.setdefault(key, []).append(parameter)
    return [{"params": parameters, **dict(key)} for key, parameters in found.items()]


def depths(model: nn.Module) -> dict[str, int]:
    """Layer of each parameter, counted from the input.

    The model's stack is its longest ``ModuleList`` or ``Sequential``, counted in children that
    hold parameters. What is registered before it (embeddings) is layer 0, its children are layers
    1 to L, and what comes after it (pooler, output) is layer L + 1.

    Raises:
        ConfigError: No stack has two layers.
    """
    stacks = {
        name: [
            f"{name}.{child}".lstrip(".") for child, layer in module.named_children() if _has(layer)
        ]
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
    }
    longest = max(stacks.values(), key=len, default=[])
    if len(longest) < 2:
        raise ConfigError(
            f"The layers of {type(model).__name__} cannot be told apart: it holds no ModuleList or "
            "Sequential of two or more layers with parameters.",
            where="optimizer.layer_decay",
            mend="give rates by pattern: optimizer.groups=[{pattern: encoder.*, lr: 0.0001}]",
        )
    found, met = {}, 0
    for name, _ in model.named_parameters():
        inside = [n for n, layer in enumerate(longest, 1) if name.startswith(f"{layer}.")]
        met = max([met, *inside])
        found[name] = inside[0] if inside else (len(longest) + 1 if met else 0)
    return found


def _decayed(model: nn.Module, lr: float | None, decay: float) -> dict[str, float]:
    if lr is None:
        raise ConfigError(
            "There is no learning rate that could be decayed from layer to layer.",
            where="optimizer.layer_decay",
            mend="set optimizer.lr",
        )
    layers = depths(model)
    if len({layers[name] for name, p in model.named_parameters() if p.requires_grad}) < 2:
        raise ConfigError(
            f"Parameters of one layer of {type(model).__name__} train, so that no rate decays.",
            where="optimizer.layer_decay, model.freeze",
            mend="set optimizer.layer_decay=null, or freeze fewer layers",
        )
    last = max(layers.values())
    return {name: lr * decay ** (last - layer) for name, layer in layers.items()}


def _try(factory: OptimizerFactory, settings: Mapping[str, Any]) -> None:
    # an optimizer checks its arguments, and takes anything for a group
    try:
        factory([nn.Parameter(torch.zeros(1))], **settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"The optimizer refuses {dict(settings)} for a group of parameters: {error}.",
            where="optimizer.groups",
            mend="give what the optimizer's constructor takes",
        ) from error


def _by_parameter(factory: OptimizerFactory) -> bool:
    return isinstance(factory, Grouped) and factory.by_parameter


def _has(layer: nn.Module) -> bool:
    return any(True for _ in layer.parameters())
