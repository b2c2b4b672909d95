"""The values that rooms hand to each other: Batch, StepContext, VersionView, EvaluationReport.

Shapes: B rows of a batch, N rows of a set, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Generator, Tensor, device, nn

Strings = npt.NDArray[np.str_]
Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]
Booleans = npt.NDArray[np.bool_]


class Show(Protocol):
    """Shows a person how far a phase is."""

    def __call__(self, step: int, steps: int, scores: str, *, stopped: bool = False) -> None:
        """Show the step, how many there are, and the last validation scores in words.

        Args:
            step: Optimizer steps taken.
            steps: Optimizer steps there are to be.
            scores: Of the last validation, or an empty string.
            stopped: That training is over before ``steps``; left out everywhere else.
        """


def show_nothing(step: int, steps: int, scores: str, *, stopped: bool = False) -> None:
    """A `Show` for nobody."""


@dataclass(frozen=True)
class Batch:
    """New and replayed rows of one step.

    Attributes:
        data: The batch in the source's own form, a tuple or a dict of tensors (B, ...): what a
            module's ``training_step`` gets.
        ids: Row ids (B,).
        is_new: Origin mask (B,): True for a new row, False for a replayed one.
    """

    data: Any
    ids: Strings
    is_new: Booleans

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class StepContext:
    """What a method may see of one training step.

    Attributes:
        batch: Rows of the step; ``batch.data`` lies on the module's device.
        model: The model of record, whose parameter names the champion's weights carry.
        parameters: Trainable parameters by those names.
        outputs: What the module's ``training_step`` returned.
        global_step: Optimizer steps taken before this one.
        is_logging: Whether values computed only to be logged are wanted in this step.
        world_size: Number of ranks.
        log: Takes a name and a scalar; a no-op where nothing is logged.
        logits_of: A model of the class of ``model``, and batch data, to logits (B, C).
        memory_gradients: A number of rows to the gradients, by parameter name, of the mean loss
            over as many history rows, drawn by seed and step and alike on every rank.
        optimizer: The run's.
    """

    batch: Batch
    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    outputs: Any = None
    global_step: int = 0
    is_logging: bool = False
    world_size: int = 1
    log: Callable[[str, Any], None] = lambda name, value: None
    logits_of: Callable[[nn.Module, Any], Tensor] | None = None
    memory_gradients: Callable[[int], Mapping[str, Tensor]] | None = None
    optimizer: Any = None

    def logits(self) -> Tensor:
        """The model's logits (B, C) on the batch, with a graph.

        Those of the training step where it returned them, else from a forward of its own.
        """
        if isinstance(self.outputs, Mapping) and "logits" in self.outputs:
            found: Tensor = self.outputs["logits"]
            return found
        assert self.logits_of is not None
        return self.logits_of(self.model, self.batch.data)

    def learning_rates(self) -> dict[str, float]:
        """Present learning rate of each parameter."""
        rates = {
            id(parameter): float(group["lr"])
            for group in self.optimizer.param_groups
            for parameter in group["params"]
        }
        return {name: rates.get(id(parameter), 0.0) for name, parameter in self.parameters.items()}

    @property
    def is_plain_sgd(self) -> bool:
        """Whether the optimizer's step is the gradient times the learning rate."""
        return type(self.optimizer).__name__ == "SGD"


@dataclass(frozen=True)
class VersionView:
    """A version's tensors in memory, as methods see them.

    Attributes:
        id: ``name@number``.
        weights: The model's state dict, on the CPU.
        methods: State that methods left for the next cycle: method name to tensors by name.
        label_names: Class names in the order of the model's outputs.
    """

    id: str
    weights: Mapping[str, Tensor]
    methods: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    label_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class MethodContext:
    """What a method gets before and after training.

    Attributes:
        model: The model of record, on ``device``; before fit it holds the champion's weights,
            after fit the candidate's.
        champion: The serving version.
        logits: A model of the class of ``model``, and batch data, to logits (B, C); None where the
            module lacks the capability.
        per_example_loss: Batch data to losses (B,); likewise.
        features: Batch data to features (B, D); likewise.
        history: Yields history training rows once, in batches on ``device``.
        new: Yields new training rows once, likewise.
        validate: Scores the model's present weights on validation rows: names (``new``,
            ``history``, ``combined``) to scores.
        history_count: Rows that ``history`` yields.
        new_count: Rows that ``new`` yields.
        seed: Seed of the run; together with a row id it fixes every draw about that row.
        generator: For draws that belong to no row.
        device: Where the model lies.
        warn: Shows the user one line.
        targets: Batch data to observed labels (B,).
    """

    model: nn.Module
    champion: VersionView
    logits: Callable[[nn.Module, Any], Tensor] | None
    per_example_loss: Callable[[Any], Tensor] | None
    features: Callable[[Any], Tensor] | None
    history: Callable[[], Iterable[Batch]]
    new: Callable[[], Iterable[Batch]]
    validate: Callable[[], Mapping[str, float]]
    history_count: int
    new_count: int
    seed: int
    generator: Generator
    device: device
    warn: Callable[[str], None] = lambda message: None
    targets: Callable[[Any], Tensor] | None = None


@dataclass(frozen=True)
class Predictions:
    """One model over N rows.

    Attributes:
        prediction: Predicted label (N,), index into the label names.
        score: Per-example score (N,), higher is better; 0/1 for classification.
        loss: Per-example loss (N,), in nats for classification.
        probabilities: (N, C), or None for a task without classes.
    """

    prediction: Integers
    score: Floats
    loss: Floats
    probabilities: Floats | None = None

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class EvaluationReport:
    """Champion and candidate on the same N frozen rows, row by row.

    Attributes:
        row_id: (N,).
        cluster: Rows with one cluster (N,) are dependent: duplicates, or one user's.
        holdout: ``new``, or ``history/<cycle>`` for the holdout that cycle added (N,).
        label: True label (N,), index into ``label_names``.
        seen_by_champion: Rows that the adopted champion was trained on (N,); False in general.
        champion: The serving version's predictions.
        candidate: The trained version's predictions.
        label_names: Class names in the order of the labels.
    """

    row_id: Strings
    cluster: Strings
    holdout: Strings
    label: Integers
    seen_by_champion: Booleans
    champion: Predictions
    candidate: Predictions
    label_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.row_id)

    @property
    def is_new(self) -> Booleans:
        """Rows of the new holdout (N,)."""
        mask: Booleans = self.holdout == "new"
        return mask
