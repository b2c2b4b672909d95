"""The story: one pass from new data to a recorded decision."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from perennial.data.split import split_salt
from perennial.errors import MethodError
from perennial.methods.base import Method, arrange
from perennial.promotion.gate import decide, require_decidable
from perennial.promotion.registry import Version
from perennial.steps.candidate import train, version_files, view
from perennial.steps.collect import (
    History,
    Parts,
    collect_history,
    collect_new,
    holdouts,
    learned_rows,
)
from perennial.steps.found import check_checkpoint_path, found, satisfied
from perennial.steps.judge import Held, join, metrics
from perennial.steps.learner import Learner
from perennial.steps.record import Outcome, nothing_new, record
from perennial.steps.remember import stored_dtype
from perennial.steps.settings import Cycle, digest
from perennial.steps.tell import told_again, told_late


def run(cycle: Cycle) -> dict[str, Any]:
    """One retraining cycle.

    Args:
        cycle: What to learn from, how, and where it is recorded.

    Returns:
        The result, as ``result.json`` keeps it.

    Raises:
        PerennialError: Of the kind that says what is wrong; registry and champion are as before.
    """
    started = time.monotonic()
    check_checkpoint_path(cycle.checkpoint)
    if not cycle.dry:
        cycle.registry.sweep()
    champion = cycle.registry.champion(cycle.name)
    bootstrap = champion is None
    if champion is None:
        champion = found(cycle)
    else:
        satisfied(cycle, champion)
    if (late := told_late(cycle, bootstrap=bootstrap)) is not None:
        return late

    learned = learned_rows(champion)
    salt = split_salt(cycle.name, int(champion.manifest["seed"]))
    new = collect_new(cycle.data, champion=champion, salt=salt, learned=learned)
    if not len(new.train):
        return nothing_new(cycle, champion, new, bootstrap=bootstrap)
    history = collect_history(cycle.data, champion=champion, learned=learned, source=cycle.history)
    fingerprints = {"new": new.fingerprint, **history.fingerprints}
    cycle_id = cycle.cycle_id(champion, fingerprints)
    earlier = cycle.registry.cycle(cycle_id)
    if earlier is not None and not cycle.force:
        return told_again(cycle, champion, earlier, bootstrap=bootstrap)

    with cycle.registry.working(cycle_id):
        outcome = _learn(cycle, champion, new, history, cycle_id)
        seconds = time.monotonic() - started
        return record(cycle, replace(outcome, bootstrap=bootstrap, wall_seconds=seconds))


def _learn(cycle: Cycle, champion: Version, new: Parts, history: History, cycle_id: str) -> Outcome:
    """Fit, evaluate and decide; nothing is recorded yet."""
    held = holdouts(champion)
    new_holdout = _identity(new)
    number = 1 + cycle.registry.decisions_on(cycle.name, new_holdout)
    methods = arrange(cycle.methods())
    _refuse_what_cannot_work(cycle, held, new, history, methods, decision_number=number)
    cycle.seed_everything()
    learner = cycle.learner(champion)
    _announce(cycle, champion, new, history, methods, learner)

    learner.load(view(champion).weights)
    held = {"new": (new.holdout, new.seen), **held}
    classes = len(new.label_names)
    before = {name: learner.predict(rows, classes=classes) for name, (rows, _) in held.items()}
    candidate = train(
        learner,
        champion=view(champion),
        methods=methods,
        new=new.train,
        history=history.train,
        new_validation=new.validation,
        history_validation=history.validation,
        training=cycle.training,
        seed=cycle.seed,
        folder=cycle.work_folder(cycle_id),
        logger=cycle.tracker.logger(),
        show=cycle.progress("retraining"),
        warn=cycle.say,
        sampling=cycle.data.sampling,
        classes=classes,
    )
    after = {name: learner.predict(rows) for name, (rows, _) in held.items()}
    report = join(held, champion=before, candidate=after, label_names=new.label_names)
    return Outcome(
        cycle_id=cycle_id,
        champion=champion,
        new=new,
        history=history,
        held=held,
        learner=learner,
        trained=candidate,
        report=report,
        metrics=metrics(report, cycle.task),
        decision=decide(report, cycle.policy, decision_number=number),
        new_holdout=new_holdout,
        files=version_files(
            cycle=f"cycle-{len(held)}",
            learner=learner,
            parts=new,
            parent=champion,
            memory=cycle.data.memory,
            methods=candidate.methods,
            folder=cycle.work_folder(cycle_id),
            history=candidate.history,
            logits=stored_dtype(methods),
        ),
    )


def _refuse_what_cannot_work(
    cycle: Cycle,
    held: Held,
    new: Parts,
    history: History,
    methods: Sequence[Method],
    *,
    decision_number: int,
) -> None:
    """Say before training what would only show after it."""
    if cycle.promotion == "gate":
        independent = sum(len(np.unique(rows.cluster)) for rows, _ in held.values())
        require_decidable(
            independent,
            len(np.unique(new.holdout.cluster)),
            cycle.policy,
            has_history=bool(independent),
            decision_number=decision_number,
        )
    needing = [method.name for method in methods if method.needs_history]
    if needing and history.train is None:
        raise MethodError(
            f"History is needed by {' and '.join(needing)}, and none can be read.",
            where="data.history",
            mend="give data.history=PATH, or go without: method=lwf, l2sp or none",
        )


def _announce(
    cycle: Cycle,
    champion: Version,
    new: Parts,
    history: History,
    methods: Sequence[Method],
    learner: Learner,
) -> None:
    for note in (*new.notes, *history.notes, *learner.notes):
        cycle.say(note)
    cycle.say(
        f"Retraining {champion.id} on {len(new.train)} new rows"
        + (f" and {len(history.train)} of history" if history.train is not None else "")
        + f" with {' + '.join(method.name for method in methods) or 'no method'}"
        f", {cycle.training.max_steps} steps, on {learner.device}"
    )


def _identity(new: Parts) -> str:
    """SHA-256 of the new holdout, however its rows are ordered."""
    return digest(sorted(new.holdout.content.tolist()))
