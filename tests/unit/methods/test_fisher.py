from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perennial.errors import ConfigError, MethodError
from perennial.methods.fisher import diagonal_fisher
from perennial.tasks.likelihood import Categorical, Gaussian
from perennial.types import Batch, Likelihood


class Shared(nn.Module):
    """One layer used twice in a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inside(torch.tanh(self.inside(x)))))


class Sequence(nn.Module):
    """Layer norm and linear over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix, self.head = nn.LayerNorm(4), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(self.mix(self.norm(x))).mean(dim=1))


class Flattened(nn.Module):
    """Positions folded into rows."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows, positions, _ = x.shape
        h = torch.tanh(self.mix(x.reshape(rows * positions, -1)))
        return self.head(h.reshape(rows, positions, -1).mean(dim=1))


class Functional(nn.Module):
    """A weight that its layer uses, and a function too."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(F.linear(torch.tanh(self.mix(x)), self.mix.weight)))


class Positions(nn.Module):
    """Positions given to all rows: added, or, where that fits no repetition, counted on."""

    def __init__(self, *, counted: bool = False, ndim: int = 2) -> None:
        super().__init__()
        self.where, self.mix, self.head = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.counted, self.ndim = counted, ndim

    def forward(self, x: Tensor) -> Tensor:
        index = torch.arange(x.shape[1])
        where = self.where(index if self.ndim == 1 else index[None])
        if self.counted:
            where = where * where.shape[0] if self.ndim == 2 else where.t().t()
        return self.head(torch.tanh(self.mix(x) + where).mean(dim=1))


class Recurrent(nn.Module):
    """A layer that no rule covers."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.head = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0][:, -1])


class Transformer(nn.Module):
    """Tied embeddings, padding, learned positions of two kinds, attention, layer and RMS norm."""

    def __init__(self, *, batch_first: bool = True) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.tokens = nn.Embedding(3, 8, padding_idx=0)
        self.where = nn.Embedding(6, 8)
        self.start = nn.Parameter(torch.randn(8) / 4)
        layer = nn.TransformerEncoderLayer(
            8, 2, dim_feedforward=12, batch_first=batch_first, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.RMSNorm(8)
        self.head = nn.Linear(8, 3, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x) + self.where(torch.arange(x.shape[1])) + self.start
        padded = x == 0
        padded[:, 0] = False
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        h = h if self.batch_first else h.transpose(0, 1)
        h = self.encoder(
            h,
            mask=mask.bool() if x.shape[1] == 5 else mask,
            src_key_padding_mask=padded if x.shape[1] == 5 else padded.float(),
        )
        return self.head(self.norm(h if self.batch_first else h.transpose(0, 1)).mean(dim=1))


def rows_second() -> nn.Module:
    return Transformer(batch_first=False)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 3))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 2, dilation=2, bias=False),
        nn.GroupNorm(3, 6),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(3),
    )


def temporal() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 6, 3, padding="same"), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (6,)),
    "cnn": (cnn, (4, 9, 9)),
    "temporal": (temporal, (4, 7)),
    "shared": (Shared, (6,)),
    "sequence": (Sequence, (5, 4)),
    "flattened": (Flattened, (7, 4)),
    "functional": (Functional, (4,)),
    "recurrent": (Recurrent, (5, 4)),
    "transformer": (Transformer, (5,)),
    "rows second": (rows_second, (6,)),
}
TOKENS = ("transformer", "rows second")


def made(name: str, rows: int = 24) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    build, shape = MODELS[name]
    model, x = build(), torch.randn(rows, *shape)
    if name in TOKENS:
        x = torch.randint(0, 3, (rows, *shape))
    model(x)  # lazy layers, and running statistics other than 0 and 1
    return model, x, torch.randint(0, 3, (rows,))


def batches(x: Tensor, y: Tensor, size: int, order: list[int] | None = None) -> Iterator[Batch]:
    index = torch.tensor(order if order is not None else list(range(len(x))))
    for part in index.split(size):
        ids = np.array([f"row-{i}" for i in part.tolist()])
        yield Batch(data=(x[part], y[part]), ids=ids, is_new=np.ones(len(part), dtype=bool))


def estimate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    kind: str,
    size: int = 10,
    order: list[int] | None = None,
    likelihood: Likelihood | None = None,
) -> dict[str, Tensor]:
    values, count = diagonal_fisher(
        model,
        batches(x, y, size, order),
        logits=lambda data: model(data[0]),
        likelihood=likelihood,
        kind=kind,
        seed=5,
        targets=lambda data: data[1],
    )
    assert count == len(x if order is None else order)
    return values


def by_loop(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    kind: str = "empirical",
    variance: float | None = None,
) -> dict[str, Tensor]:
    """Per-example gradients one by one, of torch's own log densities."""
    model.eval()
    parameters = dict(model.named_parameters())
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for row in range(len(x)):
        for value in terms(model(x[row : row + 1])[0], y[row], f"row-{row}", kind, variance):
            gradients = torch.autograd.grad(value, list(parameters.values()), retain_graph=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                sums[name] += gradient.square()
    model.train()
    return {name: value / len(x) for name, value in sums.items()}


def terms(f: Tensor, y: Tensor, row: str, kind: str, variance: float | None) -> list[Tensor]:
    """What to differentiate, for outputs (K,) of one row."""
    fixed, ids = f.detach()[None], np.array([row])
    if variance is None:
        log_p = F.log_softmax(f, dim=0)
        if kind == "true":
            return [value * value.detach().exp().sqrt() for value in log_p]
        return [log_p[int(y if kind == "empirical" else Categorical().draw(fixed, ids, 5))]]
    if kind == "true":
        return [value / variance**0.5 for value in f]
    drawn = Gaussian(variance=variance).draw(fixed, ids, 5)[0].float()
    density = torch.distributions.Normal(f, variance**0.5)
    return [density.log_prob(y if kind == "empirical" else drawn).sum()]


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("kind", ["empirical", "true", "sampled"])
@pytest.mark.parametrize("variance", [None, 0.5])
def test_layer_wise_equals_a_loop_over_examples(
    name: str, kind: str, variance: float | None
) -> None:
    model, x, y = made(name)
    y = y if variance is None else torch.randn(len(x), 3)
    likelihood = None if variance is None else Gaussian(variance=variance)
    found = estimate(model, x, y, kind, likelihood=likelihood)
    expected = by_loop(model, x, y, kind, variance)
    assert set(found) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-8)
        assert value.sum() > 0


