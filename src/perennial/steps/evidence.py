"""What the gate is given beside the paired predictions: everything that a policy may ask about.

None of it moves a generator that training draws from, nor a weight.

Shapes: N rows of all holdouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from perennial.data.rows import Rows
from perennial.data.selection import reservoir
from perennial.data.split import components
from perennial.errors import EvaluationError
from perennial.evaluation.measure import measured
from perennial.evaluation.serving import serving
from perennial.models.undisturbed import same_draws
from perennial.promotion import best
from perennial.promotion.best import Best
from perennial.steps.candidate import view
from perennial.steps.judge import join
from perennial.steps.learner import Learner
from perennial.steps.material import Material
from perennial.steps.settings import Cycle
from perennial.types import EvaluationReport, Fitted, Predictions, Serving

FITTED_ROWS = 1000


@dataclass(frozen=True)
class Scored:
    """One model on what a cycle is judged by.

    Attributes:
        held: Holdout to predictions.
        fitted: Predictions on a sample of the new training rows.
    """

    held: Mapping[str, Predictions]
    fitted: Predictions


@dataclass(frozen=True)
class Evidence:
    """What is decided on, and what is kept beside it.

    Attributes:
        report: Both models on the same rows.
        best: The best champion on each holdout; the candidate carries it.
        initial: Mean score on the new holdout of a model that learned nothing; None where it gave
            no number.
    """

    report: EvaluationReport
    best: Best
    initial: float | None


def score(learner: Learner, material: Material, *, seed: int) -> Scored:
    """The learner's present weights on every holdout and on a sample of the new training rows."""
    classes = len(material.new.label_names)
    return Scored(
        held={
            name: learner.predict(rows, classes=classes)
            for name, (rows, _) in material.held.items()
        },
        fitted=learner.predict(_sample(material.new.train, seed), classes=classes),
    )


def gather(
    cycle: Cycle, material: Material, learner: Learner, *, champion: Scored, candidate: Scored
) -> Evidence:
    """Everything that the gate looks at.

    Args:
        cycle: Its policy says which metrics are measured.
        material: What both were scored on.
        learner: Holds the candidate's weights.
        champion: The champion's predictions.
        candidate: The candidate's.

    Raises:
        ConfigError: A metric of the policy cannot be measured.
        IntegrityError: The champion's own scores are damaged.
    """
    report = join(
        material.held,
        champion=champion.held,
        candidate=candidate.held,
        label_names=material.new.label_names,
        cycle_name=material.name,
        task=cycle.task,
    )
    known = _best(material, report)
    costs, initial = _beside(cycle, material, learner)
    sample = _sample(material.new.train, cycle.seed)
    report = replace(
        _with_best(report, known, material),
        fitted=Fitted(
            champion=champion.fitted.score,
            candidate=candidate.fitted.score,
            cluster=components(sample.cluster, sample.content),
        ),
        serving=costs,
    )
    return Evidence(
        report=replace(report, measured=measured(report, cycle.policy.bounds)),
        best=known,
        initial=initial,
    )


def _sample(rows: Rows, seed: int) -> Rows:
    return rows.take(reservoir(rows.id, seed=seed)[:FITTED_ROWS])


def _best(material: Material, report: EvaluationReport) -> Best:
    """The best champion on each row, the present one on new rows."""
    champion = material.lineage.champion
    stored = None
    if best.FILE in champion.files:
        stored = best.read(champion.open(best.FILE))
    return best.so_far(
        stored,
        holdout=report.cycle,
        row_id=report.row_id,
        champion=report.champion.score,
        number=champion.number,
    )


def _with_best(report: EvaluationReport, known: Best, material: Material) -> EvaluationReport:
    """The report with ``best`` and ``best_versions``, where there was more than one champion."""
    champion = material.lineage.champion
    old = [name for name in dict.fromkeys(report.holdout.tolist()) if name != "new"]
    if not old or best.FILE not in champion.files:
        return report
    numbers = known.versions
    return replace(
        report,
        best=np.where(report.is_new, np.nan, known.score),
        best_versions={
            name: f"{champion.name}@{numbers[name.removeprefix('history/')]}" for name in old
        },
    )


def _beside(
    cycle: Cycle, material: Material, learner: Learner
) -> tuple[dict[str, Serving], float | None]:
    """Cost of serving both models, and the score of one that learned nothing.

    A second model is built as the learner's was, and scored before it gets the champion's weights.
    """
    champion = material.lineage.champion
    try:
        with same_draws():
            cycle.seed_everything()
            other = cycle.learner(champion)
            initial = _initial(cycle, other, material)
            other.load(other.view(view(champion)).weights)
            return _costs({"champion": other, "candidate": learner}, material, cycle.seed), initial
    except torch.OutOfMemoryError:
        cycle.say(
            "serving: champion and candidate do not fit the device's memory together, so neither "
            "cost nor forward transfer was measured"
        )
        return {}, None


def _initial(cycle: Cycle, fresh: Learner, material: Material) -> float | None:
    new = material.new
    try:
        predicted = fresh.predict(new.holdout, classes=len(new.label_names))
    except EvaluationError as error:
        cycle.say(f"forward transfer: an untrained model gives no score ({error.what})")
        return None
    return float(predicted.score.mean())


def _costs(learners: Mapping[str, Learner], material: Material, seed: int) -> dict[str, Serving]:
    learner = learners["candidate"]
    rows = material.new.holdout.take(slice(0, learner.eval_batch))
    # the candidate's preprocessing may know more than the champion's
    data = {name: next(one.batches(rows)).data for name, one in learners.items()}
    return serving(
        {name: one.module for name, one in learners.items()},
        lambda name: learners[name].task.outputs(learners[name].module, data[name]),
        device=learner.device,
        seed=seed,
    )
