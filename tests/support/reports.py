"""Made-up reports: what the gate is given in its tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from perennial.promotion.policy import Check, Decision, Policy
from perennial.types import EvaluationReport, Predictions

KEPT, LOST, UNCLEAR = (0, 0, 600), (0, 60, 600), (5, 10, 200)
BETTER, WORSE, SAME = (20, 2, 100), (2, 20, 100), (5, 4, 100)


def predictions(score: np.ndarray) -> Predictions:
    return Predictions(prediction=score.astype(np.int64), score=score, loss=1.0 - score)


def make_report(
    new: tuple[int, int, int] = BETTER,
    *history: tuple[int, int, int],
    seen: tuple[bool, ...] = (),
    copies: int = 1,
) -> EvaluationReport:
    """Each set is (gained, lost, rows); ``copies`` of a row share a cluster."""
    names = ["new", *(f"history/{i}" for i in range(len(history)))]
    champion, candidate, holdout, was_seen = [], [], [], []
    for name, (b, c, n), known in zip(
        names, (new, *history), (False, *(seen or (False,) * len(history))), strict=True
    ):
        champion += [0.0] * b + [1.0] * (n - b)
        candidate += [1.0] * b + [0.0] * c + [1.0] * (n - b - c)
        holdout += [name] * n
        was_seen += [known] * n
    total = len(holdout) * copies
    return EvaluationReport(
        row_id=np.array([f"r{i}" for i in range(total)]),
        cluster=np.array([f"c{i}" for i in range(len(holdout))]).repeat(copies),
        holdout=np.array(holdout).repeat(copies),
        label=np.ones(total, dtype=np.int64),
        seen_by_champion=np.array(was_seen).repeat(copies),
        champion=predictions(np.array(champion).repeat(copies)),
        candidate=predictions(np.array(candidate).repeat(copies)),
        label_names=("no", "yes"),
    )


def check_of(decision: Decision, name: str) -> Check:
    return next(check for check in decision.checks if check.name == name)


def bare(**settings: Any) -> Policy:
    """A policy without slices and sanity checks, unless these are given."""
    quiet = {"slices": {"classes": False}, "sanity": {"constant": False, "leak": None}}
    return Policy(**(quiet | settings))
