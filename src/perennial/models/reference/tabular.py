"""A net for tables: numbers as they are, categories as embeddings.

Shapes: B rows, P numerical columns, Q categorical columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perennial.errors import ConfigError


class Tabular(nn.Module):
    """Embeddings of the categories beside the numbers, then a multilayer perceptron with ReLU.

    It takes what `perennial.data.preprocess.Table` gives, with ``data.form=dict``. An embedding is
    min(50, ⌈1.6 · n^0.56⌉) wide for n categories, the rule of thumb of fastai's tabular learner.

    Args:
        numerical: Number of numerical columns P; may be 0.
        cardinalities: Categories of each of the Q columns, that for unknown ones (0) included; may
            be empty.
        classes: Outputs.
        hidden: Widths of the hidden layers.
        dropout: Probability after each hidden layer, in [0, 1).

    Raises:
        ConfigError: There is no column, or a column without a category.
    """

    def __init__(
        self,
        *,
        numerical: int,
        cardinalities: Sequence[int],
        classes: int = 2,
        hidden: Sequence[int] = (128, 64),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if numerical < 0 or any(n < 1 for n in cardinalities) or not numerical + len(cardinalities):
            raise ConfigError(
                f"A table of {numerical} numerical columns and categories {list(cardinalities)} "
                "cannot be learned from.",
                where="model.numerical, model.cardinalities",
                mend="give a number of columns, and for each categorical one the number of its "
                "categories, at least 1",
            )
        self.numerical = numerical
        self.embeddings = nn.ModuleList(nn.Embedding(n, _width(n)) for n in cardinalities)
        width = numerical + sum(_width(n) for n in cardinalities)
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            width = size
        self.output = nn.Linear(width, classes)
        self.layers = nn.Sequential(*layers)

    def forward(self, numerical: Tensor | None = None, categorical: Tensor | None = None) -> Tensor:
        """Logits (B, classes).

        Args:
            numerical: (B, P); left out where there are no such columns.
            categorical: Positions of the categories (B, Q), 0 for an unknown one; likewise.

        Raises:
            ConfigError: Columns are missing, or others than the model was built for.
        """
        given = (0 if numerical is None else numerical.shape[1], _columns(categorical))
        if given != (self.numerical, len(self.embeddings)):
            raise ConfigError(
                f"The model was built for {self.numerical} numerical and {len(self.embeddings)} "
                f"categorical columns, and gets {given[0]} and {given[1]}.",
                where="model.numerical, model.cardinalities",
                mend="set them to what data.preprocess gives, and data.form=dict",
            )
        parts = [] if numerical is None else [numerical.to(self.output.weight.dtype)]
        if categorical is not None:
            columns = categorical.long().unbind(dim=1)
            parts += [e(column) for e, column in zip(self.embeddings, columns, strict=True)]
        logits: Tensor = self.output(self.layers(torch.cat(parts, dim=1)))
        return logits


def _columns(categorical: Tensor | None) -> int:
    return 0 if categorical is None else categorical.shape[1]


def _width(categories: int) -> int:
    return min(50, math.ceil(1.6 * math.pow(categories, 0.56)))
