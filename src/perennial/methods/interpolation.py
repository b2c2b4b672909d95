"""Weight interpolation between champion and candidate after training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from perennial.errors import MethodError
from perennial.methods.base import Method, require
from perennial.methods.batch_norm import BatchNorm

if TYPE_CHECKING:
    from perennial.types import Batch, MethodContext


class Interpolation(Method):
    r"""WiSE-FT (Wortsman et al., Robust Fine-Tuning of Zero-Shot Models, CVPR 2022).

    After training, the candidate becomes ``(1 − α) · champion + α · candidate``. Of ``points``
    values of α in (0, 1], the one is taken that scores best on new validation rows among those that
    lose no more than ``budget`` on history's; where none does, the one that loses least. Running
    statistics of batch norm are computed anew from mixed training rows. Rows of the output layer
    that the champion does not have are the candidate's.

    Cost: ``points`` passes over the validation rows after training, none during it. Choose it
    beside any method: it is free, and often most of the gain.

    Args:
        budget: Score that may be lost on history validation rows against the champion, in [0, 1).
        points: Values of α that are tried, at least 1.

    Raises:
        ConfigError: A value out of range.
    """

    name: ClassVar[str] = "interpolation"

    def __init__(self, *, budget: float = 0.0, points: int = 10) -> None:
        number = isinstance(budget, int | float) and not isinstance(budget, bool)
        require(number and 0 <= budget < 1, "interpolation.budget", budget, "from 0 to below 1")
        whole = isinstance(points, int) and not isinstance(points, bool)
        require(whole and points >= 1, "interpolation.points", points, "a whole number from 1 up")
        self.budget = float(budget)
        self.points = points
        self.alpha: float | None = None

    def adjust(self, context: MethodContext) -> None:
        """Choose α on validation rows and leave the model at it.

        Raises:
            MethodError: There are no new validation rows.
        """
        if "new" not in context.champion_scores:
            raise MethodError(
                "Interpolation chooses on new validation rows, and there are none.",
                where="method.interpolation",
                mend="raise data.validation_fraction, or leave interpolation out",
            )
        model = context.model
        candidate = {name: value.detach().clone() for name, value in model.state_dict().items()}
        champion = {n: v.to(candidate[n].device) for n, v in context.champion.weights.items()}
        tried = []
        for step in range(1, self.points + 1):
            alpha = step / self.points
            self._put(model, champion, candidate, alpha, context)
            tried.append((alpha, dict(context.validate())))
        self.alpha = choose(tried, context.champion_scores.get("history"), self.budget)
        self._put(model, champion, candidate, self.alpha, context)
        context.warn(f"interpolation: {self.alpha:.0%} of the way from champion to candidate")

    def _put(
        self,
        model: nn.Module,
        champion: dict[str, Tensor],
        candidate: dict[str, Tensor],
        alpha: float,
        context: MethodContext,
    ) -> None:
        model.load_state_dict(mixed(champion, candidate, alpha))
        if alpha < 1:
            _renew_statistics(model, context)


def mixed(
    champion: dict[str, Tensor], candidate: dict[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """(1 − α) · champion + α · candidate, for α in (0, 1].

    Counts and other whole numbers are the candidate's, and so are rows that new classes added.
    """
    if alpha == 1.0:
        return candidate
    return {
        name: _between(champion[name], value, alpha)
        if value.is_floating_point() and name in champion
        else value
        for name, value in candidate.items()
    }


def _between(champion: Tensor, candidate: Tensor, alpha: float) -> Tensor:
    if champion.shape != candidate.shape:
        old = len(champion)
        return torch.cat([_between(champion, candidate[:old], alpha), candidate[old:]])
    return torch.lerp(champion.float(), candidate.float(), alpha).to(candidate.dtype)


def choose(
    tried: list[tuple[float, dict[str, float]]], history: float | None, budget: float
) -> float:
    """The α with the best score on new rows among those within the budget.

    Args:
        tried: α and its scores, ``new`` and, where there is any, ``history``.
        history: The champion's score on history; None without one.
        budget: Largest loss of it.
    """
    if history is None:
        within = tried
    else:
        within = [(a, s) for a, s in tried if s["history"] >= history - budget - 1e-12]
        if not within:
            most = max(scores["history"] for _, scores in tried)
            within = [(a, s) for a, s in tried if s["history"] == most]
    # of equal ones the nearest to the champion
    return max(within, key=lambda one: (one[1]["new"], -one[0]))[0]


def _renew_statistics(model: nn.Module, context: MethodContext) -> None:
    """Running statistics of batch norms as averages over batches of new and history rows."""
    norms = [m for m in model.modules() if isinstance(m, BatchNorm) and m.track_running_stats]
    logits = context.logits
    if not norms or logits is None:
        return
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
        norm.train()
    with torch.no_grad():
        for data in _together(context.new(), context.history()):
            logits(model, data)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, training in modes:
        module.training = training


def _together(new: Iterable[Batch], history: Iterable[Batch]) -> Iterator[Any]:
    """Batches of both kinds joined, so that statistics see the difference between them."""
    for one, other in zip_longest(new, history):
        if one is None or other is None:
            yield (one or other).data
        else:
            yield tree_map(lambda a, b: torch.cat([a, b]), one.data, other.data)
