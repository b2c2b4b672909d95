"""The files and the manifest of a version, and the fit that leads to one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from perennial.data.augment import Augmentation
from perennial.data.datamodule import CycleData, share_line, split_batch_size
from perennial.data.learned import ROLES, Learned, Ties
from perennial.data.logits import lacking, without_logits
from perennial.data.memory import Memory
from perennial.data.rows import Rows, concatenate
from perennial.data.store import write_rows
from perennial.methods.base import Method, arrange, check_capabilities
from perennial.models.checkpoint import read_safetensors, to_bytes, version_weights
from perennial.monitoring.reference import sample, write
from perennial.notation import level
from perennial.promotion.registry import Version
from perennial.steps.collect import Parts
from perennial.steps.given import Given
from perennial.steps.keep import KINDS, memory_files
from perennial.steps.learner import Learner, memory_gradients, method_context
from perennial.steps.lineage import Lineage, number_of
from perennial.steps.probing import capabilities
from perennial.steps.remember import complete, stored_dtype
from perennial.stopwatch import shares_line
from perennial.sweeping.pruning import Limits
from perennial.training.fit import FitResult, fit
from perennial.training.settings import Training
from perennial.types import Booleans, Floats, VersionView


@dataclass(frozen=True)
class Trained:
    """A model that was fitted, before it is judged.

    Attributes:
        fit: Steps, rows, curve.
        methods: What methods leave for the next cycle.
        history: The rows that were replayed from, with the logits they were replayed with.
    """

    fit: FitResult
    methods: Mapping[str, Mapping[str, Tensor]]
    history: Rows | None = None


def view(version: Version) -> VersionView:
    """A version's tensors in memory."""
    return VersionView(
        id=version.id,
        weights=version_weights(version),
        methods={
            Path(path).stem: read_safetensors(version.open(path))
            for path in version.files
            if path.startswith("methods/")
        },
        label_names=tuple(version.manifest["label_names"]),
    )


def train(
    learner: Learner,
    *,
    champion: VersionView,
    methods: Sequence[Method],
    new: Rows,
    history: Rows | None,
    new_validation: Rows,
    history_validation: Rows | None,
    training: Training,
    seed: int,
    folder: Path,
    logger: Any,
    show: Any,
    warn: Any,
    sampling: str = "passes",
    augment: Augmentation | None = None,
    placement: str = "auto",
    label_names: Sequence[str] = (),
    history_weight: Floats | None = None,
    configuration: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
) -> Trained:
    """Fine-tune the champion's weights on new and replayed rows.

    Where there are more ``label_names`` than the champion knows, its output layer grows first.

    Raises:
        ConfigError: There is no output layer that could grow.
        MethodError: A method lacks a capability or history.
        TrainingError: Training diverged.
    """
    methods = arrange(methods)
    validation = {"new": new_validation, "history": history_validation}
    learner.load(champion.weights)
    start = learner.score(validation, classes=len(label_names) or None)
    if len(label_names) > len(champion.label_names):
        learner.grow(new, label_names, seed=seed)
    missing = capabilities(learner, new, methods, augmented=augment is not None)
    check_capabilities(methods, missing, type(learner.model).__name__)
    share = _new_share(methods, new, history)
    if share is not None and history is not None:
        if line := share_line(training.batch_size, share):
            warn(line)
        replayed = training.batch_size - split_batch_size(training.batch_size, share)
        if len(history) < replayed:
            warn(
                f"replay: memory has {len(history)} rows, fewer than the {replayed} of a batch; "
                "they are drawn with replacement"
            )
    if history is not None:
        history = _with_logits(learner, history, methods, champion, warn)
    data = CycleData(
        new=learner.inputs(new),
        history=learner.inputs(history) if history is not None and share is not None else None,
        new_validation=learner.inputs(new_validation),
        history_validation=None
        if history_validation is None
        else learner.inputs(history_validation),
        batch_size=training.batch_size,
        new_fraction=share,
        form=learner.form,
        label=learner.label,
        seed=seed,
        sampling=sampling,
        augment=augment,
        placement=placement,
    )
    context = method_context(
        learner,
        champion=champion,
        new=new,
        history=history,
        validation=validation,
        seed=seed,
        missing=missing,
        warn=warn,
        champion_scores=start,
        replays=share is not None and history is not None,
        history_weight=history_weight,
    )

    def prepare() -> None:
        for method in methods:
            method.prepare(context)

    result = fit(
        module=learner.module,
        model=learner.model,
        task=learner.task,
        data=data,
        methods=methods,
        training=training,
        folder=folder,
        configuration=configuration,
        prepare=prepare,
        start_scores=start,
        memory_gradients=None if history is None else memory_gradients(learner, history, seed=seed),
        logger=logger,
        show=show,
        limits=limits,
    )
    for name, value in result.tuned.items():
        warn(f"tuner: {name} = {value:g}")
    if line := shares_line(result.profile, result.padding):
        warn(line)
    learner.model.to(learner.device)
    if line := _kept_line(result, learner.task.score_unit):
        warn(line)
        for method in methods:
            if method.learns_from_training:
                warn(
                    f"{method.name}: what it learns of the training runs to the last step; with "
                    "trainer.keep=last that is also the step of the weights"
                )
    for method in methods:
        method.adjust(context)
    left = {method.name: method.finish(context) for method in methods}
    kept = {name: state for name, state in left.items() if state}
    return Trained(fit=result, methods=kept, history=history)


