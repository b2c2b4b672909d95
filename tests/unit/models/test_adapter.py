from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perennial.errors import ConfigError
from perennial.methods.fisher import diagonal_fisher
from perennial.models import adapter as adapters
from perennial.models.adapter import Adapter


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "body": nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 5)),
            "head": nn.Linear(5, 4),
        }
    )


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    logits: Tensor = model["head"](model["body"](x))  # type: ignore[index]
    return logits


def _adapted(**settings: object) -> nn.Module:
    model = _model()
    adapters.adapt(
        model,
        Adapter(**{"layers": ["body.*"], "rank": 2, "train": ["head.*"], **settings}),  # type: ignore[arg-type]
    )
    return model


def _filled(seed: int, **settings: object) -> nn.Module:
    model = _adapted(**settings)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if adapters.is_factor(name):
                p.copy_(torch.randn(p.shape, generator=generator))
    return model


def test_factors_train_and_the_model_is_as_before() -> None:
    model, x = _adapted(), torch.randn(7, 3)
    torch.testing.assert_close(_logits(model, x), _logits(_model(), x))
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        *(f"body.{n}.lora_{f}.default.weight" for n in (0, 2) for f in "AB"),
        "head.weight", "head.bias",
    }  # fmt: skip
    assert adapters.plain(model.state_dict()).keys() == _model().state_dict().keys()


def test_merged_is_a_plain_model_that_computes_the_same() -> None:
    model, x = _filled(1), torch.randn(7, 3)
    before = _logits(model, x)
    adapters.merge(model)
    assert model.state_dict().keys() == _model().state_dict().keys()
    assert not any("peft" in type(layer).__module__ for layer in model.modules())
    torch.testing.assert_close(_logits(model, x), before)
    plain = _model()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(_logits(plain, x), before)


def test_plain_weights_go_under_the_adapters_names() -> None:
    model = _filled(1)
    other = {name: torch.full_like(value, 7) for name, value in _model().state_dict().items()}
    found = adapters.under_adapters(other, model.state_dict())
    assert found.keys() == model.state_dict().keys()
    for name, value in found.items():
        if adapters.is_factor(name):
            assert torch.equal(value, model.state_dict()[name])
        else:
            assert (value == 7).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layers": ["encoder.*"]}, "no linear layer"),
        ({"layers": ["body.0", "body.1"]}, "no linear layer"),
        ({"train": ["haed.*"]}, "no parameter"),
        ({"layers": ["*"]}, "gets factors"),
        ({"layers": []}, "layers"),
        ({"rank": 0}, "rank"),
        ({"alpha": 0.0}, "alpha"),
        ({"dropout": 1.0}, "dropout"),
        ({"store": "both"}, "store"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _adapted(**settings)


def test_only_the_named_layer_is_adapted_where_names_end_alike() -> None:
    model = nn.ModuleDict({"fc": nn.Linear(2, 2), "deep": nn.ModuleDict({"fc": nn.Linear(2, 2)})})
    assert adapters.adapt(model, Adapter(layers=("fc",))) == ["fc"]
    assert "deep.fc.weight" in model.state_dict()


def test_the_fisher_of_factors_is_that_of_a_loop_over_rows() -> None:
    model, x, y = _filled(3), torch.randn(6, 3), torch.randint(0, 4, (6,))
    model.eval()
    found, _ = diagonal_fisher(
        model, [(x[:4], y[:4]), (x[4:], y[4:])], logits=lambda data: _logits(model, data[0]),
        kind="empirical", targets=lambda data: data[1],
    )  # fmt: skip
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    expected = {name: torch.zeros_like(p) for name, p in trained.items()}
    for row in range(6):
        loss = F.cross_entropy(_logits(model, x[row : row + 1]), y[row : row + 1])
        gradients = torch.autograd.grad(loss, list(trained.values()))
        for name, gradient in zip(expected, gradients, strict=True):
            expected[name] += gradient.square() / 6
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-8)


def _factors(seed: int, out: int = 6, inner: int = 5, rank: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(rank, inner, generator=generator) * 3,
        torch.randn(out, rank, generator=generator) * 0.1,
    )


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_the_product_is_interpolated_as_well_as_its_rank_allows(alpha: float) -> None:
    one, two = _factors(1), _factors(2)
    a, b, lost = adapters.product_between(one, two, alpha)
    assert a.shape == one[0].shape
    assert b.shape == one[1].shape
    wanted = (1 - alpha) * one[1] @ one[0] + alpha * two[1] @ two[0]
    u, s, v = torch.linalg.svd(wanted)
    best = u[:, :2] * s[:2] @ v[:2]
    torch.testing.assert_close(b @ a, best, rtol=1e-4, atol=1e-5)
    assert lost == pytest.approx(float(s[2:].square().sum() / s.square().sum()), rel=1e-4)
    # the mean of the factors is something else
    mean = ((1 - alpha) * one[1] + alpha * two[1]) @ ((1 - alpha) * one[0] + alpha * two[0])
    assert not torch.allclose(mean, best, rtol=0.05, atol=0.01)


def test_at_its_end_it_is_the_candidate_and_from_fresh_factors_it_is_exact() -> None:
    (a0, b0), (a1, b1) = _factors(1), _factors(2)
    a, b, lost = adapters.product_between((a0, b0), (a1, b1), 1.0)
    torch.testing.assert_close(a, a1)
    torch.testing.assert_close(b, b1)
    assert lost < 1e-12
    a, b, lost = adapters.product_between((a0, torch.zeros_like(b0)), (a1, b1), 0.3)
    torch.testing.assert_close(a, a1)
    torch.testing.assert_close(b, 0.3 * b1)
    assert lost < 1e-12


@pytest.mark.parametrize(
    "change",
    [
        lambda a, b: (torch.zeros_like(a), b),
        lambda a, b: (a, torch.zeros_like(b)),
        lambda a, b: (torch.cat([a[:1], a[:1]]), b),
    ],
)
def test_factors_without_their_full_rank_are_no_trouble(
    change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
) -> None:
    one, two = _factors(1), change(*_factors(2))
    for first, second in ((one, two), (two, one), (two, two)):
        a, b, _ = adapters.product_between(first, second, 0.5)
        wanted = 0.5 * first[1] @ first[0] + 0.5 * second[1] @ second[0]
        u, s, v = torch.linalg.svd(wanted)
        torch.testing.assert_close(b @ a, u[:, :2] * s[:2] @ v[:2], rtol=1e-4, atol=1e-4)


def test_a_rank_above_the_layers_size_is_no_trouble() -> None:
    one, two = _factors(1, out=3, inner=2, rank=4), _factors(2, out=3, inner=2, rank=4)
    a, b, lost = adapters.product_between(one, two, 0.25)
    assert (a.shape, b.shape) == ((4, 2), (3, 4))
    torch.testing.assert_close(b @ a, 0.75 * one[1] @ one[0] + 0.25 * two[1] @ two[0])
    assert lost < 1e-12


def test_norms_beside_factors_keep_their_statistics_where_they_are_frozen() -> None:
    for train, stays in (((), True), (("1.*",), False)):
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        adapters.adapt(model, Adapter(layers=("0",), rank=1, train=train))
        model.train()
        before = model[1].running_mean.clone()  # type: ignore[union-attr,operator]
        model(torch.randn(8, 3) + 5)
        assert torch.equal(model[1].running_mean, before) is stays  # type: ignore[arg-type]


def test_a_model_that_is_one_linear_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="one linear layer itself"):
        adapters.adapt(nn.Linear(2, 2), Adapter(layers=("*",)))
