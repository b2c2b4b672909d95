"""Found a lineage: train the first champion on history, or adopt the user's own checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from perennial.data.learned import Learned, refuse_changed_ids, tied
from perennial.data.partitions import is_exhausted
from perennial.data.preprocess import fitted
from perennial.data.rows import Rows
from perennial.data.source import SourceRows, check_schema
from perennial.data.split import independent, split_salt
from perennial.errors import ConfigError, DataError, MethodError
from perennial.masking import plain
from perennial.methods.base import arrange, check_capabilities
from perennial.models.checkpoint import Checkpoint, match
from perennial.nested import leaves
from perennial.notation import level
from perennial.promotion.registry import Version
from perennial.promotion.requirements import require_decidable
from perennial.steps.candidate import train, version_files
from perennial.steps.checkpoint import check_checkpoint, open_checkpoint, with_hyperparameters
from perennial.steps.collect import Parts, met, require_training_rows, split
from perennial.steps.features import require_selectable
from perennial.steps.judge import aggregate, require_measurable
from perennial.steps.learner import (
    Learner,
    fit_label_names,
    method_context,
    output_width,
    weights_of,
)
from perennial.steps.matrix import row
from perennial.steps.probing import capabilities
from perennial.steps.remember import logits_bytes, stored_dtype
from perennial.steps.settings import Cycle
from perennial.types import NAMED_KINDS, VersionView

FIRST = "cycle-1"


def found(cycle: Cycle) -> Version:
    """Make version 1 and its alias, from a checkpoint where one is given, else by training.

    Raises:
        DataError: There is neither history nor a checkpoint, or the data cannot decide anything.
        CheckpointError: The checkpoint does not fit the model.
    """
    cycle = cycle.on([])
    if cycle.data.history is None and cycle.checkpoint is None:
        raise DataError(
            f"There is no champion named {cycle.name!r} and nothing to make one from.",
            where="data.history",
            mend="give data.history=PATH to train the first version, or checkpoint=PATH to adopt "
            "the model that serves today",
        )
    checkpoint = None
    if cycle.checkpoint is not None:
        where = cycle.checkpoint
        checkpoint = open_checkpoint(where, cycle.registry)
        model = with_hyperparameters(cycle.model, checkpoint, where=where, say=cycle.say)
        cycle = replace(cycle, model=model)
    salt = split_salt(cycle.name, cycle.seed)
    parts, probe = _history(cycle, salt)
    preprocess = fitted(cycle.data.preprocess, parts.train.features, parts.label_names)
    cycle.seed_everything()
    learner = cycle.learner(preprocess=preprocess)
    parts = replace(parts, label_names=_label_names(cycle, learner, parts, probe))
    bytes_beside = logits_bytes(stored_dtype(arrange(cycle.methods())), parts.label_names)
    cycle.data.memory.check(parts.train, name="history", logits_bytes=bytes_beside)
    require_selectable(cycle.data.memory, learner, parts.train)
    if cycle.data.new is not None and not is_exhausted(cycle.data.new):
        _foresee(cycle, learner, parts, salt)
    if checkpoint is not None:
        return _adopt(cycle, learner, parts, checkpoint)
    return _bootstrap(cycle, learner, parts)


def adopt(cycle: Cycle) -> Version:
    """Register a checkpoint that Perennial did not train as champion, without retraining it.

    Memory, holdout, metrics and what the methods need are computed from ``data.history``.

    Raises:
        ConfigError: There is no checkpoint, the lineage has a champion that it did not found, or
            it was adopted under other settings.
        DataError: There is no history.
    """
    check_checkpoint(cycle.checkpoint)
    if cycle.checkpoint is None:
        raise ConfigError(
            "There is no checkpoint to adopt.",
            where="checkpoint",
            mend="give checkpoint=PATH of the model that serves today",
        )
    champion = cycle.registry.champion(cycle.name)
    if champion is not None:
        satisfied(cycle, champion)
        _refuse_other_settings(cycle, champion)
        return champion
    if cycle.data.history is None:
        raise DataError(
            "Adopting needs the rows that the checkpoint was trained on.",
            where="data.history",
            mend="give data.history=PATH; without any, perennial train adopts it with method=none "
            "gate.retention=waived",
        )
    return found(cycle)


def satisfied(cycle: Cycle, champion: Version) -> None:
    """Check a ``checkpoint=`` against the lineage that it, or another one, founded.

    Raises:
        ConfigError: The lineage was founded by another checkpoint, or by training.
    """
    if cycle.checkpoint is None:
        return
    adopted = cycle.registry.adopted_checkpoint(cycle.name)
    given = open_checkpoint(cycle.checkpoint, cycle.registry).sha256
    if adopted == given:
        cycle.say(f"checkpoint: adopted before as version 1; going on from {champion.id}")
        return
    raise ConfigError(
        f"{cycle.name!r} has a champion already, and another checkpoint founded it.",
        where="checkpoint",
        mend=f"leave checkpoint= out to go on from {champion.id}, or found a lineage of its own "
        f"with model_name={cycle.name}-2",
    )


def _refuse_other_settings(cycle: Cycle, champion: Version) -> None:
    """What an adoption computed stays: settings that would have it compute something else."""
    then, now = (
        _adopted_by(config)
        for config in (cycle.registry.version(f"{cycle.name}@1").manifest["config"], cycle.config)
    )
    key = next((key for key in sorted({**then, **now}) if then.get(key) != now.get(key)), None)
    if key is not None:
        raise ConfigError(
            f"The checkpoint was adopted before, {_given(key, then)}, and what its version keeps "
            f"was computed like that; now it is {_given(key, now)}, which would change nothing.",
            where=key,
            mend=f"adopt it anew with model_name={cycle.name}-2, or go on from {champion.id}: "
            "perennial train takes another method at any time",
        )


def _adopted_by(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide what an adoption computes and keeps, by their dotted names."""
    data = {key: value for key, value in config["data"].items() if key != "new"}
    others = {name: config[name] for name in ("method", "model", "seed", "task")}
    return leaves(plain({"data": data, **others}))


