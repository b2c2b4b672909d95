from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perennial.errors import MethodError
from perennial.methods import per_example as room
from perennial.methods.fisher import diagonal_fisher
from perennial.methods.per_example import PerExample
from perennial.types import Batch


class Scaled(nn.Module):
    """A parameter used outside of any layer, after an operation that a test chooses."""

    def __init__(self, operation: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(4) + 0.5)
        self.head = nn.Linear(4, 3)
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.operation(x * self.scale))


class Tied(nn.Module):
    """Token weights that a function uses too, and a grouped convolution by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.norm = nn.Embedding(7, 4), nn.LayerNorm(4)
        self.kernel = nn.Parameter(torch.randn(4, 2, 3))
        self.out = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        h = F.conv1d(self.tokens(x).transpose(1, 2), self.kernel, padding=1, groups=2)
        return F.linear(self.norm(h.transpose(1, 2)).mean(dim=1), self.out)


class Normed(nn.Module):
    """Running statistics under a norm's function, and what a forward saw last."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(4), nn.Linear(4, 3)
        self.norm.running_mean.normal_()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen / 2 + x.detach().mean()
        n = self.norm
        h = F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, self.training)
        return self.head(torch.tanh(h))


class Own(torch.autograd.Function):
    """Tanh by hand, in the form that no transformation can see through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * (1 - ctx.saved_tensors[0].square())


def branching(x: Tensor) -> Tensor:
    return torch.stack([torch.tanh(row) if row.sum() > 0 else torch.sin(row) for row in x])


def reading(x: Tensor) -> Tensor:
    return torch.stack([row * float(row.detach().mean()) for row in x])


def writing(x: Tensor) -> Tensor:
    place = torch.zeros(len(x), 4)
    place += x
    return torch.tanh(place)


def drawing(x: Tensor) -> Tensor:
    return torch.tanh(x) + 0 * torch.rand(4)


def branching_when_long(x: Tensor) -> Tensor:
    return torch.tanh(x) if x.shape[1] < 3 else branching(x)


def batched(x: Tensor, y: Tensor, size: int = 5) -> list[Batch]:
    return [
        Batch(
            data={"x": a, "name": "rows", "y": b},
            ids=np.arange(len(a)).astype(str),
            is_new=np.ones(len(a), dtype=bool),
        )
        for a, b in zip(x.split(size), y.split(size), strict=True)
    ]


def estimated(model: nn.Module, rows: list[Batch]) -> tuple[dict[str, Tensor], list[str]]:
    told: list[str] = []
    found, _ = diagonal_fisher(
        model,
        rows,
        logits=lambda data: model(data["x"]),
        kind="empirical",
        targets=lambda data: data["y"],
        warn=told.append,
    )
    return found, told


def by_loop(model: nn.Module, rows: list[Batch]) -> dict[str, Tensor]:
    model.eval()
    parameters = dict(model.named_parameters())
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    count = 0
    for batch in rows:
        for x, y in zip(batch.data["x"], batch.data["y"], strict=True):
            log_p = F.log_softmax(model(x[None]), dim=1)[0, y]
            for name, g in zip(
                parameters, torch.autograd.grad(log_p, list(parameters.values())), strict=True
            ):
                sums[name] += g.square()
            count += 1
    return {name: value / count for name, value in sums.items()}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-9)
        assert value.any()


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each chunk that was formed."""
    sizes: list[int] = []
    form = PerExample._chunk

    def noted(self: PerExample, data: Any, direction: Tensor) -> dict[str, Tensor]:
        found = form(self, data, direction)
        sizes.append(len(direction))
        return found

    monkeypatch.setattr(PerExample, "_chunk", noted)
    return sizes


@pytest.mark.parametrize("build", [Scaled, Tied, Normed])
def test_chunks_give_what_a_loop_over_rows_gives(
    build: Callable[[], nn.Module], chunks: list[int]
) -> None:
    torch.manual_seed(0)
    model, y = build(), torch.randint(0, 3, (16,))
    x = torch.randint(0, 7, (16, 6)) if build is Tied else torch.randn(16, 4)
    rows = batched(x, y)
    found, told = estimated(model, rows)
    assert chunks == [2, 5, 5, 5]  # the probe's first; a last row alone is no chunk
    assert len(told) == 1
    assert told[0].endswith("through the whole model, in chunks of rows")
    same(found, by_loop(model, rows))


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (branching, "control flow"),
        (reading, "item"),
        (Own.apply, "setup_context"),
        (writing, "doesn't match the broadcast shape"),
        (drawing, "random"),
    ],
)
def test_where_a_model_refuses_chunks_rows_go_one_by_one(
    operation: Callable[[Tensor], Tensor], reason: str, chunks: list[int]
) -> None:
    torch.manual_seed(0)
    model, rows = Scaled(operation), batched(torch.randn(12, 4), torch.randint(0, 3, (12,)))
    found, told = estimated(model, rows)
    assert not chunks
    assert len(told) == 1
    assert told[0].startswith("Fisher: scale goes row by row, which is slower: ")
    assert reason in told[0]
    same(found, by_loop(model, rows))