def test_softmax_regression_in_closed_form() -> None:
    torch.manual_seed(1)
    model, x, y = nn.Linear(4, 3), torch.randn(50, 4), torch.randint(0, 3, (50,))
    p = torch.softmax(model(x), dim=1).detach()
    squares = {"true": p * (1 - p), "empirical": (F.one_hot(y, 3) - p).square()}
    for kind, values in squares.items():
        found = estimate(model, x, y, kind)
        expected = values.T @ x.square() / 50
        torch.testing.assert_close(found["weight"], expected, rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(found["bias"], values.mean(dim=0), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("variance", [0.25, 3.0])
@pytest.mark.parametrize("flat", [False, True])
def test_linear_gaussian_in_closed_form(variance: float, flat: bool) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 1 if flat else 3), nn.Flatten(0) if flat else nn.Identity())
    x = torch.randn(2000, 4)
    f = model(x).detach()
    y = f + torch.randn_like(f)
    density = Gaussian(variance=variance)
    mean = (x.square().mean(dim=0) / variance).expand(1 if flat else 3, 4)
    found = estimate(model, x, y, "true", size=300, likelihood=density)
    torch.testing.assert_close(found["0.weight"], mean, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        found["0.bias"], torch.full_like(found["0.bias"], 1 / variance), rtol=1e-5, atol=0
    )
    # one draw's squared gradient is ε² x² / σ², of mean x² / σ² and variance 2 x⁴ / σ⁴
    found = estimate(model, x, y, "sampled", size=300, likelihood=density)
    error = (2 * x.pow(4).sum(dim=0)).sqrt() / variance / 2000
    assert ((found["0.weight"] - mean).abs() < 4 * error).all()
    assert not torch.equal(found["0.weight"], mean)
    found = estimate(model, x, y, "empirical", size=300, likelihood=density)
    residual = ((y - f) / variance).reshape(2000, -1)
    expected = residual.square().T @ x.square() / 2000
    torch.testing.assert_close(found["0.weight"], expected, rtol=1e-5, atol=0)


