"""A model, the LightningModule it trains in, and what it can give to methods and tasks.

Shapes: B rows of a batch, C classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn

from perennial.data.datamodule import batches, move
from perennial.data.preprocess import Preprocessor
from perennial.data.preprocess.base import applied
from perennial.data.rows import Rows
from perennial.errors import ConfigError, DataError, PerennialError
from perennial.evaluation.predict import eval_mode, predict
from perennial.methods.batch_norm import batch_norms, statistics
from perennial.models.adapter import Adapter, adapt, merge
from perennial.models.checkpoint import match, version_files
from perennial.models.freezing import freeze
from perennial.models.head import Growing, Head, find_head, grow, trains
from perennial.models.rebuild import Recorded
from perennial.tasks.base import Task
from perennial.training.attach import combine
from perennial.training.optimizer import OptimizerFactory
from perennial.training.root import root_module
from perennial.types import Batch, Floats, MethodContext, Predictions, VersionView

_LACKING = re.compile(r"'(\w+)'")


@dataclass(frozen=True)
class Constructor:
    """A constructor by name with its arguments as data: all that a version keeps of its code.

    Attributes:
        target: Import path.
        arguments: Plain values.
        build: Makes the object, with other arguments where it is called with any; comes from the
            user's own configuration, never from a version.
        head: The output layer that a lineage's new classes made wider than the arguments say.
        freeze: Patterns of parameters that do not train.
        adapter: Factors beside linear layers that train in the place of these.
        recorded: Arguments in which a version keeps what the model read elsewhere when it was
            founded; they take the place of the configured ones.
        carried: Arguments that the founding checkpoint brought; configured ones take their place.
    """

    target: str
    arguments: Mapping[str, Any]
    build: Callable[..., Any]
    head: Head | None = None
    freeze: tuple[str, ...] = ()
    adapter: Adapter | None = None
    recorded: Mapping[str, Any] = field(default_factory=dict)
    carried: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> Any:
        """The object, of all arguments there are."""
        own = {key: value for key, value in self.carried.items() if key not in self.arguments}
        return self.build(**{**own, **self.recorded})

    def filled(self, preprocess: Preprocessor | None) -> Constructor:
        """With what a fitted preprocessor knows in the place of arguments that are None."""
        known = {} if preprocess is None else preprocess.fills()
        given = {k: known[k] for k, v in self.arguments.items() if v is None and k in known}
        if not given:
            return self
        return replace(
            self, arguments={**self.arguments, **given}, build=partial(self.build, **given)
        )

    def describe(self) -> dict[str, Any]:
        """As a version's manifest keeps it."""
        arguments = {**self.carried, **self.arguments}
        described: dict[str, Any] = {"target": self.target, "arguments": arguments}
        if self.carried:
            described["carried"] = dict(self.carried)
        if self.head is not None:
            described["head"] = asdict(self.head)
        if self.recorded:
            described["recorded"] = dict(self.recorded)
        if self.adapter is not None and self.adapter.store == "adapter":
            described["adapter"] = self.adapter.describe()
        return described


