"""A sequential recommender: from the items that a user met to the next one.

Shapes: B rows, L items of a history, D width, I items.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perennial.errors import ConfigError
from perennial.models.head import grown

_FAR = 20.0


class Sequential(nn.Module):
    """Self-attention over a user's last items (Kang and McAuley, SASRec, ICDM 2018), small.

    The output shares the items' embeddings, so that an item has one vector; each has a bias beside
    it, which learns how popular it is. Item 0 is padding on the input side, before or after the
    others, and is never attended to; an item beyond those it has is taken for it. With
    ``data.new_classes=grow`` items are appended, each near the mean of
    those there are.

    Args:
        items: Number of item ids I, that of padding (0) included; None takes what
            ``data.preprocess`` knows.
        length: Longest history L; of a longer one the last items count.
        width: D.
        heads: Of attention; divides ``width``.
        layers: Blocks of attention.
        dropout: Probability after embeddings, attention and feed-forward, in [0, 1).
        repeats: Whether an item that was met can be the next one; False scores it last.

    Raises:
        ConfigError: A value out of range.
    """

    def __init__(
        self,
        *,
        items: int | None = None,
        length: int = 50,
        width: int = 64,
        heads: int = 2,
        layers: int = 2,
        dropout: float = 0.2,
        repeats: bool = True,
    ) -> None:
        super().__init__()
        if items is None or items < 2 or min(length, width, heads, layers) < 1 or width % heads:
            raise ConfigError(
                "A sequential recommender takes at least two items, sizes from 1 up, and heads "
                "that divide its width.",
                where="model",
                mend="see conf/model/sequential.yaml; data.preprocess=sequence counts the items",
            )
        self.length = length
        self.repeats = repeats
        self.items = nn.Embedding(items, width)
        self.bias = nn.Parameter(torch.zeros(items))
        self.positions = nn.Embedding(length, width)
        nn.init.normal_(self.items.weight, std=width**-0.5)
        nn.init.normal_(self.positions.weight, std=width**-0.5)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        # before it has learned what a user wants, popularity decides
        nn.init.constant_(self.norm.weight, 0.1)

    def encode(self, items: Tensor) -> Tensor:
        """What a user wants next (B, D), of the items that were met (B, L), oldest first."""
        items = self._known(items)[:, -self.length :]
        real = items != 0
        # counted from the newest item, so that padding on either side means the same
        ages = (real.sum(dim=1, keepdim=True) - real.cumsum(dim=1)).clamp(0, self.length - 1)
        hidden = self.items(items) * math.sqrt(self.items.embedding_dim) + self.positions(ages)
        hidden = self.dropout(hidden)
        for block in self.blocks:
            hidden = block(hidden, real)
        newest = (real & (ages == 0)).to(hidden.dtype).unsqueeze(2)
        wanted: Tensor = (self.norm(hidden) * newest).sum(dim=1)
        return wanted

    def forward(self, items: Tensor) -> Tensor:
        """Scores (B, I) of all items as the next one."""
        scores = F.linear(self.encode(items), self.items.weight, self.bias)
        if self.repeats:
            return scores
        # not the infinity: methods take products of scores and probabilities
        lowest = scores.detach().amin(dim=1, keepdim=True) - _FAR
        met = self._known(items)
        return scores.scatter(1, met, lowest.expand(met.shape))

    @property
    def outputs(self) -> int:
        """I."""
        return self.items.num_embeddings

    def grow_outputs(self, outputs: int, *, generator: torch.Generator) -> None:
        """Append items, whose embeddings and biases start near the mean of the others."""
        old, bias = self.items.weight, self.bias
        more = outputs - self.outputs
        spread = old.shape[1] ** -0.5 / 10
        drawn = torch.randn(more, old.shape[1], generator=generator) * spread
        rows = old.detach()[1:].mean(dim=0) + drawn.to(old)
        biases = bias.detach()[1:].mean().expand(more)
        self.items.weight = nn.Parameter(grown(old.detach(), rows), requires_grad=old.requires_grad)
        self.items.num_embeddings = outputs
        self.bias = nn.Parameter(grown(bias.detach(), biases), requires_grad=bias.requires_grad)

    def _known(self, items: Tensor) -> Tensor:
        items = items.long()
        return items.where(items < self.outputs, 0)


class _Block(nn.Module):
    """Causal attention and a feed-forward layer, each with a norm before it and a way around."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(width)
        self.projections = nn.Linear(width, 3 * width)
        self.joined = nn.Linear(width, width)
        self.between = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, real: Tensor) -> Tensor:
        """Hidden states (B, L, D); ``real`` (B, L) tells items from padding."""
        hidden = hidden + self.dropout(self._attention(self.before(hidden), real))
        wide = F.gelu(self.wide(self.between(hidden)))
        changed: Tensor = hidden + self.dropout(self.narrow(wide))
        return changed

    def _attention(self, hidden: Tensor, real: Tensor) -> Tensor:
        rows, length, width = hidden.shape
        shape = (rows, length, self.heads, width // self.heads)
        query, key, value = (
            part.reshape(shape).transpose(1, 2) for part in self.projections(hidden).chunk(3, dim=2)
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(shape[3])
        causal = torch.ones(length, length, dtype=torch.bool, device=hidden.device).tril()
        own = torch.eye(length, dtype=torch.bool, device=hidden.device)
        # a padded position sees itself: a softmax over nothing would be no number
        seen = (causal & real[:, None, None, :]) | own
        weights = scores.masked_fill(~seen, float("-inf")).softmax(dim=3)
        mixed = (weights @ value).transpose(1, 2).reshape(rows, length, width)
        joined: Tensor = self.joined(mixed)
        return joined
