"""The reference models: shapes, what they refuse, and that each learns a toy problem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perennial.errors import ConfigError
from perennial.models.reference import MLP, ConvNet, Sequential, Tabular


def _learns(model: nn.Module, data: Callable[[], tuple[dict[str, Any], Tensor]]) -> float:
    """Accuracy on fresh rows after a short training."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(250):
        inputs, target = data()
        optimizer.zero_grad()
        F.cross_entropy(model(**inputs), target).backward()
        optimizer.step()
    model.eval()
    inputs, target = data()
    return float((model(**inputs).argmax(1) == target).float().mean())


def test_the_convolutional_net_takes_images_of_any_size_and_channels() -> None:
    grey, colour = ConvNet(classes=7), ConvNet(channels=3, classes=2, widths=[4, 8, 8])
    image = torch.randint(0, 256, (5, 28, 28), dtype=torch.uint8)
    assert torch.equal(grey(image), grey(image[:, None]))
    assert grey(image).shape == (5, 7)
    torch.testing.assert_close(grey(image), grey(image.float() / 255))
    assert colour(torch.rand(2, 3, 64, 48)).shape == (2, 2)
    assert grey.double()(image).dtype == torch.float64
    with pytest.raises(ConfigError):
        ConvNet(widths=[])


def test_the_convolutional_net_learns_where_a_mark_is() -> None:
    torch.manual_seed(0)

    def data() -> tuple[dict[str, Any], Tensor]:
        label = torch.randint(0, 4, (64,))
        image = torch.randint(0, 60, (64, 1, 28, 28), dtype=torch.uint8)
        for row, place in enumerate(label.tolist()):
            y, x = 14 * (place // 2) + 4, 14 * (place % 2) + 4
            image[row, 0, y : y + 5, x : x + 5] = 255
        return {"image": image}, label

    assert _learns(ConvNet(classes=4, widths=[4, 8], hidden=16), data) > 0.95


def test_the_tabular_net_learns_from_numbers_and_categories_together() -> None:
    torch.manual_seed(0)
    odd = torch.tensor([0, 1, 0, 1, 1, 0])

    def data() -> tuple[dict[str, Any], Tensor]:
        numbers, categories = torch.randn(128, 2), torch.randint(1, 6, (128, 1))
        label = (numbers[:, 0] > 0).long() ^ odd[categories[:, 0]]
        return {"numerical": numbers, "categorical": categories}, label

    assert _learns(Tabular(numerical=2, cardinalities=[6], hidden=[32]), data) > 0.9


def test_the_tabular_net_takes_the_columns_it_was_built_for_alone() -> None:
    numbers, categories = torch.randn(3, 2), torch.zeros(3, 2, dtype=torch.int32)
    assert Tabular(numerical=2, cardinalities=[])(numerical=numbers).shape == (3, 2)
    both = Tabular(numerical=2, cardinalities=[3, 1], classes=5)
    assert both(numerical=numbers, categorical=categories).shape == (3, 5)
    assert Tabular(numerical=0, cardinalities=[3, 1])(categorical=categories).shape == (3, 2)
    for inputs in (
        {"numerical": numbers},
        {"numerical": numbers[:, :1], "categorical": categories},
    ):
        with pytest.raises(ConfigError, match="2 numerical and 2 categorical"):
            both(**inputs)
    for arguments in (
        {"numerical": 0, "cardinalities": []},
        {"numerical": 1, "cardinalities": [0]},
        {"numerical": -1, "cardinalities": [3]},
    ):
        with pytest.raises(ConfigError):
            Tabular(**arguments)


def _recommender(**changed: Any) -> Sequential:
    torch.manual_seed(0)
    settings = {"items": 9, "length": 6, "width": 16, "layers": 1, "dropout": 0.0, **changed}
    return Sequential(**settings)


def test_the_recommender_learns_what_follows_the_last_but_one() -> None:
    def data() -> tuple[dict[str, Any], Tensor]:
        items = torch.randint(1, 9, (64, 6))
        return {"items": items}, items[:, -2] % 8 + 1

    assert _learns(_recommender(), data) > 0.95


def test_padding_on_either_side_and_older_items_change_nothing() -> None:
    model = _recommender().eval()
    items = torch.tensor([[3, 5, 2]])
    scores = model(items)
    assert scores.shape == (1, 9)
    for padded in ([[0, 0, 3, 5, 2]], [[3, 5, 2, 0, 0]]):
        torch.testing.assert_close(model(torch.tensor(padded)), scores)
    long = torch.tensor([[7, 1, 4, 4, 8, 3, 5, 2]])
    assert torch.equal(model(long), model(long[:, 2:]))
    assert not torch.allclose(model(long), scores)
    assert torch.isfinite(model(torch.zeros(2, 4, dtype=torch.int64))).all()


def test_no_position_of_the_recommender_sees_what_comes_later() -> None:
    block = _recommender(layers=1).blocks[0]
    hidden = torch.randn(1, 5, 16)
    real = torch.ones(1, 5, dtype=torch.bool)
    changed = hidden.clone()
    changed[:, 3:] += 1
    torch.testing.assert_close(block(hidden, real)[:, :3], block(changed, real)[:, :3])


def test_the_recommenders_output_is_its_items_own_embeddings() -> None:
    model = _recommender()
    assert [name for name in model.state_dict() if name.startswith("items")] == ["items.weight"]
    wanted = model.encode(torch.tensor([[1, 2]]))
    nn.init.normal_(model.bias)
    expected = wanted @ model.items.weight.t() + model.bias
    torch.testing.assert_close(model(torch.tensor([[1, 2]])), expected)
    for wrong in ({"items": 1}, {"heads": 3}, {"length": 0}):
        with pytest.raises(ConfigError):
            _recommender(**wrong)


def test_an_item_beyond_those_it_has_is_as_if_it_had_not_been_met() -> None:
    model = _recommender().eval()
    torch.testing.assert_close(model(torch.tensor([[3, 99, 5]])), model(torch.tensor([[0, 3, 5]])))


def test_without_repeats_an_item_that_was_met_comes_last() -> None:
    again, never = _recommender().eval(), _recommender(repeats=False).eval()
    never.load_state_dict(again.state_dict())
    met = torch.tensor([[3, 5, 2], [0, 0, 7]])
    free, bound = again(met), never(met)
    for row, items in enumerate(([0, 2, 3, 5], [0, 7])):
        others = [item for item in range(9) if item not in items]
        kept = [item for item in items if item]
        assert torch.equal(bound[row, others], free[row, others])
        assert bound[row, kept].max() < bound[row, others].min() - 10
    assert torch.isfinite(bound).all()
    bound.logsumexp(dim=1).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in never.parameters() if p.grad is not None)


