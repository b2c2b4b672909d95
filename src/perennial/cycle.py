"""The story: one pass from new data to a recorded decision."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any

from perennial.masking import plain
from perennial.methods.base import arrange
from perennial.monitoring.triggers import Firing
from perennial.promotion.gate import decide
from perennial.steps.candidate import train, version_files, view
from perennial.steps.checkpoint import check_checkpoint
from perennial.steps.due import fire, keep, not_due, waiting
from perennial.steps.evidence import gather, score
from perennial.steps.features import require_selectable
from perennial.steps.found import found, satisfied
from perennial.steps.judge import metrics
from perennial.steps.learner import output_width
from perennial.steps.lineage import lineage_of
from perennial.steps.material import Material, announce, collect, refuse_what_cannot_work
from perennial.steps.record import Outcome, nothing_new, record
from perennial.steps.remember import stored_dtype
from perennial.steps.settings import Cycle
from perennial.steps.tell import told_again, told_late
from perennial.sweeping.pruning import Pruned


def run(cycle: Cycle) -> dict[str, Any]:
    """One retraining cycle.

    Args:
        cycle: What to learn from, how, and where it is recorded.

    Returns:
        The result, as ``result.json`` keeps it.

    Raises:
        PerennialError: Of the kind that says what is wrong; registry and champion are as before.
        Pruned: It is a trial of a sweep that its limits rule out.
    """
    started = time.monotonic()
    check_checkpoint(cycle.checkpoint)
    if not cycle.dry:
        cycle.registry.sweep()
    champion = cycle.registry.champion(cycle.name)
    if cycle.trial is not None:
        cycle.trial.require(None if champion is None else champion.id)
    bootstrap = champion is None
    if champion is None:
        champion = found(cycle)
    else:
        satisfied(cycle, champion)
    cycle = cycle.on(list(lineage_of(cycle.registry, champion).sources.values()))
    if (late := told_late(cycle, bootstrap=bootstrap)) is not None:
        return late
    if (skipped := waiting(cycle)) is not None:
        return skipped

    material = collect(cycle, champion)
    if not material.has_new:
        return nothing_new(cycle, champion, material.new, bootstrap=bootstrap)
    cycle_id = cycle.cycle_id(champion, material.fingerprints)
    earlier = cycle.registry.cycle(cycle_id)
    if earlier is not None and not cycle.force:
        return told_again(cycle, champion, earlier, bootstrap=bootstrap)
    fired = fire(cycle, material, cycle_id)
    if not fired.due:
        return not_due(cycle, champion, fired, material)

    with cycle.registry.working(cycle_id, name=cycle.name):
        keep(cycle, cycle_id, fired)
        try:
            outcome = _learn(cycle, material, cycle_id, fired)
        except Pruned:
            cycle.registry.remove_work_folder(cycle_id)
            raise
        seconds = time.monotonic() - started
        return record(cycle, replace(outcome, bootstrap=bootstrap, wall_seconds=seconds))


def _learn(cycle: Cycle, material: Material, cycle_id: str, fired: Firing) -> Outcome:
    """Fit, evaluate and decide; nothing is recorded yet."""
    new, history, champion = material.new, material.history, material.lineage.champion
    charged = material.charge(cycle, cycle_id)
    methods = arrange(cycle.methods())
    refuse_what_cannot_work(cycle, material, methods, decision_number=charged.decision_number)
    cycle.seed_everything()
    learner = cycle.learner(champion)
    announce(cycle, material, methods, learner)

    served = learner.view(view(champion))
    learner.load(served.weights)
    output_width(learner, new.train)  # a model that cannot take the rows says so here
    require_selectable(cycle.data.memory, learner, new.train)
    before = score(learner, material, seed=cycle.seed)
    candidate = train(
        learner,
        champion=served,
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
        placement=cycle.data.placement,
        augment=cycle.data.augment,
        label_names=new.label_names,
        history_weight=history.weight,
        configuration=plain(cycle.config),
        limits=cycle.trial.limits if cycle.trial else None,
    )
    learner.settle()
    after = score(learner, material, seed=cycle.seed)
    evidence = gather(cycle, material, learner, champion=before, candidate=after)
    return Outcome(
        cycle_id=cycle_id,
        fired=fired,
        name=material.name,
        lineage=material.lineage,
        new=new,
        history=history,
        held=material.held,
        learner=learner,
        trained=candidate,
        evidence=evidence,
        metrics=metrics(evidence.report, cycle.task),
        decision=decide(evidence.report, cycle.policy, decision_number=charged.decision_number),
        charge=charged,
        recharge=partial(material.charge, cycle, cycle_id),
        new_holdout=material.new_holdout,
        files=version_files(
            cycle=material.name,
            learner=learner,
            parts=new,
            memory=cycle.data.memory,
            methods=candidate.methods,
            folder=cycle.work_folder(cycle_id),
            ties=cycle.data.ties,
            reference_rows=cycle.data.reference_rows,
            lineage=material.lineage,
            given=material.given,
            history=candidate.history,
            logits=stored_dtype(methods),
        ),
    )