def _given(key: str, settings: Mapping[str, Any]) -> str:
    return f"with {key}={settings[key]}" if key in settings else f"without {key}"


def _history(cycle: Cycle, salt: str) -> tuple[Parts, Rows]:
    """History split, or, for a checkpoint without history, empty parts in the new rows' schema.

    With it come rows to try the model on.
    """
    data, labels = cycle.data, cycle.task.labels
    if data.history is None:
        source = data.read(data.new, name="new", label_names=labels)
        _refuse_guessed_order(cycle, source, "new")
        nothing = source.rows.take(slice(0, 0))
        parts = Parts(
            train=nothing,
            validation=nothing,
            holdout=nothing,
            seen=np.zeros(0, dtype=bool),
            fingerprint="",
            schema=source.schema,
            label_names=source.label_names,
            numbered=source.numbered,
        )
        own = _with_own_test(cycle, parts) if data.history_holdout is not None else parts
        return own, source.rows
    source = data.read(data.history, name="history", label_names=labels)
    _refuse_guessed_order(cycle, source, "history")
    own_test = data.history_holdout is not None
    parts = split(source, data, salt=salt, name="history", holdout=not own_test)
    if own_test:
        return _with_own_test(cycle, parts), source.rows
    seen = np.full(len(parts.holdout), cycle.checkpoint is not None)
    return replace(parts, seen=seen), source.rows


def _with_own_test(cycle: Cycle, parts: Parts) -> Parts:
    """History with the user's own test set as its holdout, and without what is tied to it."""
    data, name = cycle.data, "history_holdout"
    read = data.read(
        data.history_holdout, name=name, label_names=parts.label_names, schema=parts.schema
    )
    check_schema(parts.schema, read.schema, "history", name)
    everything = met(parts)
    refuse_changed_ids(read.rows, everything, name=name, column=data.id_column)
    held = Learned.of(read.rows, np.full(len(read.rows), "holdout"))
    train, validation = (
        rows.take(~tied(rows, held, data.ties)) for rows in (parts.train, parts.validation)
    )
    if len(parts.train) and not len(train):
        raise DataError(
            "Every row of data.history is also in data.history_holdout, or of its groups, so that "
            "none is left to learn from.",
            where="data.history_holdout",
            mend="give the test set that the model has never seen",
        )
    notes = parts.notes
    if left_out := len(parts.train) + len(parts.validation) - len(train) - len(validation):
        notes = (*notes, f"history: {left_out} rows left out, held out by data.history_holdout")
    seen = np.zeros(len(read.rows), dtype=bool)
    return replace(
        parts, train=train, validation=validation, holdout=read.rows, seen=seen, notes=notes
    )


