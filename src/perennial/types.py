"""The values that rooms hand to each other: Batch, StepContext, VersionView, EvaluationReport.

Shapes: B rows of a batch, N rows of a set, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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

# what a row's target is: a class; several of them; a number; a class at each position; an item of
# a catalogue; or nothing beside the inputs
TARGET_KINDS = ("class", "classes", "number", "tokens", "item", "none")
# kinds whose outputs are classes with names
NAMED_KINDS = ("class", "classes", "tokens")


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
        logits: Stored logits (B, C), NaN for new rows and for classes without one; None where no
            method of the run uses them.
    """

    data: Any
    ids: Strings
    is_new: Booleans
    logits: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Part:
    """Rows of a batch that go through the model in a forward of their own.

    Attributes:
        rows: Which ones (B,).
        weight: Of their loss in that of the step, in (0, 1].
        statistics: What batch norms do with them: ``update`` normalises by these rows and updates
            the running statistics, ``batch`` normalises by these rows alone, ``running`` by the
            running statistics.
    """

    rows: Booleans
    weight: float
    statistics: str


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
        own_logits: Forms the logits (B, C) of the batch with a graph, divided as the step was and
            without a trace in running statistics.
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
    own_logits: Callable[[], Tensor] | None = None
    memory_gradients: Callable[[int], Mapping[str, Tensor]] | None = None
    optimizer: Any = None
    _formed: Tensor | None = field(default=None, repr=False)

    def logits(self) -> Tensor:
        """The model's logits (B, C) on the batch, with a graph, in the order of the batch.

        Those of the training step where it returned them, else from one forward for all methods.
        """
        if isinstance(self.outputs, Mapping) and "logits" in self.outputs:
            found: Tensor = self.outputs["logits"]
            return found
        if self._formed is None:
            assert self.own_logits is not None
            self._formed = self.own_logits()
        return self._formed

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