def test_sampled_lies_within_four_standard_errors_of_true() -> None:
    torch.manual_seed(2)
    model, x = nn.Linear(3, 3), torch.randn(1, 3).repeat(4000, 1)
    y = torch.zeros(4000, dtype=torch.long)
    p = torch.softmax(model(x[:1]), dim=1)[0].detach()
    found = estimate(model, x, y, "sampled", size=500)["bias"]
    # one draw's squared gradient for class k: (1[y = k] - p_k)²
    values = (torch.eye(3) - p).square()
    mean = p @ values
    error = ((p @ (values - mean).square()) / 4000).sqrt()
    assert ((found - mean).abs() < 4 * error).all()


@pytest.mark.parametrize("name", ["mlp", "transformer"])
@pytest.mark.parametrize("kind", ["sampled", "true", "empirical"])
@pytest.mark.parametrize("likelihood", [None, Gaussian(variance=2.0)])
def test_it_is_the_same_for_every_batch_size_order_and_partition(
    name: str, kind: str, likelihood: Likelihood | None
) -> None:
    model, x, y = made(name, rows=23)
    y = y if likelihood is None else torch.randn(23, 3)
    reference = estimate(model, x, y, kind, size=23, likelihood=likelihood)
    backward = list(reversed(range(23)))
    for size, order in ((1, None), (5, None), (5, backward), (22, backward)):
        found = estimate(model, x, y, kind, size, order, likelihood)
        for key, value in reference.items():
            torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-9)
    parts = [
        estimate(model, x, y, kind, 4, part, likelihood)
        for part in (list(range(9)), list(range(9, 23)))
    ]
    twice = estimate(model, x, y, kind, 7, [*range(23), *range(23)], likelihood)
    for key, value in reference.items():
        weighed = (9 * parts[0][key] + 14 * parts[1][key]) / 23
        torch.testing.assert_close(weighed, value, rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(twice[key], value, rtol=1e-5, atol=1e-9)


class Counting(nn.Module):
    """Writes into buffers in every forward, and changes its input."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("last", torch.zeros(1, 4))
        self.scale = nn.Parameter(torch.ones(4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x.mul_(2.0)
        self.last = x.detach()
        return self.head(torch.tanh(x * self.scale))


@pytest.mark.parametrize("name", ["cnn", "transformer", "functional", "recurrent", "counting"])
@pytest.mark.parametrize("kind", ["sampled", "true"])
def test_estimation_leaves_everything_as_it_was(name: str, kind: str) -> None:
    if name == "counting":
        model, x, y = Counting(), torch.randn(24, 4), torch.randint(0, 3, (24,))
    else:
        model, x, y = made(name)
    model.train()
    next(iter(model.children())).eval()
    list(model.parameters())[-1].requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    model(x.clone()).square().sum().backward()
    optimizer.step()

    def state() -> dict[str, Any]:
        parameters = dict(model.named_parameters())
        return {
            "weights and buffers": {n: v.clone() for n, v in model.state_dict().items()},
            "the very tensors": [id(t) for t in (*model.parameters(), *model.buffers())],
            "gradients": {n: p.grad.clone() for n, p in parameters.items() if p.grad is not None},
            "requirements": [p.requires_grad for p in parameters.values()],
            "modes": [module.training for module in model.modules()],
            "hooks": [len(module._forward_hooks) for module in model.modules()],
            "forwards": ["forward" in vars(module) for module in model.modules()],
            "generator": torch.get_rng_state(),
            "optimizer": copy.deepcopy(optimizer.state_dict()),
            "rows": (x.clone(), y.clone()),
        }

    before = state()
    estimate(model, x, y, kind)
    torch.testing.assert_close(state(), before, rtol=0, atol=0)


def test_frozen_parameters_have_none_and_unused_ones_are_an_error() -> None:
    model, x, y = made("mlp")
    model[0].weight.requires_grad_(False)
    assert "0.weight" not in estimate(model, x, y, "sampled")
    model.register_module("unused", nn.Linear(2, 2))
    with pytest.raises(MethodError, match=r"unused\.(bias|weight)"):
        diagonal_fisher(
            model, batches(x, y, 8), logits=lambda data: nn.Sequential(*model[:4])(data[0])
        )


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("mlp", None),
        ("cnn", None),
        ("shared", None),
        ("flattened", "mix.bias, mix.weight go through the whole model, in chunks of rows"),
        ("functional", "mix.weight goes through the whole model, in chunks of rows"),
        (
            "recurrent",
            "recurrent.bias_hh_l0, recurrent.bias_ih_l0, recurrent.weight_hh_l0 and 1 more go "
            "through the whole model, in chunks of rows",
        ),
        ("transformer", "start goes through the whole model, in chunks of rows"),
    ],
)
def test_only_what_no_rule_accounts_for_goes_through_the_model(name: str, line: str | None) -> None:
    model, x, y = made(name, rows=5)
    told: list[str] = []
    diagonal_fisher(model, batches(x, y, 5), logits=lambda data: model(data[0]), warn=told.append)
    assert told == ([] if line is None else [f"Fisher: {line}"])


def test_a_batch_as_large_as_a_sequence_is_long_is_no_trap() -> None:
    model, x, y = made("transformer", rows=5)
    found = estimate(model, x, y, "empirical", size=5)
    expected = by_loop(model, x, y)
    torch.testing.assert_close(
        found["where.weight"], expected["where.weight"], rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("ndim", [1, 2])
@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_positions_given_to_all_rows(ndim: int, counted: bool, length: int) -> None:
    torch.manual_seed(0)
    model = Positions(counted=counted, ndim=ndim)
    x, y = torch.randn(5, length, 4), torch.randint(0, 3, (5,))
    told: list[str] = []
    found, _ = diagonal_fisher(
        model,
        batches(x, y, 2),
        logits=lambda data: model(data[0]),
        kind="empirical",
        targets=lambda data: data[1],
        warn=told.append,
    )
    for key, value in by_loop(model, x, y).items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-8)
    layered = length > 1 and not counted
    assert not (layered and told), told


def test_attention_over_something_else_goes_row_by_row() -> None:
    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.itself = nn.MultiheadAttention(4, 2, batch_first=True)
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            h, weights = self.itself(x, x, x)
            assert weights is not None
            return self.head((self.attention(h, x, x)[0] * weights.mean()).mean(dim=1))

    torch.manual_seed(0)
    model, x, y = Crossed(), torch.randn(9, 5, 4), torch.randint(0, 3, (9,))
    found, expected = estimate(model, x, y, "empirical"), by_loop(model, x, y)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-8)
    assert "forward" not in vars(model.attention)


def test_a_model_in_bfloat16_is_estimated_in_float32() -> None:
    model, x, y = made("sequence")
    reference = estimate(model, x, y, "empirical")
    model.bfloat16()
    found = estimate(model, x.bfloat16(), y, "empirical")
    for key, value in reference.items():
        assert found[key].dtype == torch.float32
        assert abs(found[key].sum() / value.sum() - 1) < 0.1


def test_an_input_changed_in_place_is_noticed() -> None:
    class Careless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = x * 1.0
            out = self.a(h)
            with torch.no_grad():
                h.add_(1.0)
            return self.b(out)

    model, x = Careless(), torch.randn(4, 3)
    with pytest.raises(MethodError, match=r"(in place|inplace)"):
        estimate(model, x, torch.zeros(4, dtype=torch.long), "empirical")


def test_bad_settings_are_refused() -> None:
    model, x, y = made("mlp")
    with pytest.raises(ConfigError, match="no kind"):
        estimate(model, x, y, "squared")
    with pytest.raises(ConfigError, match="max_classes"):
        diagonal_fisher(
            model,
            batches(x, y, 8),
            logits=lambda data: model(data[0]),
            kind="true",
            max_classes=2,
        )


def test_plain_tensors_are_batches_too() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    x, y = torch.randn(10, 4), torch.randint(0, 3, (10,))
    named = Batch(data=(x, y), ids=np.arange(10).astype(str), is_new=np.ones(10, dtype=bool))
    found = []
    for batches in ([named], [(x, y)], [(x[:7], y[:7]), (x[7:], y[7:])]):
        values, count = diagonal_fisher(model, batches, logits=lambda data: model(data[0]))
        assert count == 10
        found.append(values["weight"])
    bare, _ = diagonal_fisher(model, [x], logits=model)
    for values in (*found[1:], bare["weight"]):
        torch.testing.assert_close(values, found[0])
