"""Classes that a model does not know: wrong, at a finite loss, and nothing else changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import nn

from perennial.evaluation.predict import predict
from perennial.tasks.classification import UNKNOWN, Classification
from perennial.types import Batch


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_unknown_class_has_the_smallest_probability(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    task = Classification()
    own = (torch.randn(50, 3) * 8).to(dtype)
    wide = task.widened(own, 5)
    p = torch.softmax(wide.double(), dim=1)
    assert wide.shape == (50, 5)
    torch.testing.assert_close(
        p[:, 3:], torch.full((50, 2), UNKNOWN, dtype=torch.float64), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(wide[:, :3], own.float(), rtol=0, atol=0)
    assert torch.equal(task.predictions(wide), task.predictions(own))
    assert task.widened(own, 3) is own
    many = torch.softmax(task.widened(own, 100_003).double(), dim=1)[:, 3:]
    torch.testing.assert_close(many, torch.full_like(many, UNKNOWN), rtol=1e-4, atol=0)


def test_rows_of_an_unknown_class_are_wrong_at_a_finite_loss() -> None:
    torch.manual_seed(0)
    task, model = Classification(), nn.Linear(4, 3)
    x, label = torch.randn(40, 4), torch.randint(0, 5, (40,))
    ids = np.array([str(i) for i in range(40)])
    batch = Batch(data=(x, label), ids=ids, is_new=np.ones(40, dtype=bool))
    found = predict(model, task, [batch], classes=5)
    assert found.probabilities is not None
    assert found.probabilities.shape == (40, 5)
    unknown = (label >= 3).numpy()
    assert not found.score[unknown].any()
    np.testing.assert_allclose(found.loss[unknown], -math.log(UNKNOWN), rtol=1e-4)
    # scikit-learn clips to the same epsilon
    p = np.zeros((40, 5), dtype=np.float32)
    p[:, :3] = torch.softmax(model(x), dim=1).detach().numpy()
    expected = log_loss(label.numpy(), p, labels=range(5))
    assert found.loss.mean() == pytest.approx(expected, rel=1e-4)

    known = Batch(data=(x, label % 3), ids=ids, is_new=batch.is_new)
    plain, wide = predict(model, task, [known]), predict(model, task, [known], classes=5)
    assert np.array_equal(plain.score, wide.score)
    np.testing.assert_allclose(plain.loss, wide.loss, atol=1e-5)
