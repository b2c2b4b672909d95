from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torchmetrics.retrieval import RetrievalMRR, RetrievalNormalizedDCG, RetrievalRecall

from perennial.errors import ConfigError
from perennial.tasks.classification import UNKNOWN
from perennial.tasks.ranking import Ranking, ranks, sampled_softmax
from perennial.types import Predictions

ROWS, ITEMS = 80, 30


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(ROWS, ITEMS, generator=generator)
    return outputs, torch.randint(0, ITEMS, (ROWS,), generator=generator)


def measured(task: Ranking, outputs: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    score = task.scores(outputs, (None, target)).numpy()
    predictions = Predictions(task.predictions(outputs).numpy(), score, np.zeros(len(score)))
    return task.measure(predictions, target.numpy(), 0)


def test_metrics_are_torchmetrics_retrieval() -> None:
    outputs, target = drawn()
    found = measured(Ranking(cutoffs=[10, 3]), outputs, target)
    indexes = torch.arange(ROWS).repeat_interleave(ITEMS)
    # its reciprocal rank takes scores below 0 for items that are not retrieved
    given = (outputs.sigmoid().flatten(), F.one_hot(target, ITEMS).flatten().bool())
    expected = {"mrr": RetrievalMRR()(*given, indexes=indexes)}
    for k in (3, 10):
        expected[f"recall@{k}"] = RetrievalRecall(top_k=k)(*given, indexes=indexes)
        expected[f"ndcg@{k}"] = RetrievalNormalizedDCG(top_k=k)(*given, indexes=indexes)
    assert found == pytest.approx({name: value.item() for name, value in expected.items()})


def test_ranks_are_scipys_with_ties_shared() -> None:
    outputs, target = drawn()
    outputs = outputs.round()
    expected = rankdata(-outputs.numpy(), axis=1)[np.arange(ROWS), target.numpy()]
    assert ranks(outputs, target).tolist() == expected.tolist()
    # a model that cannot tell items apart gains nothing by their order
    same = measured(Ranking(cutoffs=[5]), torch.zeros(3, ITEMS), torch.tensor([0, 1, 2]))
    assert same["recall@5"] == 0
    assert same["mrr"] == pytest.approx(1 / ((ITEMS + 1) / 2))


def test_an_item_without_an_output_scores_nothing_at_a_finite_loss() -> None:
    outputs, _ = drawn()
    target = torch.full((ROWS,), ITEMS)
    task = Ranking(negatives=4)
    assert not task.scores(outputs, (None, target)).any()
    assert task.per_example_loss(outputs, (None, target))[0].item() == pytest.approx(
        -math.log(UNKNOWN)
    )
    assert measured(task, outputs, target)["recall@20"] == 0
    assert not task.likelihood.gradient(outputs, target).any()
    target[0] = 3
    leaf = outputs.clone().requires_grad_()
    task.per_example_loss(leaf, (None, target)).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad[0].any()
    assert not leaf.grad[1:].any()


def test_drawn_items_stand_for_all() -> None:
    outputs, target = drawn()
    outputs = outputs.double()
    full = F.cross_entropy(outputs, target, reduction="none")
    # the mean over every single draw that is not the target is the whole sum
    for row in range(5):
        odds = [
            sampled_softmax(outputs[row : row + 1], target[row : row + 1], torch.tensor([item]))
            .exp()
            .item()
            for item in range(ITEMS)
            if item != target[row]
        ]
        assert np.mean(odds) == pytest.approx(full[row].exp().item())
    # where each is drawn once, the estimate is exact, whoever is the target
    whole = sampled_softmax(outputs, target, torch.arange(ITEMS))
    torch.testing.assert_close(whole, full)


def test_sampling_is_for_training_alone() -> None:
    outputs, target = drawn()
    task = Ranking(negatives=3)
    full = F.cross_entropy(outputs, target, reduction="none")
    with torch.no_grad():
        torch.testing.assert_close(task.per_example_loss(outputs, (None, target)), full)
    assert not torch.equal(task.per_example_loss(outputs, (None, target)), full)
    torch.testing.assert_close(Ranking().per_example_loss(outputs, (None, target)), full)


@pytest.mark.parametrize("settings", [{"cutoffs": []}, {"cutoffs": [0]}, {"negatives": -1}])
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Ranking(**settings)  # type: ignore[arg-type]