def _label_names(cycle: Cycle, learner: Learner, parts: Parts, probe: Rows) -> tuple[str, ...]:
    """The first version's class names, one for each of its outputs."""
    names, width = parts.label_names, output_width(learner, probe)
    if not names or cycle.task.target_kind not in (*NAMED_KINDS, "item"):
        return ()
    if cycle.data.history is None and cycle.data.new_classes == "grow":
        # the names are those of the new rows, and what the checkpoint does not know comes last
        names = names[: len(cycle.task.labels or ()) or width]
    return fit_label_names(names, width, target=cycle.model.target, numbered=parts.numbered)


def _refuse_guessed_order(cycle: Cycle, source: SourceRows, name: str) -> None:
    """A checkpoint's outputs have an order that the alphabet does not know."""
    if cycle.checkpoint is None or not source.sorted_names:
        return
    if cycle.task.target_kind == "item":
        raise ConfigError(
            "The items are text, and the checkpoint does not say which of its outputs is which "
            "item.",
            where=f"data.{name}",
            mend="number the items as the checkpoint's outputs are",
        )
    raise ConfigError(
        "The labels are text, and the checkpoint does not say which of its outputs is which class.",
        where=f"task.labels, data.{name}",
        mend="name the model's outputs in their order: "
        f"'task.labels=[{','.join(source.label_names)}]', if that is their order",
    )


def _foresee(cycle: Cycle, learner: Learner, parts: Parts, salt: str) -> None:
    """Check the new rows against history, model and policy before anything is trained."""
    data = cycle.data
    new = data.read(data.new, name="new", label_names=parts.label_names, schema=parts.schema)
    check_schema(parts.schema, new.schema, "history", "new")
    divided = split(new, data, salt=salt, name="new", learned=met(parts))
    require_training_rows(divided)
    if cycle.promotion == "gate" and divided.unmet:
        rows = {"new": independent(divided.holdout)}
        if len(parts.train) or len(parts.holdout):
            rows["history"] = independent(parts.holdout)
        require_decidable(rows, cycle.policy, binary=cycle.task.binary)
    classes = max(len(new.label_names), len(parts.label_names))
    require_measurable(
        cycle.policy, [new.rows, parts.holdout], classes=classes, kind=cycle.task.target_kind
    )
    if len(new.label_names) > len(parts.label_names):
        learner.find_head(new.rows)


def _bootstrap(cycle: Cycle, learner: Learner, parts: Parts) -> Version:
    others = ", ".join(cycle.registry.lineages())
    for note in parts.notes:
        cycle.say(note)
    cycle.say(
        f"No champion named {cycle.name!r} yet"
        + (f" (there are: {others})" if others else "")
        + f": training the first one on {len(parts.train)} history rows"
    )
    folder = cycle.work_folder(f"found-{cycle.founding_id(parts.fingerprint)}")
    with cycle.registry.working(folder.name, name=cycle.name):
        first = train(
            learner,
            champion=VersionView(
                id="", weights=weights_of(learner.model), label_names=parts.label_names
            ),
            methods=[method for method in cycle.methods() if method.learns_from_training],
            new=parts.train,
            history=None,
            new_validation=parts.validation,
            history_validation=None,
            training=cycle.training,
            seed=cycle.seed,
            folder=folder,
            logger=cycle.tracker.logger("bootstrap/"),
            show=cycle.progress("bootstrap"),
            warn=cycle.say,
            sampling=cycle.data.sampling,
            placement=cycle.data.placement,
            augment=cycle.data.augment,
            configuration=plain(cycle.config),
        )
        trained = {
            "optimizer_steps": first.fit.optimizer_steps,
            "train_rows": first.fit.train_rows,
            "replayed_rows": first.fit.replayed_rows,
            "device_seconds": first.fit.device_seconds,
        }
        return _register(
            cycle, learner, parts, folder, how="bootstrap", extra=trained, left=first.methods
        )