def test_the_perceptron_is_where_versions_name_it() -> None:
    assert MLP(inputs=4, classes=2)(torch.zeros(3, 2, 2)).shape == (3, 2)
    assert MLP.__module__.startswith("perennial.models.reference")


def test_the_fisher_of_each_is_that_of_a_loop_over_rows() -> None:
    from perennial.methods.fisher import diagonal_fisher

    torch.manual_seed(0)
    items = torch.tensor([[0, 1, 2, 3, 4, 3], [5, 6, 7, 8, 1, 1], [0, 0, 0, 0, 2, 2]])
    cases: list[tuple[nn.Module, dict[str, Tensor]]] = [
        (_recommender(), {"items": items}),
        (ConvNet(classes=3, widths=[2], hidden=4), {"image": torch.rand(3, 28, 28)}),
        (
            Tabular(numerical=2, cardinalities=[4, 3], hidden=[5]),
            {"numerical": torch.randn(3, 2), "categorical": torch.tensor([[1, 2], [1, 0], [3, 1]])},
        ),
    ]
    target = torch.tensor([1, 0, 2])
    for model, inputs in cases:
        model.eval()
        target = target % 2 if isinstance(model, Tabular) else target
        found, _ = diagonal_fisher(
            model,
            [(inputs, target)],
            logits=lambda data, model=model: model(**data[0]),  # type: ignore[misc]
            kind="empirical",
            targets=lambda data: data[1],
        )
        expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        for row in range(3):
            one = {name: value[row : row + 1] for name, value in inputs.items()}
            model.zero_grad()
            F.cross_entropy(model(**one), target[row : row + 1]).backward()
            for name, p in model.named_parameters():
                if p.grad is not None:
                    expected[name] += p.grad.square() / 3
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-8)
