"""Parameter-efficient fine-tuning: LoRA beside the linear layers of any model, by ``peft``.

Shapes: a layer's weight W is (O, I); its factors are B (O, r) and A (r, I), and the layer computes
with W + s·BA. Only BA means something: a factor may be turned by any invertible matrix if the other
is turned back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from perennial.errors import ConfigError
from perennial.models.freezing import keep_statistics, matched

STORES = ("adapter", "merged")
_BASE = ".base_layer."
_A, _B = ".lora_A.", ".lora_B."
_WORST = 1e4  # condition number of a turn that float32 still undoes to four digits


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """LoRA (Hu et al., ICLR 2022) as a configuration has it, and a version's manifest keeps it.

    Args:
        layers: Shell patterns of the names of linear layers that get factors.
        rank: r, at least 1.
        alpha: The product is scaled by alpha / rank.
        dropout: Probability of an input of the factors in training, in [0, 1).
        train: Patterns of parameters that train beside the factors, as they are: the output layer.
        store: ``adapter`` stores factors and what trains, and the base once, by its SHA-256;
            ``merged`` adds the product to the base, so that a version is a plain model.

    Raises:
        ConfigError: A value out of range.
    """

    layers: tuple[str, ...]
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    train: tuple[str, ...] = ()
    store: str = "adapter"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "train", tuple(self.train))
        problems = {
            "layers": not self.layers,
            "rank": self.rank < 1,
            "alpha": not self.alpha > 0,
            "dropout": not 0 <= self.dropout < 1,
            "store": self.store not in STORES,
        }
        for name, wrong in problems.items():
            if wrong:
                raise ConfigError(
                    f"model.adapter.{name} is {getattr(self, name)!r}.",
                    where=f"model.adapter.{name}",
                    mend="layers takes patterns of layers, rank a whole number from 1 up, alpha a "
                    "number above 0, dropout one from 0 to below 1, store adapter or merged",
                )

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def adapt(model: nn.Module, adapter: Adapter) -> list[str]:
    """Put factors beside linear layers, in place; everything else but ``train`` is frozen.

    B starts at 0, so that the model computes what it did, and norms that are frozen keep their
    running statistics. Returns the layers' names.

    Raises:
        ConfigError: ``peft`` is not installed, or a pattern meets no layer or parameter.
    """
    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            "Adapters need peft, which is not installed.",
            where="model.adapter",
            mend="pip install 'perennial[hf]'",
        ) from error
    if isinstance(model, nn.Linear):
        raise ConfigError(
            "The model is one linear layer itself, which can have no factors beside it.",
            where="model.adapter",
            mend="wrap it in a module (torch.nn.Sequential), or train it as it is",
        )
    names = _layers(model, adapter.layers)
    beside = matched(model, adapter.train, where="model.adapter.train")
    inside = [name for name in beside if name.rpartition(".")[0] in names]
    if inside:
        raise ConfigError(
            f"{inside[0]!r} is to train, and its layer gets factors.",
            where="model.adapter.train, model.adapter.layers",
            mend="take the layer out of one of them",
        )
    settings = peft.LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules="|".join(re.escape(name) for name in names),
        bias="none",
    )
    peft.inject_adapter_in_model(settings, model)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in beside:
            parameter.requires_grad_(True)
    keep_statistics(model)
    return names


def merge(model: nn.Module) -> None:
    """Add each product to its layer, and take the factors away, in place."""
    from peft.tuners.lora import LoraLayer

    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge(safe_merge=True)
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An adapted model's tensors without the factors, under the names they had before."""
    return {name.replace(_BASE, "."): value for name, value in state.items() if not is_factor(name)}


def under_adapters(weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Plain weights under the names of an adapted model, whose present factors join them.

    Args:
        weights: Without factors, under plain names.
        state: The adapted model's.
    """
    return {
        name: value if is_factor(name) else weights[name.replace(_BASE, ".")]
        for name, value in state.items()
    }


def is_factor(name: str) -> bool:
    """Whether a tensor is one of the factors."""
    return _A in name or _B in name


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Names of the factors A and B of each layer."""
    return [(name, name.replace(_A, _B)) for name in names if _A in name]


def product_between(
    champion: tuple[Tensor, Tensor], candidate: tuple[Tensor, Tensor], alpha: float
) -> tuple[Tensor, Tensor, float]:
    """Factors of (1 - α)·B₀A₀ + α·B₁A₁ at the factors' own rank.

    The mean of the factors is not the mean of the products. The mean of the products may have twice
    the rank, and its best approximation of rank r is its truncated singular value decomposition
    (Eckart and Young, 1936), exact wherever the rank allows. Of all factors with that product those
    with the rows nearest to the candidate's A are taken, so that at α = 1 they are the candidate's.

    Args:
        champion: A₀ (r, I) and B₀ (O, r).
        candidate: A₁ and B₁, likewise.
        alpha: In [0, 1].

    Returns:
        A and B, and the share of the product's squared norm that rank r leaves out.
    """
    rank, kind = len(candidate[0]), candidate[0].dtype
    a0, b0, a1, b1 = (one.double() for one in (*champion, *candidate))
    left, right = torch.cat([(1 - alpha) * b0, alpha * b1], dim=1), torch.cat([a0, a1])
    q_left, r_left = torch.linalg.qr(left)
    q_right, r_right = torch.linalg.qr(right.t())
    u, sizes, v = torch.linalg.svd(r_left @ r_right.t(), full_matrices=False)
    total = float(sizes.square().sum())
    lost = float(sizes[rank:].square().sum()) / total if total else 0.0
    columns = (q_left @ u[:, :rank]) * sizes[:rank]
    rows = v[:rank] @ q_right.t()
    turn = rows @ torch.linalg.pinv(a1)
    singular = torch.linalg.svdvals(turn)
    if len(sizes) < rank or not singular[-1] * _WORST > singular[0]:
        # both factors alike; where the product has no more rank, only B is 0, so that it can learn
        root = sizes[:rank].sqrt()
        root = torch.where(root > 1e-8 * root[0], root, torch.ones_like(root))
        turned = _wide(root[:, None] * rows, candidate[0]), _wide(columns / root, candidate[1])
        return *turned, lost
    return torch.linalg.solve(turn, rows).to(kind), (columns @ turn).to(kind), lost


def _wide(value: Tensor, like: Tensor) -> Tensor:
    """Padded with zeros to the factor's rank: a layer may be narrower than that."""
    padded = torch.zeros(like.shape, dtype=torch.float64, device=value.device)
    padded[: value.shape[0], : value.shape[1]] = value
    return padded.to(like.dtype)


def _layers(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    linear = [name for name, layer in model.named_modules() if type(layer) is nn.Linear]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in linear):
            shown = ", ".join(linear[:6]) + (", …" if len(linear) > 6 else "")
            raise ConfigError(
                f"The pattern {pattern!r} meets no linear layer.",
                where="model.adapter.layers",
                mend=f"patterns are of whole names, as *.query; the model has {shown or 'none'}",
            )
    return [name for name in linear if any(fnmatchcase(name, p) for p in patterns)]