def _adopt(cycle: Cycle, learner: Learner, parts: Parts, checkpoint: Checkpoint) -> Version:
    path = cycle.checkpoint
    assert path is not None
    learner.load(match(checkpoint.weights, learner.model, where=path, say=cycle.say))
    cycle.say(f"Adopting {path} ({checkpoint.kind}) as version 1 of {cycle.name!r}")
    if not len(parts.train):
        needing = [method.name for method in arrange(cycle.methods()) if method.needs_history]
        if needing:
            raise MethodError(
                f"Rows that the checkpoint was trained on are needed by {' and '.join(needing)}; "
                "there are none.",
                where="data.history",
                mend="give data.history=PATH (perennial adopt, where they may be read, keeps a "
                "precision and a memory for later), or go without: method=lwf, l2sp or none with "
                "gate.retention=waived",
            )
    for note in parts.notes:
        cycle.say(note)
    folder = cycle.work_folder(f"found-{cycle.founding_id(checkpoint.sha256)}")
    with cycle.registry.working(folder.name, name=cycle.name):
        return _register(
            cycle, learner, parts, folder, how="adopted", extra={}, sha256=checkpoint.sha256
        )


def _register(
    cycle: Cycle,
    learner: Learner,
    parts: Parts,
    folder: Path,
    *,
    how: str,
    extra: Mapping[str, Any],
    sha256: str | None = None,
    left: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Version:
    learner.model.to(learner.device)
    names = parts.label_names
    methods = _method_state(cycle, learner, parts) if len(parts.train) else {}
    methods |= left or {}
    learner.settle()
    scores: dict[str, Any] = {}
    if len(parts.holdout):
        predicted = learner.predict(parts.holdout)
        everywhere = np.ones(len(parts.holdout), dtype=bool)
        values = aggregate(predicted, parts.holdout.label, everywhere, cycle.task, len(names))
        scores = {f"history/{FIRST}": values}
        mean = float(predicted.score.mean())
        if cycle.task.target_kind == "class":
            _doubt_labels(cycle, mean, parts, names)
        told = level(mean, cycle.task.score_unit)
        name = cycle.task.score_name.replace("_", " ")
        cycle.say(f"Version 1: {name} {told} on {len(parts.holdout)} held-out history rows")
        matrix = [row(1, {FIRST: mean}, [FIRST])]
    else:
        matrix = [row(1, {}, [])]
    stored = version_files(
        cycle=FIRST,
        learner=learner,
        parts=parts,
        memory=cycle.data.memory,
        methods=methods,
        folder=folder,
        ties=cycle.data.ties,
        reference_rows=cycle.data.reference_rows,
        logits=stored_dtype(arrange(cycle.methods())) if len(parts.train) else None,
    )
    if not len(parts.holdout):
        stored = {path: file for path, file in stored.items() if not path.startswith("holdout/")}
    version = cycle.registry.commit(
        name=cycle.name,
        files=stored,
        manifest=cycle.manifest(
            parts=parts,
            source=cycle.data.history,
            cycle=FIRST,
            parent=None,
            sources={},
            metrics=scores,
            matrix=matrix,
            initial={},
            how=how,
            extra=extra,
            learner=learner,
        ),
        decision=None,
        verdict=how,
        cycle_id=folder.name,
        expected_champion=None,
        promote=True,
        new_holdout=None,
        checkpoint_sha256=sha256,
    )
    cycle.registry.remove_work_folder(folder.name)
    return version


def _doubt_labels(cycle: Cycle, mean: float, parts: Parts, names: tuple[str, ...]) -> None:
    """A model that serves and is worse than a constant has its labels in another order."""
    counts = np.bincount(parts.holdout.label, minlength=len(names))
    constant = float(counts.max() / counts.sum())
    fits = cycle.data.preprocess is not None  # fitted to data.history, which may not be its own
    if cycle.checkpoint is not None and mean < constant:
        cycle.say(
            f"Always answering {names[int(counts.argmax())]!r} would be right on {constant:.1%}, "
            f"the checkpoint is on {mean:.1%}: are its outputs in the order of task.labels "
            f"({', '.join(names[:5])}{', …' if len(names) > 5 else ''}), and its columns in that "
            "of data.features"
            + (", and was it trained on what data.preprocess makes of these rows" if fits else "")
            + "?"
        )


def _method_state(cycle: Cycle, learner: Learner, parts: Parts) -> dict[str, Any]:
    methods = arrange(cycle.methods())
    missing = capabilities(learner, parts.train, methods)
    check_capabilities(methods, missing, type(learner.model).__name__)
    context = method_context(
        learner,
        champion=VersionView(id="", weights={}, label_names=parts.label_names),
        new=parts.train,
        history=None,
        validation={"new": None, "history": parts.validation},
        seed=cycle.seed,
        missing=missing,
        warn=cycle.say,
    )
    left = {method.name: method.finish(context) for method in methods}
    return {name: state for name, state in left.items() if state}