def _kept_line(result: FitResult, unit: str) -> str:
    """Which weights are judged, where they are not the last ones."""
    last, best = result.curve[-1] if result.curve else None, result.kept_point
    if last is None or best is None or best is last:
        return ""
    scores = ", ".join(
        f"{name} {level(best[name], unit)}" for name in ("new", "history") if name in best
    )
    step = f"{best['step']:.0f}"
    return f"Kept the weights of step {step}: {scores} on validation rows (trainer.keep=best)"


def _with_logits(
    learner: Learner, history: Rows, methods: Sequence[Method], champion: VersionView, warn: Any
) -> Rows:
    """History with the stored logits that a method uses, the champion's where none were stored.

    The learner holds the champion's weights, so that a resumed run gets the same ones.
    """
    dtype = stored_dtype(methods)
    if dtype is None:
        return without_logits(history)
    if missing := int(lacking(history).sum()):
        warn(
            f"{missing} of {len(history)} history rows have no stored logits yet; they get those "
            f"of {champion.id}"
        )
    number = int(champion.id.rpartition("@")[2])
    known = len(champion.label_names) or None
    return complete(learner, history, dtype=dtype, version=number, known=known)


def _new_share(methods: Sequence[Method], new: Rows, history: Rows | None) -> float | None:
    """Share of new rows in a batch, as the method that mixes says; None where none does."""
    if history is None:
        return None
    shares = [method.new_share(len(new), len(history)) for method in methods]
    return next((share for share in shares if share is not None), None)


def version_files(
    *,
    cycle: str,
    learner: Learner,
    parts: Parts,
    memory: Memory,
    methods: Mapping[str, Mapping[str, Tensor]],
    folder: Path,
    ties: Ties,
    reference_rows: int,
    lineage: Lineage | None = None,
    given: Given | None = None,
    history: Rows | None = None,
    logits: str | None = None,
) -> dict[str, Path | bytes]:
    """Everything a version needs to go on from: its own files and those of its lineage.

    Args:
        cycle: Name of the holdout that this version adds, ``cycle-<number>``.
        learner: Holds the candidate's weights and its preprocessing.
        parts: What this cycle learned.
        memory: Selects what is remembered.
        methods: Method state.
        folder: Work folder; Arrow files are written there first.
        ties: What ties rows to held-out ones, which are not remembered.
        reference_rows: How many of this cycle's rows are kept to tell drift by.
        lineage: What the champion and others have met, or None for the first version.
        given: The user's own test set that joins the holdouts, or None.
        history: What was replayed, with logits for remembered rows that have none yet.
        logits: Dtype of the logits that remembered rows are kept with, where a method uses them.
    """
    names = parts.label_names
    kept: dict[str, Path | bytes] = dict(lineage.files()) if lineage else {}
    held = lineage.learned.held if lineage else Learned.joined([])
    for name, (rows, seen) in (lineage.holdouts(names) if lineage else {}).items():
        if (path := f"holdout/{Path(name).name}.arrow") not in kept:
            kept[path] = _holdout_file(folder, path, rows, seen)
    if given is not None:
        held = Learned.joined([held, given.learned])
        path = f"holdout/{given.name}.arrow"
        kept[path] = _holdout_file(folder, path, given.rows, given.seen)
        kept |= _rows_file(folder, given.name, {"holdout": given.rows})
    kept |= learner.weight_files()
    if learner.preprocess is not None:
        given_files = learner.preprocess.files()
        kept |= {f"preprocess/{name}": content for name, content in given_files.items()}
    for name, state in methods.items():
        kept[f"methods/{name}.safetensors"] = to_bytes(state)
    for kind in KINDS:
        kept |= memory_files(
            kind,
            getattr(parts, kind),
            memory=memory,
            learner=learner,
            names=names,
            folder=folder,
            number=number_of(cycle),
            held=held,
            ties=ties,
            lineage=lineage,
            history=history,
            logits=logits,
        )
    path = f"holdout/{cycle}.arrow"
    kept[path] = _holdout_file(folder, path, parts.holdout, parts.seen)
    reference = sample(
        {"train": parts.train, "holdout": parts.holdout},
        capacity=reference_rows,
        seed=memory.seed,
        schema=parts.schema,
        preprocess=learner.preprocess,
        cycle=cycle,
    )
    if reference is not None:
        kept |= write(reference, folder)
    return kept | _rows_file(folder, cycle, {kind: getattr(parts, kind) for kind in ROLES})


def _holdout_file(folder: Path, path: str, rows: Rows, seen: Booleans) -> Path:
    return _arrow(folder / path.replace("/", "-"), rows, {"seen": seen.astype(np.uint8)})


def _rows_file(folder: Path, name: str, parts: Mapping[str, Rows]) -> dict[str, Path]:
    """The index of what a cycle met, without features."""
    role = np.repeat(np.array(list(parts)), [len(part) for part in parts.values()])
    everything = concatenate(list(parts.values()))
    bare = replace(everything, features={}, logits=None, logits_version=None, slices={})
    return {f"rows/{name}.arrow": _arrow(folder / f"rows-{name}.arrow", bare, {"role": role})}


def as_json(value: Any) -> bytes:
    """Indented JSON."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def _arrow(path: Path, rows: Rows, extra: Mapping[str, Any] | None = None) -> Path:
    write_rows(path, rows, extra=dict(extra or {}))
    return path
