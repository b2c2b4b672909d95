"""Small networks of a user's own, for what preprocessing gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Mixed(nn.Module):
    """Numbers and embedded categories through one hidden layer."""

    def __init__(self, *, numerical: int, cardinalities: Sequence[int], classes: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(count, 4) for count in cardinalities)
        width = numerical + 4 * len(cardinalities)
        self.layers = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, classes))

    def forward(self, numerical: Tensor, categorical: Tensor) -> Tensor:
        """Logits (B, classes)."""
        embedded = [layer(categorical[:, i]) for i, layer in enumerate(self.embeddings)]
        logits: Tensor = self.layers(torch.cat([numerical, *embedded], dim=1))
        return logits


class Bag(nn.Module):
    """The mean of the tokens' embeddings."""

    def __init__(self, *, vocabulary: int, classes: int, width: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.head = nn.Linear(width, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (B, classes)."""
        mask = attention_mask.unsqueeze(2).float()
        mean = (self.embedding(input_ids) * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        logits: Tensor = self.head(mean)
        return logits
