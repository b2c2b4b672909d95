"""A sequential recommender: from the items that a user met to the next one.

Shapes: B rows, L items of a history, D width, I items.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perennial.errors import ConfigError


class Sequential(nn.Module):
    """Self-attention over a user's last items (Kang and McAuley, SASRec, ICDM 2018), small.

    The output shares the items' embeddings, so that an item has one vector. Item 0 is padding on
    the input side, before or after the others, and is never attended to.

    Args:
        items: Number of item ids I, that of padding (0) included.
        length: Longest history L; of a longer one the last items count.
        width: D.
        heads: Of attention; divides ``width``.
        layers: Blocks of attention.
        dropout: Probability after embeddings, attention and feed-forward, in [0, 1).

    Raises:
        ConfigError: A value out of range.
    """

    def __init__(
        self,
        *,
        items: int,
        length: int = 50,
        width: int = 64,
        heads: int = 2,
        layers: int = 2,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if items < 2 or min(length, width, heads, layers) < 1 or width % heads:
            raise ConfigError(
                "A sequential recommender takes at least two items, sizes from 1 up, and heads "
                "that divide its width.",
                where="model",
                mend="see conf/model/sequential.yaml",
            )
        self.length = length
        self.items = nn.Embedding(items, width)
        self.positions = nn.Embedding(length, width)
        nn.init.normal_(self.items.weight, std=width**-0.5)
        nn.init.normal_(self.positions.weight, std=width**-0.5)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def encode(self, items: Tensor) -> Tensor:
        """What a user wants next (B, D), of the items that were met (B, L), oldest first."""
        items = items[:, -self.length :].long()
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
        return F.linear(self.encode(items), self.items.weight)


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
