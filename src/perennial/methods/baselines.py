"""Upper bounds that need all of history: joint training, and training from nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from perennial.errors import MethodError
from perennial.methods.base import Method

if TYPE_CHECKING:
    from perennial.types import MethodContext


class Joint(Method):
    """Fine-tuning on new rows and all of history, in the proportion in which they are there.

    The upper bound that continual learning is measured by (Caruana, Multitask Learning, 1997).
    Cost: none per step; history must be there in full. Choose it as a baseline, or where history
    is small.
    """

    name: ClassVar[str] = "joint"
    needs_history: ClassVar[bool] = True
    needs_all_history: ClassVar[bool] = True

    def new_share(self, new_rows: int, history_rows: int) -> float:
        """New rows among all rows."""
        return new_rows / (new_rows + history_rows)


class Scratch(Joint):
    """A new model, trained on new rows and all of history: what retraining meant before.

    Cost: none per step, but it needs as many steps as the first training did. Choose it as a
    baseline.
    """

    name: ClassVar[str] = "scratch"
    drops_champion: ClassVar[bool] = True

    def prepare(self, context: MethodContext) -> None:
        """Draw all weights anew.

        Raises:
            MethodError: A layer has no ``reset_parameters``.
        """
        for name, module in context.model.named_modules():
            own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif own:
                raise MethodError(
                    f"Layer {name or '(root)'!r} ({type(module).__name__}) cannot be drawn anew.",
                    where="method.scratch",
                    mend="give it a reset_parameters(), as torch's own layers have, or use "
                    "method=joint",
                )
