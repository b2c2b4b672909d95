"""Methods attached to any LightningModule from outside.

The instance's ``training_step`` is wrapped to add loss terms, its ``validation_step`` to score rows
by the task; one callback carries the gradient and step hooks. The module stays the root, so its own
hooks and ``self.log`` work as they did.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn

from perennial.data.datamodule import TrainLoader, ValidationLoader
from perennial.errors import TrainingError
from perennial.evaluation.predict import eval_mode
from perennial.methods.base import Method
from perennial.methods.batch_norm import batch_norms, statistics
from perennial.stopwatch import Stopwatch
from perennial.tasks.base import Task
from perennial.training.optimization import require_loss
from perennial.training.parts import in_order, over_parts, step_in_parts
from perennial.types import Batch, Part, StepContext


class MethodCallback(pl.Callback):
    """Carries the phases of the methods; see `perennial.methods.base.Method`.

    Args:
        methods: In the order they run, as `perennial.methods.base.arrange` gives them.
        model: The model of record.
        loader: Tells the ids and origins of the rows of the step.
        log_every: Optimizer steps between steps whose values are logged.
        logits_of: A model and a batch's data to logits, by the task.
        memory_gradients: Step and number of rows to gradients on remembered rows.
    """

    def __init__(
        self,
        *,
        methods: Sequence[Method],
        model: nn.Module,
        loader: TrainLoader,
        log_every: int,
        logits_of: Callable[[nn.Module, Any], Tensor] | None = None,
        memory_gradients: Callable[[int, int], Mapping[str, Tensor]] | None = None,
    ) -> None:
        self.methods = list(methods)
        self.log_every = log_every
        self.model = model
        self.loader = loader
        self.logits_of = logits_of
        self.memory_gradients = memory_gradients
        self.step: StepContext | None = None
        self.watch = loader.watch
        self._handle: Any = None
        self._began = self._paused = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hang ``after_step`` on the optimizer itself, so that a skipped step does not count."""
        self._handle = trainer.optimizers[0].register_step_post_hook(self._after_step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the hook off again."""
        self._handle.remove()
        self.watch.end()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Open the step's context."""
        current = self.loader.current
        assert current is not None
        self.step = StepContext(
            batch=Batch(
                data=batch,
                ids=current.ids,
                is_new=current.is_new,
                logits=None if current.logits is None else current.logits.to(pl_module.device),
            ),
            model=self.model,
            parameters={n: p for n, p in self.model.named_parameters() if p.requires_grad},
            global_step=trainer.global_step,
            # the step whose values Lightning hands to a logger
            is_logging=(trainer.global_step + 1) % self.log_every == 0,
            world_size=trainer.world_size,
            log=functools.partial(_log, pl_module),
            logits_of=self.logits_of,
            memory_gradients=None
            if self.memory_gradients is None
            else functools.partial(self.memory_gradients, trainer.global_step),
            optimizer=trainer.optimizers[0],
        )

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """After unscaling and all-reduce, before clipping: observe, add, project."""
        assert self.step is not None
        began = self.watch.now()
        for method in self.methods:
            method.observe_gradients(self.step)
        for method in self.methods:
            method.add_gradients(self.step)
        for method in self.methods:
            method.project_gradients(self.step)
        self.watch.add("method", began)
        self._began = self.watch.now()

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """Time the backward pass."""
        self._began = self.watch.now()

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Time the backward pass."""
        self.watch.add("backward", self._began)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A validation belongs to no step."""
        self._paused = self.watch.pause()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The step goes on."""
        self.watch.resume(self._paused)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log the loss, and stop a run where it is no longer a number."""
        assert self.step is not None
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor):
            return
        if self.step.is_logging:
            # Lightning has divided it by the batches of a step
            _log(pl_module, "training/loss", loss * trainer.accumulate_grad_batches)
        looked_at = self.step.is_logging or self.step.global_step % self.log_every == 0
        if looked_at and not torch.isfinite(loss).all():
            raise TrainingError(
                f"The loss is {loss.item()} at step {trainer.global_step}: training diverged.",
                where="training",
                mend="lower optimizer.lr or a method's strength, or set trainer.gradient_clip",
            )

    def divide(self, step: StepContext) -> tuple[Part, ...]:
        """The forwards of the step, as the method that divides says; none for a plain one."""
        return next((found for m in self.methods if (found := m.divide(step))), ())

    def state_dict(self) -> dict[str, Any]:
        """State of every method, by name."""
        return {method.name: method.state_dict() for method in self.methods}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore every method."""
        for method in self.methods:
            method.load_state_dict(state_dict[method.name])

    def _after_step(self, *_: Any) -> None:
        assert self.step is not None
        self.watch.add("optimizer", self._began)
        began = self.watch.now()
        with torch.no_grad():
            for method in self.methods:
                method.after_step(self.step)
        self.watch.add("method", began)


class ValidationScores(pl.Callback):
    """Scores of the validation rows, new and old, by the task.

    `sums` is filled by the wrapped ``validation_step``; the scores are logged as
    ``validation/{new,history,combined}``, and appended to `curve`.
    """

    def __init__(self, *, loader: ValidationLoader) -> None:
        self.loader = loader
        self.curve: list[dict[str, float]] = []
        self._sums: dict[bool, tuple[float, int]] = {}

    def add(self, scores: Tensor) -> None:
        """Add the scores (B,) of the loader's current batch."""
        assert self.loader.current is not None
        values = scores.double().cpu().numpy()
        for is_new in (True, False):
            mask = self.loader.current.is_new == is_new
            total, count = self._sums.get(is_new, (0.0, 0))
            self._sums[is_new] = (total + float(values[mask].sum()), count + int(mask.sum()))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin anew."""
        self._sums = {}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log and keep the scores."""
        scores = combine({name: self._mean(name == "new") for name in ("new", "history")})
        for name, score in scores.items():
            pl_module.log(f"validation/{name}", score)
        self.curve.append({"step": trainer.global_step, **scores})

    def state_dict(self) -> dict[str, Any]:
        """The curve so far."""
        return {"curve": list(self.curve)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a curve."""
        self.curve = list(state_dict["curve"])

    def _mean(self, is_new: bool) -> float | None:
        total, count = self._sums.get(is_new, (0.0, 0))
        return total / count if count else None


def combine(scores: Mapping[str, float | None]) -> dict[str, float]:
    """Add ``combined``: the mean of the score on new and on history rows, each counted once.

    Without any score there is nothing to combine, and the result is empty.
    """
    present = {name: score for name, score in scores.items() if score is not None}
    if not present:
        return {}
    return {**present, "combined": sum(present.values()) / len(present)}


@contextmanager
def attached(
    module: pl.LightningModule,
    *,
    task: Task,
    methods: MethodCallback,
    scores: ValidationScores,
    augmented: Callable[[Any], Any],
    logger: Logger | None = None,
) -> Iterator[None]:
    """Wrap the instance's steps while the context is open; the class is left as it is.

    Args:
        module: At the root.
        task: Scores validation rows.
        methods: Add their terms to the loss.
        scores: Take the scores.
        augmented: A training batch on the device, after the module's own hooks, to what the step
            and the methods see of it.
        logger: Whose writing is timed.
    """
    own_validation = is_overridden("validation_step", module)
    after_transfer = module.on_after_batch_transfer
    training_step = module.training_step
    validation_step = module.validation_step

    @functools.wraps(training_step)
    def with_terms(*args: Any, **kwargs: Any) -> Any:
        step = methods.step
        assert step is not None
        began = methods.watch.now()
        parts = methods.divide(step)
        if parts:
            step.outputs = step_in_parts(
                training_step, args, kwargs, module=module, model=step.model, parts=parts
            )
        else:
            step.outputs = training_step(*args, **kwargs)
        methods.watch.add("forward", began)
        require_loss(step.outputs, name=type(module).__name__)
        step.own_logits = functools.partial(_own_logits, step, parts)
        return _add_terms(step.outputs, methods)

    @functools.wraps(after_transfer)
    def on_after_batch_transfer(batch: Any, dataloader_idx: int) -> Any:
        batch = after_transfer(batch, dataloader_idx)
        return augmented(batch) if module.trainer.training else batch

    def score(batch: Any) -> None:
        with eval_mode(module):
            scores.add(task.scores(task.outputs(module, batch), batch))

    module.on_after_batch_transfer = on_after_batch_transfer  # type: ignore[method-assign]
    module.training_step = with_terms  # type: ignore[method-assign]
    module.validation_step = (  # type: ignore[method-assign]
        _score_first(validation_step, score) if own_validation else _score_only(score)
    )
    if logger is not None:
        logger.log_metrics = _timed(logger.log_metrics, methods.watch)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.training_step, module.validation_step, module.on_after_batch_transfer
        if logger is not None:
            del logger.log_metrics


def _timed(log_metrics: Callable[..., None], watch: Stopwatch) -> Callable[..., None]:
    @functools.wraps(log_metrics)
    def timed(*args: Any, **kwargs: Any) -> None:
        began = watch.now()
        log_metrics(*args, **kwargs)
        watch.add("logging", began)

    return timed


def _score_first(own: Callable[..., Any], score: Callable[[Any], None]) -> Callable[..., Any]:
    @functools.wraps(own)
    def validation_step(*args: Any, **kwargs: Any) -> Any:
        score(args[0] if args else kwargs["batch"])
        return own(*args, **kwargs)

    return validation_step


def _score_only(score: Callable[[Any], None]) -> Callable[..., Any]:
    def validation_step(batch: Any, *_: Any) -> None:
        score(batch)

    return validation_step


def _add_terms(result: Any, callback: MethodCallback) -> Any:
    step = callback.step
    assert step is not None
    began = callback.watch.now()
    terms = {
        f"{method.name}/{name}": term
        for method in callback.methods
        for name, term in method.loss_terms(step).items()
    }
    callback.watch.add("method", began)
    if not terms or result is None:
        return result
    if step.is_logging:
        for name, term in terms.items():
            step.log(name, term.detach())
    if isinstance(result, Mapping):
        return {**result, "loss": result["loss"] + sum(terms.values())}
    return result + sum(terms.values())


def _own_logits(step: StepContext, parts: Sequence[Part]) -> Tensor:
    """Logits (B, C) of the batch, normalised as the step was; running statistics stay."""

    def form(data: Any) -> Tensor:
        assert step.logits_of is not None
        return step.logits_of(step.model, data)

    if not parts:
        with statistics(batch_norms(step.model), "batch"):
            return form(step.batch.data)
    manner = {"update": "batch"}
    quiet = [replace(p, statistics=manner.get(p.statistics, p.statistics)) for p in parts]
    return in_order(over_parts(form, step.batch.data, step.model, quiet), quiet)


def _log(module: pl.LightningModule, name: str, value: Any) -> None:
    module.log(name, value)
