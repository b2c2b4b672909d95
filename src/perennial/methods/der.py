"""Dark experience replay: remembered rows keep the logits that they once had."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch

from perennial.errors import require_setting
from perennial.methods.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from perennial.types import StepContext

DTYPES = ("float32", "float16")


class DER(Method):
    r"""DER++ (Buzzega et al., Dark Experience for General Continual Learning, NeurIPS 2020).

    Adds ``alpha · mean (z − z*)²`` over the replayed rows of a batch and the classes whose logit is
    known, with z the model's logits and z* those that the row was stored with: of the version that
    learned it, in evaluation mode, by class name. Labels of replayed rows enter through replay,
    which has to be there. With w the weight of new rows (replay's ``new_weight``, or their share),
    the paper's objective L_new + α · mean (z − z*)² + β · L_replayed, multiplied by w, is this one
    at α = ``alpha`` / w and β = (1 − w) / w; one draw from memory serves both terms, where the
    paper takes two.

    Cost: nothing measurable per step where the module returns its logits, else one more forward;
    4 · C bytes per remembered row (2 as ``float16``), and as much in working memory per history
    row. Rows that no version stored logits for get the champion's, in one pass before training.
    Choose it beside replay where memory is small: a row with its logits tells more than one with
    its label alone. Logits belong to the very input that was stored: a module whose hooks change
    batches, and tokens with logits of their own, are refused.

    Args:
        alpha: Weight of the term, at least 0.
        dtype: Logits are stored as ``float32`` or ``float16``.

    Raises:
        ConfigError: A value out of range.
    """

    name: ClassVar[str] = "der"
    requires: ClassVar[frozenset[str]] = frozenset({"logits", "stored_logits"})
    needs_history: ClassVar[bool] = True
    needs_replay: ClassVar[bool] = True

    def __init__(self, *, alpha: float = 0.03, dtype: str = "float32") -> None:
        number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
        good = number and 0 <= alpha < math.inf
        require_setting(good, "method.der.alpha", alpha, "a number, at least 0 and finite")
        require_setting(dtype in DTYPES, "method.der.dtype", dtype, f"one of {', '.join(DTYPES)}")
        self.alpha = float(alpha)
        self.logits_dtype = dtype

    def loss_terms(self, step: StepContext) -> dict[str, Tensor]:
        """The distance from the stored logits."""
        assert step.batch.logits is not None, "replayed rows come with logits"
        return {"logits": self.alpha * distance(step.logits(), step.batch.logits)}


def distance(logits: Tensor, stored: Tensor) -> Tensor:
    """Mean squared difference over the entries that are stored; 0 where none is.

    Args:
        logits: (B, C), of any floating dtype.
        stored: (B, C), NaN where unknown.
    """
    known = ~torch.isnan(stored)
    # no branch on values, so that a GPU is not waited for
    difference = torch.where(known, logits.float() - stored.float(), 0.0)
    return difference.square().sum() / known.sum().clamp(min=1)
