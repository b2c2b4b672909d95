from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor
from torch.distributions import Normal

from perennial.errors import ConfigError, MethodError
from perennial.tasks.classification import Classification
from perennial.tasks.likelihood import Categorical, Gaussian, uniform_by_id


def ids(count: int) -> np.ndarray:
    return np.array([f"row-{i}" for i in range(count)])


def by_autograd(log_density: Callable[[Tensor], Tensor], outputs: Tensor) -> Tensor:
    leaf = outputs.clone().requires_grad_()
    return torch.autograd.grad(log_density(leaf).sum(), leaf)[0]


def test_the_categorical_gradient_is_that_of_minus_the_loss() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(9, 4), torch.randint(0, 4, (9,))
    task = Classification()
    batch = {"x": torch.zeros(9), "label": label}
    expected = by_autograd(lambda f: -task.per_example_loss(f, batch), logits)
    torch.testing.assert_close(task.likelihood.gradient(logits, label), expected)


@pytest.mark.parametrize("shape", [(9,), (9, 1), (9, 3)])
@pytest.mark.parametrize("variance", [0.5, 1.0, 4.0])
def test_the_gaussian_gradient_is_that_of_its_density(
    shape: tuple[int, ...], variance: float
) -> None:
    torch.manual_seed(0)
    outputs, target = torch.randn(shape), torch.randn(shape)
    density = Gaussian(variance=variance)
    expected = by_autograd(lambda f: Normal(f, variance**0.5).log_prob(target), outputs)
    torch.testing.assert_close(density.gradient(outputs, target), expected)
    if shape == (9, 1):
        torch.testing.assert_close(density.gradient(outputs, target[:, 0]), expected)


def test_variance_one_half_belongs_to_the_squared_error() -> None:
    outputs, target = torch.randn(9), torch.randn(9)
    expected = by_autograd(lambda f: -F.mse_loss(f, target, reduction="none"), outputs)
    torch.testing.assert_close(Gaussian(variance=0.5).gradient(outputs, target), expected)


def test_expectations_are_square_roots_of_the_outputs_fisher() -> None:
    logits = torch.randn(5, 4)
    p = torch.softmax(logits, dim=1)
    terms = torch.stack(list(Categorical().expectation(logits)))
    assert len(terms) == Categorical().terms(logits) == 4
    expected = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    torch.testing.assert_close(torch.einsum("tbi,tbj->bij", terms, terms), expected)
    density = Gaussian(variance=4.0)
    for outputs in (torch.randn(5, 3), torch.randn(5)):
        width = outputs[:1].numel()
        terms = torch.stack(list(density.expectation(outputs)))
        assert terms.shape[1:] == outputs.shape
        assert len(terms) == density.terms(outputs) == width
        flat = terms.reshape(width, 5, width)
        expected = torch.eye(width).expand(5, -1, -1) / 4
        torch.testing.assert_close(torch.einsum("tbi,tbj->bij", flat, flat), expected)


def test_a_sure_model_keeps_the_digits_of_its_doubt() -> None:
    found = Categorical().gradient(torch.tensor([[20.0, 0.0]]), torch.tensor([0]))
    assert float(found[0, 0]) == pytest.approx(np.exp(-20.0) / (1 + np.exp(-20.0)), rel=1e-6)


def test_draws_have_the_models_distribution() -> None:
    n = 20_000
    logits = torch.tensor([[0.3, -1.0, 0.9]]).expand(n, 3)
    p = torch.softmax(logits[0].double(), dim=0)
    share = torch.bincount(Categorical().draw(logits, ids(n), 3), minlength=3) / n
    assert ((share - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all()
    outputs = torch.tensor([[5.0, -2.0]]).expand(n, 2)
    noise = (Gaussian(variance=9.0).draw(outputs, ids(n), 3) - outputs).numpy() / 3
    for column in noise.T:
        assert stats.kstest(column, "norm").pvalue > 1e-4
    assert abs(np.corrcoef(noise.T)[0, 1]) < 4 / n**0.5


@pytest.mark.parametrize("density", [Categorical(), Gaussian()])
def test_a_rows_draw_depends_on_nothing_but_its_outputs_id_and_the_seed(
    density: Categorical | Gaussian,
) -> None:
    outputs, names = torch.randn(40, 3), ids(40)
    whole = density.draw(outputs, names, 1)
    order = torch.randperm(40)
    assert torch.equal(density.draw(outputs[order], names[order.numpy()], 1), whole[order])
    assert torch.equal(density.draw(outputs[7:9], names[7:9], 1), whole[7:9])
    assert not torch.equal(density.draw(outputs, names, 2), whole)


def test_more_numbers_of_a_row_leave_the_first_as_it_was() -> None:
    one, three = uniform_by_id(ids(500), 5), uniform_by_id(ids(500), 5, count=3)
    assert one.shape == (500, 1)
    assert torch.equal(three[:, :1], one)
    assert ((three >= 0) & (three < 1)).all()
    assert len(three.unique()) == 1500


@pytest.mark.parametrize("variance", [0.0, -1.0, float("nan"), float("inf")])
def test_a_variance_that_is_none_is_refused(variance: float) -> None:
    with pytest.raises(ConfigError, match="variance"):
        Gaussian(variance=variance)


@pytest.mark.parametrize("target", [torch.zeros(4), torch.zeros(2, 2), torch.zeros(4, 3)])
def test_targets_that_do_not_fit_the_outputs_are_refused(target: Tensor) -> None:
    with pytest.raises(MethodError, match="targets"):
        Gaussian().gradient(torch.zeros(4, 2) if target.ndim == 1 else torch.zeros(4), target)
