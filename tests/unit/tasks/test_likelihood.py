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
from perennial.tasks.likelihood import (
    Bernoulli,
    Categorical,
    CategoricalTokens,
    Gaussian,
    uniform_by_id,
)
from perennial.tasks.multilabel import MultiLabel
from perennial.tasks.tokens import TokenClassification


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


def curvature(loss: Callable[[Tensor], Tensor], outputs: Tensor) -> Tensor:
    """Second derivative of one row's loss by its outputs, flattened."""
    shape = outputs.shape
    found: Tensor = torch.autograd.functional.hessian(
        lambda flat: loss(flat.reshape(shape)), outputs.reshape(-1)
    )
    return found


def outer(terms: list[Tensor], row: int) -> Tensor:
    flat = torch.stack([term[row].reshape(-1) for term in terms])
    return flat.T @ flat


def test_the_fisher_of_several_labels_is_the_curvature_of_their_mean_loss() -> None:
    logits, target = torch.randn(6, 4).double(), torch.randint(0, 2, (6, 4))
    task, density = MultiLabel(), Bernoulli()
    terms = list(density.expectation(logits))
    assert len(terms) == density.terms(logits) == 4
    for row in range(6):
        batch = (None, target[row : row + 1])
        own = logits[row : row + 1]
        expected = curvature(lambda f, b=batch: task.per_example_loss(f, b).sum(), own)
        torch.testing.assert_close(outer(terms, row), expected, atol=1e-6, rtol=1e-5)
    # the density's own gradient is √C times that of the mean
    slope = by_autograd(lambda f: -task.per_example_loss(f, (None, target)), logits)
    torch.testing.assert_close(density.gradient(logits, target), 2 * slope, atol=1e-6, rtol=1e-5)


def test_the_fisher_of_tokens_is_the_curvature_of_their_mean_loss() -> None:
    logits, target = torch.randn(3, 4, 3).double(), torch.randint(0, 3, (3, 4))
    target[0, 2:], target[1, :3], target[2] = -100, -100, -100
    task, density = TokenClassification(), CategoricalTokens()
    terms = list(density.expectation(logits, target))
    assert len(terms) == density.terms(logits) == 12
    for row in range(3):
        batch = (None, target[row : row + 1])
        own = logits[row : row + 1]
        expected = curvature(lambda f, b=batch: task.per_example_loss(f, b).sum(), own)
        torch.testing.assert_close(outer(terms, row), expected, atol=1e-6, rtol=1e-5)
    slope = by_autograd(lambda f: -task.per_example_loss(f, (None, target)), logits)
    number = (target != -100).sum(dim=1).double().sqrt()[:, None, None]
    found = density.gradient(logits, target)
    torch.testing.assert_close(found, number * slope, atol=1e-6, rtol=1e-5)


def test_drawn_labels_and_tokens_have_their_probabilities_and_their_gaps() -> None:
    n = 4000
    logits = torch.randn(1, 3).double().repeat(n, 1)
    share = Bernoulli().draw(logits, ids(n), 3).mean(dim=0)
    p = torch.sigmoid(logits[0])
    assert ((share - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all()

    tokens = torch.randn(1, 2, 3).double().repeat(n, 1, 1)
    observed = torch.zeros(n, 2, dtype=torch.long)
    observed[:5, 1] = -100
    drawn = CategoricalTokens().draw(tokens, ids(n), 3, observed)
    assert (drawn == -100).sum() == 5
    assert (drawn[:5, 1] == -100).all()
    p = torch.softmax(tokens[0], dim=1)
    for place in range(2):
        counted = drawn[5:, place]
        share = torch.bincount(counted, minlength=3) / len(counted)
        assert ((share - p[place]).abs() < 4 * (p[place] * (1 - p[place]) / n).sqrt()).all()
    # positions draw each for themselves
    joint = torch.zeros(3, 3).index_put_(
        (drawn[5:, 0], drawn[5:, 1]), torch.ones(n - 5), accumulate=True
    )
    assert stats.chi2_contingency(joint.numpy() + 1e-9).pvalue > 1e-3


def test_a_weighted_row_counts_as_so_many() -> None:
    logits, label = torch.randn(9, 4), torch.randint(0, 4, (9,))
    names = ["a", "b", "c", "d"]
    task = Classification(labels=names, class_weights={"b": 9.0, "d": 0.25})
    weight = torch.tensor([1.0, 9.0, 1.0, 0.25])
    expected = F.cross_entropy(logits, label, weight=weight, reduction="none")
    torch.testing.assert_close(task.per_example_loss(logits, (None, label)), expected)
    plain = Categorical().gradient(logits, label)
    found = task.likelihood.gradient(logits, label)
    torch.testing.assert_close(found.square(), weight[label][:, None] * plain.square())
    # the exact expectation is the mean of the squares over the model's own labels
    terms = torch.stack(list(task.likelihood.expectation(logits)))
    p = torch.softmax(logits, dim=1)
    every = torch.stack([task.likelihood.gradient(logits, torch.full((9,), c)) for c in range(4)])
    torch.testing.assert_close(
        terms.square().sum(dim=0), torch.einsum("bc,cbi->bi", p, every.square())
    )
    # a class that came later counts once
    wide = torch.randn(2, 5)
    last = torch.tensor([4, 4])
    torch.testing.assert_close(
        task.per_example_loss(wide, (None, last)), F.cross_entropy(wide, last, reduction="none")
    )


def test_smoothing_is_torchs_and_leaves_scores_and_curvature() -> None:
    logits, label = torch.randn(9, 4), torch.randint(0, 4, (9,))
    task = Classification(label_smoothing=0.2)
    expected = F.cross_entropy(logits, label, reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(task.per_example_loss(logits, (None, label)), expected)
    assert torch.equal(
        task.scores(logits, (None, label)), Classification().scores(logits, (None, label))
    )
    terms = list(task.likelihood.expectation(logits))
    loss = lambda f: task.per_example_loss(f, (None, label[:1])).sum()  # noqa: E731
    torch.testing.assert_close(outer(terms, 0), curvature(loss, logits[:1]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"class_weights": {"a": 2.0}}, "the order of the classes is not"),
        ({"class_weights": {"z": 2.0}, "labels": ["a"]}, "'z', which is no class"),
        ({"class_weights": {"a": 0.0}, "labels": ["a"]}, "above 0"),
        ({"label_smoothing": 1.0}, "below 1"),
    ],
)
def test_weights_without_a_place_and_smoothing_out_of_range_are_refused(
    settings: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Classification(**settings)  # type: ignore[arg-type]