def test_a_refusal_in_a_later_batch_is_told_and_loses_no_row(chunks: list[int]) -> None:
    torch.manual_seed(0)
    model, y = Scaled(branching_when_long), torch.randint(0, 3, (4,))
    model.forward = lambda x: model.head(model.operation(x * model.scale).mean(dim=1))
    rows = [batched(torch.randn(4, length, 4), y)[0] for length in (2, 3, 2)]
    found, told = estimated(model, rows)
    assert chunks == [2, 4]
    assert [line.split("scale goes ")[1][:11] for line in told] == ["through the", "row by row,"]
    same(found, by_loop(model, rows))


def test_weights_out_of_reach_do_not_become_zeros(chunks: list[int]) -> None:
    class Hoarding(Scaled):
        def __init__(self) -> None:
            super().__init__()
            self.kept = [self.scale]

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(x * self.kept[0]))

    torch.manual_seed(0)
    model, rows = Hoarding(), batched(torch.randn(12, 4), torch.randint(0, 3, (12,)))
    found, told = estimated(model, rows)
    assert chunks == [2], told
    assert told[0].endswith("in chunks the model gives other gradients")
    same(found, by_loop(model, rows))


def test_the_outputs_may_be_the_model_itself(chunks: list[int]) -> None:
    torch.manual_seed(0)
    model, x, direction = Scaled(), torch.randn(9, 4), torch.randn(9, 3)
    scale = model.scale
    work = PerExample(model, model, {"scale": scale})
    for _ in range(2):
        work.probe(x[:2], direction[:2])
        ((_, found),) = work.squares(x, direction)
    assert chunks == [2, 9, 2, 9]
    assert model.scale is scale
    rows = [torch.autograd.grad(model(x)[i] @ direction[i], scale)[0] for i in range(9)]
    torch.testing.assert_close(found, torch.stack(rows).square().sum(dim=0))


class Recurrent(nn.Module):
    """Gates by name; some are refused, and some share the memory of their gradients."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.recurrent, self.head = kind(4, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0][:, -1])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers(kind: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    model = Recurrent(kind)
    rows = batched(torch.randn(12, 5, 4), torch.randint(0, 3, (12,)))
    found, _ = estimated(model, rows)
    same(found, by_loop(model, rows))


@pytest.mark.parametrize(("limit", "sizes"), [(16, [2, 4, 4, 4]), (8, [2, *[2] * 6]), (7, [])])
def test_a_chunk_holds_no_more_than_its_limit(
    limit: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch, chunks: list[int]
) -> None:
    monkeypatch.setattr(room, "CHUNK", {"other": limit})
    torch.manual_seed(0)
    model, rows = Scaled(), batched(torch.randn(12, 4), torch.randint(0, 3, (12,)), size=12)
    found, told = estimated(model, rows)
    assert chunks == sizes
    assert ("larger than a chunk" in told[0]) == (limit == 7)
    same(found, by_loop(model, rows))


def test_a_bfloat16_model_goes_in_chunks_too(chunks: list[int]) -> None:
    torch.manual_seed(0)
    model, x, y = Scaled(), torch.randn(64, 4), torch.randint(0, 3, (64,))
    reference = by_loop(model, batched(x, y, 16))
    found, _ = estimated(model.bfloat16(), batched(x.bfloat16(), y, 16))
    assert chunks == [2, 16, 16, 16, 16]
    for name, value in reference.items():
        assert found[name].dtype == torch.float32
        assert abs(float(found[name].sum() / value.sum()) - 1) < 0.05


@pytest.mark.parametrize("refuse", [False, True])
def test_a_forward_that_changes_its_input_finds_every_row_as_it_was(refuse: bool) -> None:
    def doubled(x: Tensor) -> Tensor:
        x.mul_(2.0)
        return torch.tanh(Own.apply(x) if refuse else x)

    torch.manual_seed(0)
    model, rows = Scaled(), batched(torch.randn(12, 4), torch.randint(0, 3, (12,)))
    expected = [batch.data["x"].clone() for batch in rows]
    model.forward = lambda x: model.head(doubled(x) * model.scale)
    found, told = estimated(model, rows)
    assert ("setup_context" in told[0]) == refuse
    assert all(torch.equal(b.data["x"], x) for b, x in zip(rows, expected, strict=True))
    model.forward = lambda x: model.head(doubled(x.clone()) * model.scale)
    same(found, by_loop(model, rows))


def test_a_parameter_whose_use_is_discarded_is_an_error() -> None:
    class Discarding(Scaled):
        def __init__(self) -> None:
            super().__init__()
            self.discarded = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            self.discarded(x.repeat(2, 1))
            return super().forward(x)

    with pytest.raises(MethodError, match=r"discarded\.bias"):
        estimated(Discarding(), batched(torch.randn(4, 4), torch.zeros(4, dtype=torch.long)))


def test_a_model_that_is_wrong_in_itself_says_so() -> None:
    def failing(x: Tensor) -> Tensor:
        if len(x) != 1:
            return torch.tanh(x)
        raise ValueError("one row is too few")

    model = Scaled(failing)
    with pytest.raises(ValueError, match="too few"):
        estimated(model, batched(torch.randn(4, 4), torch.zeros(4, dtype=torch.long)))