@dataclass
class Learner:
    """What trains.

    Attributes:
        module: The LightningModule at the root.
        model: The model of record, ``module`` itself or the plain module inside it.
        task: Turns outputs into losses and scores.
        device: Where the model lies outside of Lightning's fit.
        form: Form of a batch, ``tuple`` or ``dict``.
        label: Key of the labels in a dict.
        eval_batch: Rows of a batch where nothing is trained.
        notes: Lines for the user.
        constructor: What built the model, and how it differs from that since.
        preprocess: Makes model inputs of raw columns, fitted; None where they are inputs already.
    """

    module: pl.LightningModule
    model: nn.Module
    task: Task
    constructor: Constructor
    device: torch.device
    form: str
    label: str | None
    eval_batch: int = 512
    notes: tuple[str, ...] = ()
    preprocess: Preprocessor | None = None

    def inputs(self, rows: Rows) -> Rows:
        """Rows with model inputs in the place of raw columns."""
        return applied(self.preprocess, rows)

    @property
    def head(self) -> Head | None:
        """The output layer, once new classes made it wider than the constructor does."""
        return self.constructor.head

    def view(self, version: VersionView) -> VersionView:
        """A version with its weights under the names of this model, checked to fit it."""
        weights = match(version.weights, self.model, where=version.id)
        return replace(version, weights=weights)

    def settle(self) -> None:
        """After training: the model as its version will be, factors merged where that is set."""
        if self.constructor.adapter is not None and self.constructor.adapter.store == "merged":
            merge(self.model)

    def weight_files(self) -> dict[str, bytes]:
        """The files that keep the present weights in a version."""
        adapter = self.constructor.adapter
        adapted = adapter is not None and adapter.store == "adapter"
        return version_files(self.model, adapted=adapted)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Put weights, checked to fit before, into the model."""
        self.model.load_state_dict(dict(weights))
        self.model.to(self.device)

    def batches(self, rows: Rows, *, is_new: bool = True) -> Iterator[Batch]:
        """All rows, raw as they are kept, in order on the model's device."""
        size = self.eval_batch
        for start in range(0, len(rows), size):
            part = self.inputs(rows.take(slice(start, start + size)))
            for batch in batches(part, size=size, form=self.form, label=self.label, is_new=is_new):
                data = move(batch.data, self.device)
                yield Batch(data=data, ids=batch.ids, is_new=batch.is_new)

    def predict(self, rows: Rows, *, classes: int | None = None) -> Predictions:
        """Score rows with the present weights; see `perennial.evaluation.predict`."""
        self.model.to(self.device)
        return predict(self.module, self.task, self.batches(rows), classes=classes)

    def score(
        self, rows: Mapping[str, Rows | None], *, classes: int | None = None
    ) -> dict[str, float]:
        """Mean score of each set that has rows, and ``combined``."""
        means = {
            name: float(self.predict(part, classes=classes).score.mean())
            for name, part in rows.items()
            if part is not None and len(part)
        }
        return combine(means)

    def find_head(self, rows: Rows) -> Head:
        """The layer that new classes widen.

        Args:
            rows: At least one, to run the model on.

        Raises:
            ConfigError: There is none, or it does not train.
        """
        batch = next(self.batches(rows.take(slice(0, 2))))

        def logits() -> Tensor:
            with eval_mode(self.module):
                return self.task.outputs(self.module, batch.data)

        head = find_head(self.model, logits)
        if self.preprocess is not None and not isinstance(self.model, Growing):
            _refuse_inputs_that_grow(self.preprocess, self.model)
        if not trains(self.model, head):
            raise ConfigError(
                f"The output layer {head.name!r} is frozen, so that it cannot learn new classes.",
                where="model, data.new_classes",
                mend="let its weight require gradients",
            )
        return head

    def grow(self, rows: Rows, label_names: Sequence[str], *, seed: int) -> None:
        """Give the model as many outputs as there are classes, keeping those it has.

        Args:
            rows: At least one, to find the output layer by.
            label_names: Classes or items to have outputs for, the new ones last.
            seed: Of the run, for the weights of new outputs.

        Raises:
            ConfigError: There is no layer to widen, or the new ones are inputs too and the model
                does not say how it grows.
        """
        head = Head(name=self.find_head(rows).name, outputs=len(label_names))
        grow(self.model, head, seed=seed)
        self.constructor = replace(self.constructor, head=head)
        if self.preprocess is not None:
            self.preprocess = self.preprocess.knowing(label_names)


def _refuse_inputs_that_grow(preprocess: Preprocessor, model: nn.Module) -> None:
    """New names would be numbers that the model's embedding has no row for."""
    if preprocess.knowing(()) is not preprocess:
        raise ConfigError(
            f"New items are inputs of {type(model).__name__} too, which does not say how its "
            "embedding grows.",
            where="model, data.new_classes",
            mend="use model=sequential, or give it a method grow_outputs as "
            "perennial.models.head.Growing has it",
        )


def build_learner(
    *,
    model: Constructor,
    task: Task,
    optimizer: OptimizerFactory,
    device: torch.device,
    form: str,
    label: str | None,
    preprocess: Preprocessor | None = None,
) -> Learner:
    """Build the model and, unless it is a LightningModule already, the module around it.

    Args:
        model: Its constructor; arguments that are None take what ``preprocess`` knows.
        task: What it is for.
        optimizer: For a plain module, and for one that brings none.
        device: Where it lies outside of Lightning's fit.
        form: Form of a batch, ``tuple`` or ``dict``.
        label: Key of the labels in a dict.
        preprocess: Fitted, or None.

    Raises:
        ConfigError: The constructor failed or gave something that is no module, or not one whose
            output layer can be as wide as the lineage's.
    """
    model = model.filled(preprocess)
    try:
        built = model.make()
    except PerennialError:
        raise
    except Exception as error:
        lacking = _LACKING.findall(str(error)) if "required" in str(error) else []
        raise ConfigError(
            f"The model could not be built: {error}",
            where=f"model ({model.target})",
            mend=f"give {' '.join(f'+model.{name}=...' for name in lacking)}"
            if lacking
            else "check the arguments under model in --cfg job against the constructor's",
        ) from error
    if not isinstance(built, nn.Module):
        raise ConfigError(
            f"{model.target} gave a {type(built).__name__}, not a torch module.",
            where="model._target_",
            mend="name a torch.nn.Module or a LightningModule",
        )
    if model.head is not None:
        # any seed: weights are loaded over what is drawn here
        grow(built, model.head, seed=0)
    adapted = adapt(built, model.adapter) if model.adapter else []
    frozen = freeze(built, model.freeze) if model.freeze else []
    module, notes = root_module(built, task=task, optimizer=optimizer)
    if frozen:
        notes = (*notes, f"{len(frozen)} parameters are frozen ({', '.join(model.freeze)})")
    if adapted:
        notes = (*notes, f"{len(adapted)} linear layers train by factors of rank {_rank(model)}")
    built.to(device)
    recorded = built.recorded() if isinstance(built, Recorded) else {}
    return Learner(
        module=module,
        model=built,
        task=task,
        device=device,
        form=form,
        label=label,
        notes=notes,
        constructor=replace(model, recorded=recorded),
        preprocess=preprocess,
    )