class Likelihood(Protocol):
    """The density of a row's target given the model's outputs (B, ...).

    Its negative log is the task's per-example loss up to an added constant, so that the Fisher is
    in the loss's own units: for squared error it is a Gaussian of variance ½, not of variance 1.
    """

    def gradient(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Of the log density at each row's target, by the outputs, in their shape."""
        ...

    def draw(
        self, outputs: Tensor, ids: Strings, seed: int, observed: Tensor | None = None
    ) -> Tensor:
        """Targets (B, ...) from the density, each fixed by its outputs, row id (B,) and seed.

        Of the observed targets (B, ...) it takes which of a row's values there are, nothing else;
        None is all.
        """
        ...

    def expectation(self, outputs: Tensor, observed: Tensor | None = None) -> Iterator[Tensor]:
        """Terms v, each in the outputs' shape, with Σ v vᵀ the expected outer gradient product.

        Observed targets as for `draw`.
        """
        ...

    def terms(self, outputs: Tensor) -> int:
        """How many terms `expectation` yields."""
        ...


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
        targets: Batch data to observed targets (B, ...).
        champion_scores: The champion's own scores, by the names that ``validate`` gives; empty
            where there is no training.
        likelihood: Density of the targets given the outputs; None is the softmax of the logits.
        replays: Whether batches hold rows of history beside the new ones.
        history_weight: How many training rows of history each one that ``history`` yields stands
            for (N,), in its order: a memory is a sample. None is one each.
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
    champion_scores: Mapping[str, float] = field(default_factory=dict)
    likelihood: Likelihood | None = None
    replays: bool = False
    history_weight: Floats | None = None

    @property
    def old_classes(self) -> int | None:
        """Number of classes that the champion knows; ``model`` may have more. None for all."""
        return len(self.champion.label_names) or None


@dataclass(frozen=True)
class Predictions:
    """One model over N rows.

    Attributes:
        prediction: What is predicted (N, ...), in the form of the target: an index into the label
            names, for a ranking the first items.
        score: Per-example score (N,), higher is better; 0/1 for classification.
        loss: Per-example loss (N,), in nats for classification.
        probabilities: (N, C), or None for a task without classes.
    """

    prediction: npt.NDArray[Any]
    score: Floats
    loss: Floats
    probabilities: Floats | None = None

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class Fitted:
    """Both models on new training rows, a sample of them: what over-fitting is seen by.

    Attributes:
        champion: The champion's scores (M,).
        candidate: The candidate's (M,).
        cluster: Rows with one cluster (M,) are dependent.
    """

    champion: Floats
    candidate: Floats
    cluster: Strings


@dataclass(frozen=True)
class Serving:
    """What one model costs to serve.

    Attributes:
        parameters: Number of them, frozen ones and those of merged parts included.
        bytes: Of the stored weights.
        latency: Seconds of one forward on one batch (R,), over R rounds in which champion and
            candidate took turns on one device.
    """

    parameters: int
    bytes: int
    latency: Floats


@dataclass(frozen=True)
class Measured:
    """One torchmetrics metric of the candidate over the rows of one part.

    Attributes:
        value: Over all rows.
        replicates: Over resampled clusters (R,), for the interval.
        higher_is_better: The metric's own direction.
        n: Rows.
    """

    value: float
    replicates: Floats
    higher_is_better: bool
    n: int


@dataclass(frozen=True)
class EvaluationReport:
    """Champion and candidate on the same N frozen rows, row by row.

    Attributes:
        row_id: (N,); unique within a holdout.
        cluster: Rows with one cluster (N,) are dependent: duplicates, or one user's.
        holdout: ``new``, or ``history/<cycle>`` for the holdout that cycle added (N,).
        label: Target (N, ...), of the dtype of its kind: for a class an index into
            ``label_names``.
        seen_by_champion: Rows that the adopted champion was trained on (N,); False in general.
        champion: The serving version's predictions.
        candidate: The trained version's predictions.
        label_names: Class names in the order of the labels, none for a task without classes; the
            champion may know only the first of them, and its predictions are over all nevertheless.
        cycle_name: Of the cycle that held the new rows out, ``cycle-<number>``.
        slices: Slice column to each row's value (N,), empty text where it is not known.
        best: Score (N,) that the best champion ever on the row's holdout gave it, NaN for new
            rows; None where the present champion is the only one there was.
        best_versions: Holdout to the id of that champion.
        score_name: What the mean score is called, ``accuracy``.
        score_unit: ``points`` for scores that are shares, else empty.
        target_kind: What the targets are, one of `TARGET_KINDS`.
        fitted: Both models on new training rows; None where they were not scored.
        serving: ``champion`` and ``candidate`` to what serving them costs; empty where it was not
            measured.
        measured: Key of a bound to the candidate's metric, see ``perennial.promotion.policy``.
    """

    row_id: Strings
    cluster: Strings
    holdout: Strings
    label: npt.NDArray[Any]
    seen_by_champion: Booleans
    champion: Predictions
    candidate: Predictions
    label_names: tuple[str, ...] = ()
    cycle_name: str = "new"
    slices: Mapping[str, Strings] = field(default_factory=dict)
    best: Floats | None = None
    best_versions: Mapping[str, str] = field(default_factory=dict)
    score_name: str = "accuracy"
    score_unit: str = "points"
    target_kind: str = "class"
    fitted: Fitted | None = None
    serving: Mapping[str, Serving] = field(default_factory=dict)
    measured: Mapping[str, Measured] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.row_id)

    @property
    def has_one_class(self) -> bool:
        """Whether each row is of one class, which a prediction meets or misses."""
        return self.target_kind == "class" and bool(self.label_names)

    @property
    def is_new(self) -> Booleans:
        """Rows of the new holdout (N,)."""
        mask: Booleans = self.holdout == "new"
        return mask

    @property
    def cycle(self) -> Strings:
        """Name of the cycle that held each row out (N,)."""
        return np.array(
            [
                self.cycle_name if name == "new" else name.removeprefix("history/")
                for name in self.holdout.tolist()
            ]
        )
