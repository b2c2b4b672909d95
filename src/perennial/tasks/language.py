"""Causal language model: the next token at each position.

Shapes: B rows, T positions, V tokens of the vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from perennial.errors import ConfigError
from perennial.tasks.base import called, require_outputs
from perennial.tasks.likelihood import IGNORED, CategoricalTokens
from perennial.tasks.tokens import Positions
from perennial.types import Predictions


class CausalLanguage(Positions):
    """Next-token prediction; loss and score of a row are means over its tokens.

    A row's target is the row itself, one position on. With ``documents`` a row may be packed with
    several of them: no token is predicted from another document, nor from padding.

    Args:
        tokens: Input column of token ids (B, T); of a batch that is a tuple, the first element.
        mask: Input column (B, T) that is 0 at padding, passed on to the model; None has no padding.
        documents: Input column (B, T) that numbers a row's documents from 1, 0 at padding; it is
            not passed on. None is one document a row.

    Raises:
        ConfigError: One column is given two purposes.
    """

    target_kind = "none"
    labels: tuple[str, ...] | None = None

    def __init__(
        self,
        *,
        tokens: str = "input_ids",
        mask: str | None = "attention_mask",
        documents: str | None = None,
    ) -> None:
        if len({tokens, mask, documents}) < 3 and not (mask is None and documents is None):
            raise ConfigError(
                "One column is given two purposes.",
                where="task.tokens, task.mask, task.documents",
                mend="name each column once",
            )
        self.tokens, self.mask, self.documents = tokens, mask, documents
        self.likelihood = CategoricalTokens()
        self.arguments: dict[str, Any] = {"tokens": tokens, "mask": mask, "documents": documents}

    def split_batch(self, batch: Any) -> tuple[Any, Tensor]:
        """Inputs, and the next token (B, T - 1) of each position, -100 where there is none.

        Raises:
            ConfigError: A column is not there.
        """
        if not isinstance(batch, dict):
            if self.documents is not None:
                raise ConfigError(
                    "Documents are told apart by a column's name, and the batch has no names.",
                    where="task.documents, data.form",
                    mend="use data.form=dict",
                )
            return (batch[0] if len(batch) == 1 else tuple(batch)), next_tokens(batch[0])
        for name in (self.tokens, self.documents):
            if name is not None and name not in batch:
                raise ConfigError(
                    f"There is no column {name!r}; there are {', '.join(batch)}.",
                    where="task.tokens, task.documents",
                    mend="name the columns of token ids and of documents",
                )
        inputs = {name: value for name, value in batch.items() if name != self.documents}
        parts = None if self.documents is None else batch[self.documents]
        mask = batch.get(self.mask) if self.mask is not None else None
        return inputs, next_tokens(batch[self.tokens], mask=mask, documents=parts)

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """Logits (B, T - 1, V) of the next token.

        Raises:
            EvaluationError: The model returned something else.
        """
        inputs, target = self.split_batch(batch)
        logits = require_outputs(
            called(model, inputs),
            len(target),
            dimensions=3,
            what="logits (rows, positions, tokens)",
            model=model,
        )
        return logits[:, :-1]

    def widened(self, outputs: Tensor, classes: int) -> Tensor:
        """The outputs: the vocabulary is the model's."""
        return outputs

    def measure(
        self, predictions: Predictions, label: npt.NDArray[Any], classes: int
    ) -> dict[str, float]:
        """Mean score of the rows, and the perplexity of their mean loss."""
        mean = float(np.mean(predictions.loss))
        # above it a float overflows, and no model that is worth a look comes near
        perplexity = math.exp(min(mean, 700.0))
        return {"token_accuracy": float(predictions.score.mean()), "perplexity": perplexity}


def next_tokens(
    tokens: Tensor, *, mask: Tensor | None = None, documents: Tensor | None = None
) -> Tensor:
    """What comes next at each position but the last (B, T - 1), -100 where nothing is asked.

    Args:
        tokens: Ids (B, T).
        mask: 0 at padding (B, T).
        documents: Number of each position's document (B, T), 0 at padding.

    >>> next_tokens(torch.tensor([[7, 8, 9, 5]]), documents=torch.tensor([[1, 1, 2, 2]])).tolist()
    [[8, -100, 5]]
    """
    target = tokens[:, 1:].long()
    asked = torch.ones_like(target, dtype=torch.bool)
    if mask is not None:
        asked &= (mask[:, 1:] != 0) & (mask[:, :-1] != 0)
    if documents is not None:
        asked &= (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] != 0)
    return target.masked_fill(~asked, IGNORED)