def _rank(model: Constructor) -> int:
    assert model.adapter is not None
    return model.adapter.rank


def output_width(learner: Learner, rows: Rows) -> int:
    """Number of classes C that the model gives; 1 where an output is one number.

    Raises:
        ConfigError: The model's forward fails on the data's batches; the message shows both.
    """
    batch = next(learner.batches(rows.take(slice(0, 2))))
    name = type(learner.model).__name__
    try:
        with eval_mode(learner.module):
            outputs = learner.task.outputs(learner.module, batch.data)
            return int(outputs.shape[-1]) if outputs.ndim > 1 else 1
    except PerennialError:
        raise
    except Exception as error:
        # the module is foreign code: whatever it raises is the reason
        inputs, _ = learner.task.split_batch(batch.data)
        raise ConfigError(
            f"{name} cannot take a batch of the data ({type(error).__name__}: {error}).",
            where="model, data.features, data.form",
            mend=f"with data.form={learner.form} its forward gets {describe(inputs)} from the "
            f"columns {', '.join(learner.inputs(rows).features)}; name the right ones in "
            "data.features, or use "
            f"data.form={'tuple' if learner.form == 'dict' else 'dict'}, or mend the model",
        ) from error


def describe(value: Any) -> str:
    """Shapes and dtypes of a batch's inputs, in words."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {describe(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return ", ".join(describe(one) for one in value)
    return type(value).__name__


def fit_label_names(
    names: tuple[str, ...], width: int, *, target: str, numbered: bool
) -> tuple[str, ...]:
    """Make label names agree with the model's outputs.

    Whole-number labels stand for positions, so that a class without a row in the data is still
    there; named ones must match one to one, names that look like numbers among them.

    Args:
        names: Class names as the data have them.
        width: Number of outputs.
        target: The model, for the message.
        numbered: Whether labels are whole numbers, named by their positions.

    Raises:
        DataError: More labels than outputs, or named labels that are fewer.
    """
    if len(names) == width:
        return names
    if len(names) < width and numbered:
        return tuple(str(position) for position in range(width))
    relation = "more" if len(names) > width else "fewer"
    raise DataError(
        f"A label is out of range: the data have {len(names)} classes, {relation} than the "
        f"{width} outputs of {target}; they are {', '.join(names[:10])}"
        f"{', …' if len(names) > 10 else ''}.",
        where="data.history, data.new, task.labels",
        mend="correct the labels, give the model as many outputs, or name its outputs in their "
        "order with task.labels=[...]",
    )


def method_context(
    learner: Learner,
    *,
    champion: VersionView,
    new: Rows,
    history: Rows | None,
    validation: Mapping[str, Rows | None],
    seed: int,
    missing: Mapping[str, str],
    warn: Callable[[str], None],
    champion_scores: Mapping[str, float] | None = None,
    replays: bool = False,
    history_weight: Floats | None = None,
) -> MethodContext:
    """What methods get before and after training."""
    present = "logits" not in missing

    def loss(data: Any) -> Tensor:
        return learner.task.per_example_loss(learner.task.outputs(learner.module, data), data)

    def rows(part: Rows | None, is_new: bool) -> Callable[[], Iterable[Batch]]:
        return lambda: () if part is None else learner.batches(part, is_new=is_new)

    return MethodContext(
        model=learner.model,
        replays=replays,
        history_weight=history_weight,
        champion=champion,
        logits=learner.task.outputs if present else None,
        per_example_loss=loss if present else None,
        features=None,
        targets=lambda data: learner.task.split_batch(data)[1],
        likelihood=learner.task.likelihood,
        history=rows(history, False),
        new=rows(new, True),
        validate=lambda: learner.score(validation),
        champion_scores=champion_scores or {},
        history_count=0 if history is None else len(history),
        new_count=len(new),
        seed=seed,
        generator=torch.Generator().manual_seed(seed),
        device=learner.device,
        warn=warn,
    )


def memory_gradients(
    learner: Learner, history: Rows, *, seed: int
) -> Callable[[int, int], dict[str, Tensor]]:
    """Gradients of the mean loss on remembered rows, as a function of step and number of rows.

    Which rows is fixed by seed and step, so that ranks agree and a resumed run draws the same;
    more than there are come with replacement. Batch norms keep their statistics.
    """

    def gradients(step: int, rows: int) -> dict[str, Tensor]:
        generator = np.random.default_rng([seed, step])
        chosen = generator.choice(len(history), size=rows, replace=rows > len(history))
        drawn = learner.inputs(history.take(chosen))
        batch = next(batches(drawn, size=rows, form=learner.form, label=learner.label))
        model = learner.model
        parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        device = next(iter(parameters.values())).device
        data = move(batch.data, device)
        with statistics(batch_norms(model), "running"), torch.enable_grad():
            outputs = learner.task.outputs(model, data)
            loss = learner.task.per_example_loss(outputs, data).mean()
            found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        return {n: g for n, g in zip(parameters, found, strict=True) if g is not None}

    return gradients


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
