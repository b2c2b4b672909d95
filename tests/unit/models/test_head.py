"""The output layer: which one it is in models of many kinds, and what growing leaves as it was."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from perennial.errors import ConfigError
from perennial.models.head import Head, find_head, fresh_rows, grow, grown, trains
from perennial.models.reference import MLP, Sequential


class Own(nn.Module):
    """A model made of layers and a forward."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **layers: Any) -> None:
        super().__init__()
        self.own = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.own(self, x)


class Branch(nn.Linear):
    """A subclass with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def logits_of(model: nn.Module, rows: int = 2) -> Callable[[], Tensor]:
    x = torch.randn(rows, 6, generator=torch.Generator().manual_seed(1))
    dtype = next(model.parameters()).dtype

    def logits() -> Tensor:
        with torch.no_grad():
            result = model.eval()(x.to(dtype))
        found: Tensor = getattr(result, "logits", result)
        return found

    return logits


def tied() -> nn.Module:
    model = Own(lambda m, x: m.out(x @ m.table.weight), table=nn.Embedding(6, 3), out=None)
    model.out = nn.Linear(3, 6, bias=False)
    model.out.weight = model.table.weight
    return model


FOUND: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "mlp": (lambda: MLP(inputs=6, classes=4, hidden=[8]), "layers.3"),
    "hidden layers as wide": (lambda: MLP(inputs=6, classes=4, hidden=[4, 4]), "layers.5"),
    "alone": (lambda: nn.Sequential(nn.Linear(6, 4)), "0"),
    "the model itself": (lambda: nn.Linear(6, 4), ""),
    "no bias": (lambda: nn.Sequential(nn.Linear(6, 4, bias=False)), "0"),
    "bfloat16": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).bfloat16(),
        "2",
    ),
    "declared first": (
        lambda: Own(lambda m, x: m.a(m.b(x)), a=nn.Linear(4, 4), b=nn.Linear(6, 4)),
        "a",
    ),
    "transformers' output": (
        lambda: Own(lambda m, x: SimpleNamespace(logits=m.score(x)), score=nn.Linear(6, 4)),
        "score",
    ),
    "one position of a sequence": (
        lambda: Own(
            lambda m, x: m.score(x[:, None].expand(-1, 5, -1))[:, 2], score=nn.Linear(6, 4)
        ),
        "score",
    ),
    "normalised, scaled and converted": (
        lambda: Own(
            lambda m, x: torch.log_softmax(3 * m.out(x), dim=1).double(), out=nn.Linear(6, 4)
        ),
        "out",
    ),
    "run twice": (
        lambda: Own(lambda m, x: m.out(x) + m.out(x.flip(1)), out=nn.Linear(6, 4)),
        "out",
    ),
    "a subclass": (lambda: nn.Sequential(nn.Linear(6, 4), Branch(4, 4)), "1"),
    "attention": (
        lambda: Own(
            lambda m, x: m.out(m.body(x[:, None].expand(-1, 3, -1)).mean(1)),
            body=nn.TransformerEncoderLayer(6, 2, dim_feedforward=6, batch_first=True),
            out=nn.Linear(6, 6),
        ),
        "out",
    ),
    "convolution below": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.Flatten(),
            nn.Linear(16, 4),
        ),
        "4",
    ),
}  # fmt: skip
REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a convolution gives the logits": (
        lambda: nn.Sequential(nn.Unflatten(1, (6, 1)), nn.Conv1d(6, 4, 1), nn.Flatten()),
        "it has none",
    ),
    "a sum of two layers": (
        lambda: Own(lambda m, x: m.a(x) + m.b(x), a=nn.Linear(6, 4), b=nn.Linear(6, 4)),
        "it has none",
    ),
    "a norm after it": (lambda: nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4)), "it has none"),
    "a weight computed from others": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 4))),
        "it has none",
    ),
    "in another order": (
        lambda: Own(lambda m, x: m.out(x).flip(1), out=nn.Linear(6, 4)),
        "it has none",
    ),
    "weights used bare": (
        lambda: Own(lambda m, x: F.linear(x, m.out.weight), out=nn.Linear(6, 4)),
        "it has none",
    ),
    "tied": (tied, "'out' shares its weights with 'table'"),
}


@pytest.mark.parametrize("kind", FOUND)
def test_the_head_is_found_by_what_it_does_and_grows(kind: str) -> None:
    build, name = FOUND[kind]
    torch.manual_seed(0)
    model = build()
    logits = logits_of(model)
    before, kept = logits(), dict(model.named_parameters())
    width = before.shape[1]
    assert find_head(model, logits) == Head(name=name, outputs=width)
    assert all(kept[n] is p for n, p in model.named_parameters()), "trying leaves the model alone"
    assert torch.equal(logits(), before)

    old = {n: p.detach().clone() for n, p in model.named_parameters()}
    layer = model.get_submodule(name)
    state = torch.get_rng_state()
    grow(model, Head(name=name, outputs=width + 3), seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.get_submodule(name) is layer
    assert layer.out_features == width + 3
    for n, parameter in model.named_parameters():
        rows = len(old[n])
        assert torch.equal(parameter[:rows], old[n]), n
        assert parameter.dtype == old[n].dtype
        own = any(parameter is one for one in (layer.weight, layer.bias))
        assert len(parameter) == rows + 3 * own
    after = logits()
    assert after.shape == (2, width + 3)
    odds = torch.log_softmax(after[:, :width].float(), dim=1)
    tolerance = 0.05 if kind == "bfloat16" else 1e-5
    torch.testing.assert_close(
        odds, torch.log_softmax(before.float(), dim=1), rtol=tolerance, atol=tolerance
    )
    assert find_head(model, logits).name == name, "and can be found again"


@pytest.mark.parametrize("kind", REFUSED)
def test_a_head_that_cannot_grow_is_refused(kind: str) -> None:
    build, words = REFUSED[kind]
    torch.manual_seed(0)
    model = build()
    kept = dict(model.named_parameters())
    with pytest.raises(ConfigError, match=words) as caught:
        find_head(model, logits_of(model))
    assert "torch.nn.Linear" in str(caught.value.mend)
    assert "data.new_classes" in str(caught.value.where)
    assert all(kept[n] is p for n, p in model.named_parameters())


def test_several_heads_are_refused() -> None:
    class Chosen(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:, : self.out_features]

    # whichever is the wider one gives the logits
    model = Own(
        lambda m, x: max((m.a(x), m.b(x)), key=lambda one: one.shape[1]),
        a=Chosen(6, 4, bias=False),
        b=Chosen(6, 4, bias=False),
    )
    model.b.weight = nn.Parameter(model.a.weight.detach().clone())
    with pytest.raises(ConfigError, match=r"several \(a, b\)"):
        find_head(model, logits_of(model))


@pytest.mark.parametrize("frozen", [True, False])
def test_requirement_of_gradients_is_kept(frozen: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 4))
    model[0].weight.requires_grad_(not frozen)
    grow(model, Head(name="0", outputs=5), seed=0)
    assert model[0].weight.requires_grad is not frozen
    assert model[0].bias.requires_grad
    assert isinstance(model[0].weight, nn.Parameter)
    assert model[0].weight.is_leaf


def test_new_rows_are_drawn_as_torch_draws_a_layer() -> None:
    torch.manual_seed(0)
    whole = nn.Linear(40, 2000)
    layer = nn.Linear(40, 3)
    rows = fresh_rows(layer, 2003, seed=5)
    for name in ("weight", "bias"):
        drawn, torchs = rows[name].flatten().numpy(), getattr(whole, name).detach().flatten()
        assert rows[name].shape == getattr(whole, name).shape
        assert stats.ks_2samp(drawn, torchs.numpy()).pvalue > 1e-3
        assert abs(drawn).max() <= 40**-0.5


def test_new_rows_depend_on_seed_and_old_width_alone() -> None:
    def rows(old: int, seed: int) -> Tensor:
        torch.manual_seed(torch.seed() % 1000)
        return fresh_rows(nn.Linear(6, old), old + 2, seed=seed)["weight"]

    assert torch.equal(rows(4, 0), rows(4, 0))
    assert not torch.equal(rows(4, 0), rows(4, 1))
    assert not torch.equal(rows(4, 0), rows(5, 0)), "classes of two cycles do not start alike"


def test_grown_adds_rows() -> None:
    old, rows = torch.randn(2, 3).bfloat16(), torch.randn(4, 3)
    both = grown(old, rows)
    assert torch.equal(both, torch.cat([old, rows.bfloat16()]))
    assert both.dtype == torch.bfloat16


def test_a_recorded_head_that_the_model_lacks_is_refused() -> None:
    model = MLP(inputs=6, classes=4, hidden=[8])
    grow(model, Head(name="layers.3", outputs=4), seed=0)
    assert model.layers[3].out_features == 4, "as wide already"
    for head, words in (
        (Head("fc", 5), "no such torch.nn.Linear"),
        (Head("layers.2", 5), "no such torch.nn.Linear"),
        (Head("layers.3", 3), "one of 4 outputs"),
    ):
        with pytest.raises(ConfigError, match=words):
            grow(model, head, seed=0)


def _recommender(items: int = 5) -> Sequential:
    torch.manual_seed(0)
    model = Sequential(items=items, width=8, layers=1)
    torch.nn.init.normal_(model.bias)
    return model.eval()


def test_a_model_that_shares_input_and_output_grows_both() -> None:
    model = _recommender()
    model.bias.requires_grad_(False)
    met = torch.tensor([[1, 2, 3], [0, 0, 4]])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scores = model(met)
    head = find_head(model, lambda: model(met))
    assert head == Head(name="", outputs=5)
    grow(model, Head(name="", outputs=8), seed=3)
    assert model.outputs == model.items.num_embeddings == 8
    assert torch.equal(model.items.weight[:5], before["items.weight"])
    assert torch.equal(model.bias[:5], before["bias"])
    assert not model.bias.requires_grad
    assert model.items.weight.requires_grad
    torch.testing.assert_close(model(met)[:, :5], scores)
    later = model(torch.tensor([[1, 2, 7]]))
    assert later.shape == (1, 8)
    assert not torch.equal(later, model(torch.tensor([[1, 2, 6]])))

    again = _recommender()
    torch.rand(1)  # no other generator decides
    grow(again, Head(name="", outputs=8), seed=3)
    assert torch.equal(again.items.weight, model.items.weight)
    grow(again, Head(name="", outputs=8), seed=4)
    assert torch.equal(again.items.weight, model.items.weight), "as wide already"
    with pytest.raises(ConfigError, match="8 outputs"):
        grow(again, Head(name="", outputs=6), seed=3)


def test_a_new_item_starts_near_the_mean_of_the_others() -> None:
    model = _recommender(items=400)
    mean = model.items.weight[1:].mean(dim=0)
    grow(model, Head(name="", outputs=500), seed=0)
    fresh = model.items.weight[400:]
    assert (fresh - mean).std() < 0.2 * model.items.weight[1:400].std()
    assert len(fresh.unique(dim=0)) == 100
    torch.testing.assert_close(model.bias[400:], model.bias[1:400].mean().expand(100))


def test_a_frozen_model_cannot_learn_what_grows() -> None:
    model = _recommender()
    assert trains(model, Head(name="", outputs=5))
    assert not trains(model.requires_grad_(False), Head(name="", outputs=5))
