"""Next-item ranking: one item of a catalogue per row.

Shapes: B rows, N rows of a set, V items, K shown items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from perennial.errors import require_setting
from perennial.tasks.base import called, require_outputs, split
from perennial.tasks.classification import UNKNOWN
from perennial.tasks.likelihood import Categorical
from perennial.types import Predictions


class Ranking:
    """The item that comes next, ranked among all that the model knows, by softmax.

    A row's score is the reciprocal of the item's rank. An item for which the model has no output
    cannot be recommended: its score is 0, at a finite loss of 15.9 nats.

    Args:
        label: Key of the next items in a batch that is a dict; a tuple's last element is its
            target. Items are whole numbers, the positions of the model's outputs.
        cutoffs: k of recall@k and NDCG@k, each at least 1.
        negatives: 0 takes the loss over all items. Otherwise over the next item and as many others,
            drawn with replacement, alike for the rows of a batch and anew in each training step,
            and corrected for it; evaluation and the Fisher are over all items. It saves time and
            memory of the softmax, not of the model, which scores all items.

    Raises:
        ConfigError: A value out of range.
    """

    target_kind = "item"
    score_name = "mrr"
    score_unit = ""
    binary = False
    labels: tuple[str, ...] | None = None

    def __init__(
        self, *, label: str = "label", cutoffs: Sequence[int] = (5, 20), negatives: int = 0
    ) -> None:
        good = bool(cutoffs) and all(isinstance(k, int) and k >= 1 for k in cutoffs)
        require_setting(good, "task.cutoffs", cutoffs, "whole numbers from 1")
        require_setting(negatives >= 0, "task.negatives", negatives, "at least 0")
        self.label = label
        self.cutoffs = tuple(sorted(set(cutoffs)))
        self.negatives = int(negatives)
        self.likelihood = Categorical()
        self.arguments: dict[str, Any] = {
            "label": label,
            "cutoffs": list(self.cutoffs),
            "negatives": self.negatives,
        }

    def split_batch(self, batch: Any) -> tuple[Any, Tensor]:
        """Inputs and next items (B,) of a tuple or dict batch."""
        return split(batch, self.label)

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """A score for each item (B, V).

        Raises:
            EvaluationError: The model returned something else.
        """
        inputs, target = self.split_batch(batch)
        return require_outputs(
            called(model, inputs),
            len(target),
            dimensions=2,
            what="scores (rows, items)",
            model=model,
        )

    def widened(self, outputs: Tensor, classes: int) -> Tensor:
        """The outputs: the catalogue is as wide as the model."""
        return outputs

    def per_example_loss(self, outputs: Tensor, batch: Any) -> Tensor:
        """Cross-entropy in nats (B,), over all items or over drawn ones in training."""
        target = self.split_batch(batch)[1]
        known = target < outputs.shape[1]
        place = torch.where(known, target, 0)
        # gradients are asked for in training, and by the Fisher, which takes no loss
        if self.negatives and torch.is_grad_enabled():
            drawn = torch.randint(outputs.shape[1], (self.negatives,), device=outputs.device)
            loss = sampled_softmax(outputs.float(), place, drawn)
        else:
            loss = F.cross_entropy(outputs.float(), place, reduction="none")
        return torch.where(known, loss, -math.log(UNKNOWN))

    def probabilities(self, outputs: Tensor) -> None:
        """None: of a large catalogue they are not kept; losses and ranks say what is asked."""

    def predictions(self, outputs: Tensor) -> Tensor:
        """The K first items (B, K), best first; K is the largest cutoff."""
        return outputs.topk(min(self.cutoffs[-1], outputs.shape[1]), dim=1).indices

    def scores(self, outputs: Tensor, batch: Any) -> Tensor:
        """Reciprocal rank of the next item (B,), float64; 0 where the model has no such item."""
        target = self.split_batch(batch)[1]
        known = target < outputs.shape[1]
        rank = ranks(outputs, torch.where(known, target, 0))
        return torch.where(known, 1 / rank, 0.0)

    def measure(
        self, predictions: Predictions, label: npt.NDArray[Any], classes: int
    ) -> dict[str, float]:
        """Mean reciprocal rank, and recall@k and NDCG@k for each cutoff.

        They follow from the ranks, and the ranks from the scores.
        """
        score = torch.from_numpy(np.asarray(predictions.score))
        rank = torch.where(score > 0, 1 / score, math.inf)
        metrics: dict[str, Any] = {"mrr": MeanGain()}
        for k in self.cutoffs:
            metrics |= {f"recall@{k}": MeanGain(gain="hit", top=k)}
            metrics |= {f"ndcg@{k}": MeanGain(gain="ndcg", top=k)}
        # each has its own gain of the same ranks, which a shared state would hide
        found = MetricCollection(metrics, compute_groups=False)(rank)
        return {name: float(value) for name, value in found.items()}


class MeanGain(Metric):
    """The mean over rows of what the rank of the one relevant item is worth.

    Args:
        gain: ``reciprocal`` of the rank (MRR), ``hit`` (recall@k of one item) or ``ndcg``.
        top: k: a rank beyond it is worth nothing; None has no end.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self, *, gain: str = "reciprocal", top: int | None = None) -> None:
        super().__init__()
        self.gain, self.top = gain, math.inf if top is None else top
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.total: Tensor
        self.count: Tensor

    def update(self, rank: Tensor) -> None:
        """Add ranks (B,), 1 for the best, infinite for an item that is not there."""
        worth = gains(rank, self.gain)
        self.total += torch.where(rank <= self.top, worth, 0.0).sum()
        self.count += rank.numel()

    def compute(self) -> Tensor:
        """The mean."""
        return self.total / self.count


