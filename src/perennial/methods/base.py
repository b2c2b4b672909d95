"""The contract of a method: something that changes learning to protect retention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from perennial.errors import MethodError

if TYPE_CHECKING:
    from torch import Tensor

    from perennial.types import MethodContext, Part, StepContext


class Method:
    """A method and its phases; a subclass overrides the ones it needs.

    The gradient phases run once per optimizer step, after unscaling and all-reduce and before
    clipping, in the order observe, add, project, each over the methods sorted by name, so that
    the order in which a user lists methods is never a setting.

    Attributes:
        name: Key in the configuration, in logs and in a version's ``methods/<name>.safetensors``.
        requires: Capabilities that the module must give: ``per_example_loss``, ``logits``,
            ``features``, ``stored_logits``, ``softmax`` (the logits are those of one class a row).
        needs_history: Whether the method has nothing to work with where there is no history.
        needs_all_history: Whether a sample of it, as a memory is, would make it another method.
        learns_from_training: Whether `finish` needs to have seen the training that leads to a
            version, so that the method is attached when the first one is trained too.
        needs_replay: Whether the method speaks about replayed rows, so that another has to mix
            them into batches.
        holds_champion: Whether the method pulls the candidate towards the champion.
        drops_champion: Whether the method starts from other weights than the champion's.
        weighs_parameters: Whether what the method leaves for the next cycle belongs to single
            parameters, which then have to go on.
        logits_dtype: Dtype in which logits are kept with remembered rows for this method; None
            where it uses none.
    """

    name: ClassVar[str]
    requires: ClassVar[frozenset[str]] = frozenset()
    needs_history: ClassVar[bool] = False
    needs_all_history: ClassVar[bool] = False
    learns_from_training: ClassVar[bool] = False
    needs_replay: ClassVar[bool] = False
    holds_champion: ClassVar[bool] = False
    drops_champion: ClassVar[bool] = False
    weighs_parameters: ClassVar[bool] = False
    logits_dtype: str | None = None

    def new_share(self, new_rows: int, history_rows: int) -> float | None:
        """Share of new rows in a batch, where the method mixes history into it; else None."""
        return None

    def divide(self, step: StepContext) -> tuple[Part, ...]:
        """Before the training step: the forwards it is made of, none for a single plain one."""
        return ()

    def prepare(self, context: MethodContext) -> None:
        """Before fit: build anchors, precision or a teacher from the champion."""

    def loss_terms(self, step: StepContext) -> dict[str, Tensor]:
        """Differentiable scalars to add to the loss, logged by name."""
        return {}

    def observe_gradients(self, step: StepContext) -> None:
        """See the gradients of the loss before any method changed them."""

    def add_gradients(self, step: StepContext) -> None:
        """Add closed-form terms to ``.grad`` of the step's parameters."""

    def project_gradients(self, step: StepContext) -> None:
        """Replace the gradients; at most one method may."""

    def after_step(self, step: StepContext) -> None:
        """After an optimizer step that was really taken."""

    def adjust(self, context: MethodContext) -> None:
        """After fit, before any `finish`: may change the candidate's weights."""

    def finish(self, context: MethodContext) -> dict[str, Tensor]:
        """After fit: return the tensors that the next cycle needs, kept with the candidate."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resume needs: tensors and plain containers only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""


_MENDS = {
    "stored_logits": "use replay without stored logits",
    "softmax": "use another method, such as replay or ewc",
}
_ALONE = {
    "project_gradients": "project gradients",
    "new_share": "say what a batch is made of",
    "divide": "divide a batch into forwards",
}


def overrides(method: Method, phase: str) -> bool:
    """Whether a method has a phase of its own."""
    return getattr(type(method), phase) is not getattr(Method, phase)


def arrange(methods: Sequence[Method]) -> list[Method]:
    """Methods sorted by name, after checking that they can work together.

    Raises:
        MethodError: Two have one name, project gradients, or make up or divide the batch; one
            needs replay and there is none; or one drops the champion that another holds on to.
    """
    ordered = sorted(methods, key=lambda method: method.name)
    names = [method.name for method in ordered]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise MethodError(
            f"Method {repeated[0]!r} is listed twice.", where="method", mend="list it once"
        )
    for phase, words in _ALONE.items():
        several = [method.name for method in ordered if overrides(method, phase)]
        if len(several) > 1:
            raise MethodError(
                f"Methods {' and '.join(several)} both {words}; at most one can.",
                where="method",
                mend="leave one of them out",
            )
    drops = [method.name for method in ordered if method.drops_champion]
    holds = [method.name for method in ordered if method.holds_champion]
    if drops and holds:
        raise MethodError(
            f"Method {drops[0]!r} does not start from the champion, and {' and '.join(holds)} "
            f"{'holds' if len(holds) == 1 else 'hold'} on to it.",
            where="method",
            mend=f"leave out {drops[0]}, or {' and '.join(holds)}",
        )
    alone = [method.name for method in ordered if method.needs_replay]
    if alone and not any(overrides(method, "new_share") for method in ordered):
        raise MethodError(
            f"Method {alone[0]!r} speaks about replayed rows, and no method replays any.",
            where=f"method.{alone[0]}",
            mend=f"use method={alone[0]}, which brings replay, or 'method=[replay,{alone[0]}]'",
        )
    return ordered


def check_capabilities(methods: Sequence[Method], missing: Mapping[str, str], module: str) -> None:
    """Refuse a method whose needs the module does not meet.

    Args:
        methods: The methods of the run.
        missing: Capability to the reason why the module lacks it.
        module: The module's class, for the message.

    Raises:
        MethodError: Names the method and the capability.
    """
    for method in methods:
        for capability in sorted(method.requires & missing.keys()):
            raise MethodError(
                f"Method {method.name!r} needs {capability!r}, which {module} does not give: "
                f"{missing[capability]}.",
                where=f"method.{method.name}",
                mend=_MENDS.get(
                    capability,
                    f"give {module} a forward(inputs) that returns what the task expects",
                )
                + ", or leave the method out",
            )
