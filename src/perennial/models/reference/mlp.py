"""A multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class MLP(nn.Module):
    """A multilayer perceptron with ReLU.

    Args:
        inputs: Numbers per row; inputs (B, ...) are flattened to (B, inputs).
        classes: Outputs.
        hidden: Widths of the hidden layers.
        dropout: Probability after each hidden layer, in [0, 1).
    """

    def __init__(
        self,
        *,
        inputs: int,
        classes: int,
        hidden: Sequence[int] = (100, 100),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        width = inputs
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            width = size
        self.layers = nn.Sequential(*layers, nn.Linear(width, classes))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, classes)."""
        logits: Tensor = self.layers(inputs.float())
        return logits
