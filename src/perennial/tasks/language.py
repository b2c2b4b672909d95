"""Causal language model: the next token at each position.

Shapes: B rows, T positions, V tokens of the vocabulary.
"""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from perennial.errors import ConfigError, first_line
from perennial.tasks.base import called, require_outputs
from perennial.tasks.likelihood import IGNORED, CategoricalTokens
from perennial.tasks.packing import (
    WHERE,
    accepted,
    floating,
    packing,
    quietly,
    same_logits,
    through,
)
from perennial.tasks.tokens import Positions
from perennial.types import Predictions

TRIED = 4  # documents of a batch that are tried packed and alone


class CausalLanguage(Positions):
    """Next-token prediction; loss and score of a row are means over its tokens.

    A row is one document, and its target is the row itself, one position on. With ``pack`` the
    documents of a training batch go through the model packed: several in one row of that many
    tokens, which saves what padding costs. No document sees another: positions begin anew in each,
    and attention gets a block mask, ``attention_mask`` (R, 1, L, L), that is added to its scores.
    Whether a model heeds both is tried on the first batch, in evaluation mode, and one that gives
    other logits than for documents alone is refused. Losses, scores, ids and origins stay those
    of documents, and whatever is scored or judged is not packed.

    Args:
        tokens: Input column of token ids (B, T); of a batch that is a tuple, the first element.
        mask: Input column (B, T) that is 0 at padding, passed on to the model; None has no padding.
        pack: Tokens of a packed row, at least T; None leaves each document its row.

    Raises:
        ConfigError: One column is given two purposes, or documents are to be packed without a mask.
    """

    target_kind = "none"
    labels: tuple[str, ...] | None = None

    def __init__(
        self,
        *,
        tokens: str = "input_ids",
        mask: str | None = "attention_mask",
        pack: int | None = None,
    ) -> None:
        if tokens == mask:
            raise ConfigError(
                "One column is given two purposes.",
                where="task.tokens, task.mask",
                mend="name each column once",
            )
        if pack is not None and (mask is None or pack < 2):
            raise ConfigError(
                f"Documents cannot be packed into rows of {pack} tokens"
                + (" without a mask that says where they end." if mask is None else "."),
                where=WHERE,
                mend="name task.mask, and give a multiple of the usual document's length",
            )
        self.tokens, self.mask, self.pack = tokens, mask, pack
        self.likelihood = CategoricalTokens()
        self.arguments: dict[str, Any] = {"tokens": tokens, "mask": mask, "pack": pack}
        self._proven: weakref.ref[nn.Module] | None = None

    def split_batch(self, batch: Any) -> tuple[Any, Tensor]:
        """Inputs, and the next token (B, T - 1) of each position, -100 where there is none.

        Raises:
            ConfigError: The column of tokens, or the one of the mask, is not there.
        """
        if not isinstance(batch, dict):
            if self.mask is not None:
                # one that is not found by name would leave padding to be trained on
                raise ConfigError(
                    f"A batch that is a tuple has no column {self.mask!r} to say where padding is.",
                    where="task.mask, data.form",
                    mend="set data.form=dict, or task.mask=null where no row has padding",
                )
            return (batch[0] if len(batch) == 1 else tuple(batch)), next_tokens(batch[0])
        for setting, name in (("tokens", self.tokens), ("mask", self.mask)):
            if name is not None and name not in batch:
                what = "token ids" if setting == "tokens" else "the mask, or null without padding"
                raise ConfigError(
                    f"There is no column {name!r}; there are {', '.join(batch)}.",
                    where=f"task.{setting}",
                    mend=f"name the column of {what}",
                )
        mask = None if self.mask is None else batch[self.mask]
        return batch, next_tokens(batch[self.tokens], mask=mask)

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """Logits (B, T - 1, V) of the next token; packed where the model is in training mode.

        Raises:
            ConfigError: The model lets packed documents see each other, or cannot take them.
            EvaluationError: The model returned something else.
        """
        inputs, target = self.split_batch(batch)
        if self.pack is not None and model.training:
            return self._packed(model, inputs, length=self.pack)[:, :-1]
        return self._logits(model, inputs, len(target))[:, :-1]

    def _logits(self, model: nn.Module, inputs: Any, rows: int) -> Tensor:
        what = "logits (rows, positions, tokens)"
        return require_outputs(called(model, inputs), rows, dimensions=3, what=what, model=model)

    def _packed(self, model: nn.Module, inputs: Any, *, length: int) -> Tensor:
        """Logits (B, T, V) by way of packed rows."""
        if self._proven is None or self._proven() is not model:
            self._prove(model, inputs)
        return self._through(model, inputs, length)

    def _through(self, model: nn.Module, inputs: dict[str, Tensor], length: int) -> Tensor:
        assert self.mask is not None
        plan = packing(inputs[self.mask] != 0, length=length)
        return through(
            lambda given: self._logits(model, given, plan.rows),
            inputs,
            plan,
            mask=self.mask,
            names=accepted(model),
            dtype=floating(model),
        )

    def _prove(self, model: nn.Module, inputs: dict[str, Tensor]) -> None:
        """Refuse a model that gives packed documents other logits than documents alone."""
        assert self.mask is not None
        used = inputs[self.mask] != 0
        chosen = (used.sum(dim=1) > 1).nonzero()[:TRIED, 0]
        if len(chosen) < 2:
            return  # nothing to see, until a batch has two documents
        few = {name: values[chosen] for name, values in inputs.items() if len(values) == len(used)}
        with quietly(model), torch.autocast(used.device.type, enabled=False):
            alone = self._logits(model, few, len(chosen))
            try:
                packed = self._through(model, few, int(used[chosen].sum()))
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                raise _not_packable(model, f"fails on them: {first_line(error)}") from error
        if not same_logits(alone, packed, used[chosen]):
            raise _not_packable(model, "lets them see each other, or counts their positions on")
        self._proven = weakref.ref(model)

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


def next_tokens(tokens: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """What comes next at each position but the last (B, T - 1), -100 where nothing is asked.

    Args:
        tokens: Ids (B, T).
        mask: 0 at padding (B, T).

    >>> next_tokens(torch.tensor([[7, 8, 9, 0]]), mask=torch.tensor([[1, 1, 1, 0]])).tolist()
    [[8, 9, -100]]
    """
    target = tokens[:, 1:].long()
    if mask is None:
        return target
    return target.masked_fill((mask[:, 1:] == 0) | (mask[:, :-1] == 0), IGNORED)


def _not_packable(model: nn.Module, reason: str) -> ConfigError:
    return ConfigError(
        f"Documents cannot be packed for {type(model).__name__}: it {reason}.",
        where=WHERE,
        mend="set task.pack=null; or let forward heed position_ids (R, L) and an attention_mask "
        "(R, 1, L, L) that is added to the scores, as transformers' models do with sdpa or eager "
        "attention",
    )
