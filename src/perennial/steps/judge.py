"""Champion and candidate on the same frozen rows.

Shapes: N rows of all holdouts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perennial import statistics
from perennial.data.rows import Rows, joined_labels, sliced
from perennial.data.split import components
from perennial.errors import ConfigError
from perennial.evaluation.measure import build_metric, taken
from perennial.promotion.policy import Policy
from perennial.promotion.requirements import require_slices
from perennial.tasks.base import Task
from perennial.types import Booleans, EvaluationReport, Predictions, Strings

Held = Mapping[str, tuple[Rows, Booleans]]


def require_measurable(
    policy: Policy, rows: Sequence[Rows], *, classes: int, kind: str = "class"
) -> None:
    """Refuse, before any training, what a policy asks and the rows cannot answer.

    Args:
        policy: Names metrics and slice columns.
        rows: The new ones, and others that will be judged on.
        classes: Number of them.
        kind: What the targets are.

    Raises:
        ConfigError: A metric does not exist or refuses its arguments; a slice column is absent or
            has too many values; or a row has no class of its own to rank.
    """
    if policy.score in ("reciprocal_rank", "ndcg") and kind != "class":
        raise ConfigError(
            f"gate.score={policy.score} ranks a row's class, and the task's rows have none of "
            "their own.",
            where="gate.score",
            mend="set gate.score=task or gate.score=loss",
        )
    for bound in policy.bounds:
        metric = build_metric(bound.metric, bound.arguments, classes=classes, kind=kind)
        if metric.plot_upper_bound == 1.0 and bound.limit > 1:
            raise ConfigError(
                f"{bound.metric} is at most 1, and its limit is {bound.limit:g}.",
                where="gate.bounds",
                mend=f"write {bound.limit / 100:g} for {bound.limit:g}%",
            )
    known = {name: np.unique(values) for name, values in sliced(rows).items()}
    require_slices(policy, {name: known[name] for name in rows[0].slices})


def distinct(ids: Strings) -> Strings:
    """Row ids (N,) told apart: of copies that have no id of their own the second is ``<id>#2``."""
    _, inverse, count = np.unique(ids, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    nth = np.empty(len(ids), dtype=np.int64)
    nth[order] = np.arange(len(ids)) - np.repeat(np.cumsum(count) - count, count)
    if not nth.any():
        return ids
    return np.array([f"{i}#{n + 1}" if n else i for i, n in zip(ids.tolist(), nth, strict=True)])


def join(
    held: Held,
    *,
    champion: Mapping[str, Predictions],
    candidate: Mapping[str, Predictions],
    label_names: tuple[str, ...],
    cycle_name: str = "new",
    task: Task,
) -> EvaluationReport:
    """One report over all holdouts.

    Slice columns are those of the new rows: an older holdout may have other ones.

    Args:
        held: Holdout name to its rows and which of them the adopted model was trained on.
        champion: Predictions by holdout.
        candidate: Likewise.
        label_names: In the order of the labels.
        cycle_name: Of the cycle that held the new rows out.
        task: Says what targets and scores are.
    """
    names = list(held)
    rows = [held[name][0] for name in names]
    new = held["new"][0]
    return EvaluationReport(
        row_id=np.concatenate([distinct(part.id) for part in rows]),
        cluster=components(
            np.concatenate([part.cluster for part in rows]),
            np.concatenate([part.content for part in rows]),
        ),
        holdout=np.repeat(np.array(names), [len(part) for part in rows]),
        label=joined_labels([part.label for part in rows]),
        seen_by_champion=np.concatenate([held[name][1] for name in names]),
        champion=stack([champion[name] for name in names]),
        candidate=stack([candidate[name] for name in names]),
        label_names=label_names,
        cycle_name=cycle_name,
        slices={name: values for name, values in sliced(rows).items() if name in new.slices},
        score_name=task.score_name,
        score_unit=task.score_unit,
        target_kind=task.target_kind,
    )


def stack(parts: list[Predictions]) -> Predictions:
    """Predictions over several sets, in order."""
    probabilities = [part.probabilities for part in parts if part.probabilities is not None]
    return Predictions(
        prediction=joined_labels([part.prediction for part in parts]),
        score=np.concatenate([part.score for part in parts]),
        loss=np.concatenate([part.loss for part in parts]),
        probabilities=np.concatenate(probabilities) if probabilities else None,
    )


def metrics(report: EvaluationReport, task: Task) -> dict[str, dict[str, dict[str, float]]]:
    """Aggregates of both models on ``new``, ``history`` (pooled by rows) and each holdout.

    Returns:
        ``champion`` and ``candidate`` to slice to metric, as `aggregate` gives them.
    """
    slices = {name: report.holdout == name for name in dict.fromkeys(report.holdout.tolist())}
    if (~report.is_new).any():
        slices["history"] = ~report.is_new
    result: dict[str, dict[str, dict[str, float]]] = {}
    for who in ("champion", "candidate"):
        predictions: Predictions = getattr(report, who)
        result[who] = {
            name: aggregate(predictions, report.label, mask, task, len(report.label_names))
            for name, mask in sorted(slices.items(), key=lambda item: item[0] != "new")
        }
    return result


def aggregate(
    predictions: Predictions, label: Any, mask: Booleans, task: Task, classes: int
) -> dict[str, float]:
    """Metrics of one model over the rows of a mask, with ``loss``, ``n``, and ``ece``.

    The expected calibration error is there where the model gives probabilities of one class a row.
    """
    kept = taken(predictions, mask)
    return {
        **task.measure(kept, label[mask], classes),
        "loss": float(kept.loss.mean()),
        **(_calibration(kept, label[mask]) if task.target_kind == "class" else {}),
        "n": int(mask.sum()),
    }


def _calibration(predictions: Predictions, label: Any) -> dict[str, float]:
    if predictions.probabilities is None:
        return {}
    return {"ece": statistics.expected_calibration_error(predictions.probabilities, label)}
