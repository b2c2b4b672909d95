"""Weight interpolation between champion and candidate after training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from perennial.errors import MethodError, require_setting
from perennial.methods.base import Method
from perennial.methods.batch_norm import BatchNorm, batch_norms, statistics
from perennial.models.adapter import pairs, product_between
from perennial.models.undisturbed import undisturbed

if TYPE_CHECKING:
    from perennial.types import Batch, MethodContext


class Interpolation(Method):
    r"""WiSE-FT (Wortsman et al., Robust Fine-Tuning of Zero-Shot Models, CVPR 2022).

    After training, the candidate becomes ``(1 − α) · champion + α · candidate``. Of ``points``
    values of α in (0, 1], the one is taken that scores best on new validation rows among those that
    lose no more than ``budget`` on history's; where none does, the one that loses least. Rows of
    the output layer that the champion does not have are the candidate's.

    Running statistics of batch norm are computed anew over all training rows, new and history, at
    every α, 1 included: those of training are of other weights, forgetful and of another mixture,
    and values of α with statistics of two kinds could not be compared. Batch norms whose statistics
    training left alone, because model or method freeze them, keep them.

    Of adapters the product BA is interpolated, at the adapters' rank, and not the factors, whose
    means have another product.

    Cost: none during training. After it ``points`` passes over the validation rows and, where
    there are statistics to renew, ``points`` + 1 over all training rows; two copies of the weights
    and a third while one is put into the model. Choose it beside any method: it is often most of
    the gain.

    Args:
        budget: Score that may be lost on history validation rows against the champion, in [0, 1).
        points: Values of α that are tried, at least 1.

    Raises:
        ConfigError: A value out of range.
    """

    name: ClassVar[str] = "interpolation"
    holds_champion: ClassVar[bool] = True

    def __init__(self, *, budget: float = 0.0, points: int = 10) -> None:
        number = isinstance(budget, int | float) and not isinstance(budget, bool)
        require_setting(
            number and 0 <= budget < 1, "method.interpolation.budget", budget, "from 0 to below 1"
        )
        whole = isinstance(points, int) and not isinstance(points, bool)
        require_setting(
            whole and points >= 1, "method.interpolation.points", points, "a whole number from 1 up"
        )
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
        norms = moved(model, champion, candidate)

        factors = pairs(candidate)
        left_out = [0.0]

        def put(alpha: float) -> None:
            state = mixed(champion, candidate, alpha)
            lost = [put_product(state, names, champion, candidate, alpha) for names in factors]
            left_out[0] = max(lost, default=0.0)
            model.load_state_dict(state)
            _renew_statistics(norms, context)

        tried = []
        for step in range(1, self.points + 1):
            put(step / self.points)
            tried.append((step / self.points, dict(context.validate())))
        self.alpha = choose(tried, context.champion_scores.get("history"), self.budget)
        put(self.alpha)
        context.warn(f"interpolation: {self.alpha:.0%} of the way from champion to candidate")
        if left_out[0] > 1e-6:
            context.warn(
                f"interpolation: rank leaves out up to {left_out[0]:.1%} of the squared norm of "
                "what lies between the adapters' products"
            )


def moved(
    model: nn.Module, champion: Mapping[str, Tensor], candidate: Mapping[str, Tensor]
) -> list[BatchNorm]:
    """Batch norms whose running statistics training moved: those that are its own to set."""
    training = batch_norms(model)
    return [
        layer
        for name, layer in model.named_modules()
        if any(layer is norm for norm in training)
        and isinstance(layer, BatchNorm)
        and layer.track_running_stats
        and any(
            not torch.equal(champion[key], candidate[key])
            for key in (f"{name}.running_mean".lstrip("."), f"{name}.running_var".lstrip("."))
        )
    ]


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


def put_product(
    state: dict[str, Tensor],
    names: tuple[str, str],
    champion: Mapping[str, Tensor],
    candidate: Mapping[str, Tensor],
    alpha: float,
) -> float:
    """Put factors of the interpolated product into a state; see `models.adapter`.

    Returns:
        The share of the product's squared norm that the rank leaves out.
    """
    if alpha == 1.0:
        return 0.0
    (one, two) = ((own[names[0]], own[names[1]]) for own in (champion, candidate))
    state[names[0]], state[names[1]], lost = product_between(one, two, alpha)
    return lost


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


def _renew_statistics(norms: Sequence[BatchNorm], context: MethodContext) -> None:
    """Running statistics of batch norms over all new and history rows, each counted once.

    What a batch norm gets depends on the ones before it, which normalise by the batch, so that
    batches hold both kinds of rows in the proportion in which they are there.
    """
    model, logits = context.model, context.logits
    if not norms or logits is None or context.new_count + context.history_count < 2:
        return
    seen = [Moments() for _ in norms]
    hooks = [norm.register_forward_pre_hook(one.see) for norm, one in zip(norms, seen, strict=True)]
    try:
        with undisturbed(model), torch.no_grad(), statistics(norms, "batch"):
            model.eval()
            for norm in norms:
                norm.train()
            for data in _together(context):
                logits(model, data)
    finally:
        for hook in hooks:
            hook.remove()
    for norm, one in zip(norms, seen, strict=True):
        one.put(norm)


class Moments:
    """Mean and variance per channel over batches of any size, merged as by Chan et al. (1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | None = None
        self.squares: Tensor | None = None

    def see(self, _norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Add values (B, C, ...)."""
        values = inputs[0].detach().float().transpose(0, 1).flatten(1)
        count = values.shape[1]
        mean = values.mean(dim=1)
        squares = (values - mean[:, None]).square().sum(dim=1)
        if self.mean is None or self.squares is None:
            self.count, self.mean, self.squares = count, mean, squares
            return
        whole = self.count + count
        apart = mean - self.mean
        self.mean = self.mean + apart * (count / whole)
        self.squares = self.squares + squares + apart.square() * (self.count * count / whole)
        self.count = whole

    def put(self, norm: BatchNorm) -> None:
        """Make them a batch norm's running statistics, where it ran at all."""
        if self.mean is None or self.squares is None:
            return
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(self.mean)
        norm.running_var.copy_(self.squares / (self.count - 1))


def _together(context: MethodContext) -> Iterator[Any]:
    """All rows once, in batches of both kinds in their overall proportion.

    Sizes differ by two rows at most, so that none is a single row, which a batch norm refuses.
    """
    new = iter(context.new())
    first = next(new, None)
    size = 1 if first is None else len(first)
    rows = context.new_count + context.history_count
    # four rows a batch on average: at least two in each, whatever the rounding
    count = max(1, min(math.ceil(rows / size), rows // 4))
    streams = (
        _recut(chain([] if first is None else [first], new), _shares(context.new_count, count)),
        _recut(context.history(), _shares(context.history_count, count)),
    )
    for ones, others in zip(*streams, strict=True):
        yield tree_map(lambda *pieces: torch.cat(pieces), *ones, *others)


def _shares(rows: int, count: int) -> list[int]:
    """Rows split into so many numbers that differ by one at most."""
    return [rows * (i + 1) // count - rows * i // count for i in range(count)]


def _recut(stream: Iterable[Batch], sizes: Sequence[int]) -> Iterator[list[Any]]:
    """Batches' data as lists of pieces that make up the given numbers of rows."""
    batches = iter(stream)
    data: Any = None
    start = end = 0
    for size in sizes:
        pieces, missing = [], size
        while missing:
            if start == end:
                batch = next(batches)
                data, start, end = batch.data, 0, len(batch)
            stop = min(start + missing, end)
            pieces.append(tree_map(itemgetter(slice(start, stop)), data))
            missing -= stop - start
            start = stop
        yield pieces
