"""Score kinds against torchmetrics, scikit-learn and the mean over all orders of ties."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score
from torchmetrics.functional.retrieval import retrieval_normalized_dcg, retrieval_reciprocal_rank

from perennial.errors import EvaluationError
from perennial.promotion.gate import decide
from perennial.promotion.policy import Policy
from perennial.promotion.scores import label_ranks, row_scores, scored, unit
from perennial.types import Predictions
from support.reports import BETTER, KEPT, make_report


def ranked(probabilities: np.ndarray) -> Predictions:
    n = len(probabilities)
    return Predictions(
        prediction=probabilities.argmax(axis=1),
        score=np.zeros(n),
        loss=np.linspace(0, 2, n),
        probabilities=probabilities,
    )


def test_ranking_scores_are_those_of_torchmetrics_and_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(7), size=60)
    label = generator.integers(7, size=60)
    target = np.eye(7)[label]
    reciprocal = row_scores("reciprocal_rank", ranked(probabilities), label)
    ndcg = row_scores("ndcg", ranked(probabilities), label)
    for row in range(60):
        told, truth = torch.tensor(probabilities[row]), torch.tensor(target[row])
        assert reciprocal[row] == pytest.approx(float(retrieval_reciprocal_rank(told, truth)))
        assert ndcg[row] == pytest.approx(float(retrieval_normalized_dcg(told, truth)), abs=1e-6)
        assert ndcg[row] == pytest.approx(ndcg_score(target[[row]], probabilities[[row]]))


@pytest.mark.parametrize("values", [(0.4, 0.4, 0.2), (0.25,) * 4, (0.5, 0.2, 0.2, 0.1), (0.3, 0.7)])
def test_ties_share_the_mean_of_their_ranks(values: tuple[float, ...]) -> None:
    probabilities = np.array([values] * len(values))
    ranks = label_ranks(probabilities, np.arange(len(values)))
    orders = [
        order
        for order in itertools.permutations(range(len(values)))
        if list(np.array(values)[list(order)]) == sorted(values, reverse=True)
    ]
    for label in range(len(values)):
        assert ranks[label] == np.mean([1 + order.index(label) for order in orders])


def test_loss_counts_against_a_model() -> None:
    one = ranked(np.full((4, 2), 0.5))
    assert row_scores("loss", one, np.zeros(4, dtype=int)).tolist() == (-one.loss).tolist()
    assert row_scores("task", one, np.zeros(4, dtype=int)) is one.score


@pytest.mark.parametrize("kind", ["reciprocal_rank", "ndcg"])
def test_ranks_need_probabilities(kind: str) -> None:
    policy = Policy(score=kind, retention={"total": None})
    with pytest.raises(EvaluationError, match="has none") as caught:
        decide(make_report(BETTER, KEPT), policy)
    assert caught.value.where == "gate.score"


def test_the_unit_follows_the_score() -> None:
    report = make_report(BETTER, KEPT)
    assert unit(report, "task") == "points"
    assert unit(report, "loss") == ""
    assert unit(replace(report, score_unit=""), "task") == ""


def test_a_decision_on_the_loss_says_so() -> None:
    policy = Policy(score="loss", retention={"total": None})
    report = make_report((120, 4, 200), KEPT)
    decision = decide(report, policy)
    assert decision.score == {"name": "loss", "unit": ""}
    improvement = decision.checks[1]
    # the loss is what is told, and falls; the estimate is of the score, and rises
    assert "loss 0.6 → 0.02" in improvement.reason
    assert improvement.estimate == pytest.approx(0.58)
    assert "points" not in improvement.reason
    assert decision.verdict == "promoted"
    assert scored(report, "task") is report