def gains(rank: Tensor, gain: str) -> Tensor:
    """Worth of ranks (B,) where one item is relevant, float64.

    Args:
        rank: 1 for the best.
        gain: ``reciprocal``, ``hit``, or ``ndcg``, 1 / log2(1 + rank) (Järvelin & Kekäläinen, ACM
            Transactions on Information Systems 20, 2002), whose ideal is 1.
    """
    rank = rank.double()
    if gain == "hit":
        return torch.ones_like(rank)
    return 1 / rank if gain == "reciprocal" else 1 / torch.log2(1 + rank)


def ranks(outputs: Tensor, target: Tensor) -> Tensor:
    """Rank of each row's target among all items (B,), float64, 1 for the best.

    Items that score alike share the mean of their ranks, so that a model that cannot tell them
    apart gains nothing by their order.

    >>> ranks(torch.tensor([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2]]), torch.tensor([1, 0])).tolist()
    [2.0, 1.5]
    """
    own = outputs.gather(1, target[:, None])
    above = (outputs > own).sum(dim=1)
    equal = (outputs == own).sum(dim=1)
    return above.double() + (equal.double() + 1) / 2


def sampled_softmax(outputs: Tensor, target: Tensor, drawn: Tensor) -> Tensor:
    """Cross-entropy (B,) of the target among drawn items, an estimate of that among all.

    The drawn ones stand for all items: each counts V/S times, so that the sum in the softmax is
    unbiased (Bengio & Senécal, IEEE Transactions on Neural Networks 19, 2008; uniform proposal).
    Where the target itself was drawn, it is left out there, and the others stand for one fewer.

    Args:
        outputs: Scores (B, V).
        target: (B,).
        drawn: Items (S,), uniform with replacement.
    """
    own = outputs.gather(1, target[:, None])
    others = outputs[:, drawn]
    hit = drawn[None] == target[:, None]
    count = (~hit).sum(dim=1, keepdim=True).clamp(min=1)
    weight = torch.log((outputs.shape[1] - 1) / count.double()).to(outputs.dtype)
    others = (others + weight).masked_fill(hit, -math.inf)
    return torch.logsumexp(torch.cat([own, others], dim=1), dim=1) - own[:, 0]
