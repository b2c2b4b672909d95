"""Averaged gradient episodic memory: no step that raises the loss on remembered rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from perennial.errors import require_setting
from perennial.methods.base import Method

if TYPE_CHECKING:
    from perennial.types import MethodContext, StepContext


class AGEM(Method):
    r"""A-GEM (Chaudhry et al., Efficient Lifelong Learning with A-GEM, ICLR 2019).

    Where the gradient g points against g_ref, that of remembered rows, it is replaced by
    ``g − (gᵀg_ref / g_refᵀg_ref) · g_ref``. Cost: one forward and backward over ``rows`` remembered
    rows per step. Choose it where the loss on the past must not be traded away at any step; replay
    usually retains more for the same price. It is the last to touch the gradient, so that other
    methods' terms are projected too.

    Args:
        rows: Remembered rows per step, at least 1; drawn with replacement where there are fewer.

    Raises:
        ConfigError: A value out of range.
    """

    name: ClassVar[str] = "agem"
    requires: ClassVar[frozenset[str]] = frozenset({"per_example_loss"})
    needs_history: ClassVar[bool] = True

    def __init__(self, *, rows: int = 64) -> None:
        whole = isinstance(rows, int) and not isinstance(rows, bool)
        require_setting(
            whole and rows >= 1, "method.agem.rows", rows, "a whole number from 1 upward"
        )
        self.rows = rows

    def prepare(self, context: MethodContext) -> None:
        """Say where rows have to be drawn with replacement."""
        if context.history_count < self.rows:
            context.warn(
                f"agem: memory has {context.history_count} rows, fewer than the {self.rows} of a "
                "step; they are drawn with replacement"
            )

    def project_gradients(self, step: StepContext) -> None:
        """Take away the part that points against memory."""
        assert step.memory_gradients is not None
        reference = step.memory_gradients(self.rows)
        pairs = [
            (parameter.grad, reference[name])
            for name, parameter in step.parameters.items()
            if parameter.grad is not None and name in reference
        ]
        if not pairs:
            return
        with torch.no_grad():
            along = torch.stack([(g * r).sum(dtype=torch.float64) for g, r in pairs]).sum()
            norm = torch.stack([(r * r).sum(dtype=torch.float64) for _, r in pairs]).sum()
            # without a branch on the value, so that a GPU is not waited for
            factor = torch.where((along < 0) & (norm > 0), -along / norm.clamp(min=1e-300), 0.0)
            for gradient, remembered in pairs:
                gradient.add_(remembered * factor.to(gradient.dtype))
        if step.is_logging:
            step.log("agem/projected", float(along < 0))
