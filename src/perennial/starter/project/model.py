"""The model that is retrained. Put your own class here; it needs nothing of Perennial."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# What one unit of each column is worth, in the order of the table: months, euros, calls, plan.
SCALES = (24.0, 50.0, 3.0, 1.0)


class Net(nn.Module):
    """Whether a customer leaves, from four numbers."""

    scales: Tensor

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.register_buffer("scales", torch.tensor(SCALES))
        self.layers = nn.Sequential(
            nn.Linear(len(SCALES), width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 2),
        )

    def forward(self, customers: Tensor) -> Tensor:
        """Logits (B, 2) of customers (B, 4), as raw as they lie in the table."""
        logits: Tensor = self.layers(customers / self.scales)
        return logits
