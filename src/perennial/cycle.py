"""The story: one pass from new data to a recorded decision."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from perennial.data.learned import Learned
from perennial.data.split import independent
from perennial.errors import MethodError
from perennial.methods.base import Method, arrange
from perennial.models.checkpoint import match
from perennial.promotion.gate import decide, require_decidable
from perennial.steps.candidate import train, version_files, view
from perennial.steps.collect import Parts, collect_new, require_training_rows
from perennial.steps.found import check_checkpoint_path, found, satisfied
from perennial.steps.given import Given, collect_given
from perennial.steps.history import History, collect_history
from perennial.steps.judge import Held, join, metrics
from perennial.steps.learner import Learner, output_width
from perennial.steps.lineage import Lineage, lineage_of, refuse_another_identity
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

    refuse_another_identity(champion, identity=cycle.data.identity, labels=cycle.task.labels)
    lineage = lineage_of(cycle.registry, champion)
    given = collect_given(cycle.data, lineage=lineage)
    learned = Learned.joined([lineage.learned, *([given.learned] if given else [])])
    new = collect_new(cycle.data, lineage=lineage, learned=learned)
    for note in (*([given.note] if given else []), *new.notes):
        cycle.say(note)
    require_training_rows(new)
    if not len(new.train):
        return nothing_new(cycle, champion, new, bootstrap=bootstrap)
    history = collect_history(
        cycle.data,
        lineage=lineage,
        learned=learned,
        names=new.label_names,
        source=cycle.history,
    )
    fingerprints = {"new": new.fingerprint, **history.fingerprints}
    if given:
        fingerprints["history_holdout"] = given.fingerprint
    cycle_id = cycle.cycle_id(champion, fingerprints)
    earlier = cycle.registry.cycle(cycle_id)
    if earlier is not None and not cycle.force:
        return told_again(cycle, champion, earlier, bootstrap=bootstrap)

    with cycle.registry.working(cycle_id):
        outcome = _learn(cycle, lineage, given, new, history, cycle_id)
        seconds = time.monotonic() - started
        return record(cycle, replace(outcome, bootstrap=bootstrap, wall_seconds=seconds))


def _learn(
    cycle: Cycle,
    lineage: Lineage,
    given: Given | None,
    new: Parts,
    history: History,
    cycle_id: str,
) -> Outcome:
    """Fit, evaluate and decide; nothing is recorded yet."""
    champion, held = lineage.champion, lineage.holdouts(new.label_names)
    if given:
        held[f"history/{given.name}"] = (given.rows, given.seen)
    new_holdout = _identity(new)
    number = 1 + cycle.registry.decisions_on(cycle.name, new_holdout)
    methods = arrange(cycle.methods())
    _refuse_what_cannot_work(cycle, held, new, history, methods, decision_number=number)
    cycle.seed_everything()
    learner = cycle.learner(champion)
    _announce(cycle, champion.id, new, history, methods, learner)

    learner.load(match(view(champion).weights, learner.model, where=champion.id))
    output_width(learner, new.train)  # a model that cannot take the rows says so here
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
    name = f"cycle-{lineage.next_number + bool(given)}"
    return Outcome(
        cycle_id=cycle_id,
        name=name,
        lineage=lineage,
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
            cycle=name,
            learner=learner,
            parts=new,
            memory=cycle.data.memory,
            methods=candidate.methods,
            folder=cycle.work_folder(cycle_id),
            ties=cycle.data.ties,
            lineage=lineage,
            given=given,
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
    old = sum(independent(rows) for rows, _ in held.values())
    if cycle.promotion == "gate":
        require_decidable(
            old,
            independent(new.holdout),
            cycle.policy,
            has_history=bool(old),
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
    champion: str,
    new: Parts,
    history: History,
    methods: Sequence[Method],
    learner: Learner,
) -> None:
    for note in (*history.notes, *learner.notes):
        cycle.say(note)
    cycle.say(
        f"Retraining {champion} on {len(new.train)} new rows"
        + (f" and {len(history.train)} of history" if history.train is not None else "")
        + f" with {' + '.join(method.name for method in methods) or 'no method'}"
        f", {cycle.training.max_steps} steps, on {learner.device}"
    )


def _identity(new: Parts) -> str:
    """SHA-256 of the new holdout, however its rows are ordered."""
    return digest(sorted(new.holdout.content.tolist()))
