"""A small convolutional net for images.

Shapes: B rows, C channels of the image, H × W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perennial.errors import ConfigError


class ConvNet(nn.Module):
    """Blocks of a 3 × 3 convolution, ReLU and 2 × 2 max pooling, then two linear layers.

    There is no batch norm, so that new and remembered rows go through one forward without sharing
    statistics. Whatever the size of the image, the last feature map is averaged to 4 × 4 cells.

    Args:
        channels: Of the image, 1 for grey; a grey image (B, H, W) needs no axis for it.
        classes: Outputs.
        widths: Channels after each block; each of them halves height and width.
        hidden: Width of the linear layer before the output.
        dropout: Probability before the output, in [0, 1).

    Raises:
        ConfigError: A value out of range.
    """

    def __init__(
        self,
        *,
        channels: int = 1,
        classes: int = 10,
        widths: Sequence[int] = (32, 64),
        hidden: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not widths or min(channels, classes, hidden, *widths) < 1:
            raise ConfigError(
                "A convolutional net takes at least one width, and sizes above 0.",
                where="model",
                mend="see conf/model/conv.yaml",
            )
        layers: list[nn.Module] = []
        before = channels
        for width in widths:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            before = width
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.hidden = nn.Linear(before * 16, hidden)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W), or (B, H, W) of one channel.

        Numbers are taken as they are, bytes as shares of 255, as the data give them to a model.
        """
        pixels = image if image.ndim == 4 else image.unsqueeze(1)
        if pixels.dtype == torch.uint8:
            pixels = pixels / 255
        features = self.features(pixels.to(self.output.weight.dtype))
        logits: Tensor = self.output(self.dropout(torch.relu(self.hidden(features))))
        return logits
