"""Layers that a user changed, or that not every row goes through, against a loop over rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perennial.methods.fisher import diagonal_fisher

Change = Callable[[Any], Any]


def by_loop(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    model.eval()
    sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for row in range(len(x)):
        loss = F.cross_entropy(model(x[row : row + 1]), y[row : row + 1])
        parameters = list(model.parameters())
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        for name, gradient in zip(sums, found, strict=True):
            if gradient is not None:
                sums[name] += gradient.square()
    return {name: value / len(x) for name, value in sums.items()}


def compare(
    model: nn.Module, x: Tensor, y: Tensor, size: int, order: Tensor | None = None
) -> list[str]:
    told: list[str] = []
    order = torch.arange(len(x)) if order is None else order
    found, count = diagonal_fisher(
        model,
        [(x[part], y[part]) for part in order.split(size)],
        logits=lambda data: model(data[0]),
        kind="empirical",
        targets=lambda data: data[1],
        warn=told.append,
    )
    assert count == len(x)
    for key, value in by_loop(model, x, y).items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-8)
        assert value.sum() > 0
    return told


def patched(layer: nn.Linear) -> None:
    layer.forward = lambda x: F.linear(2 * x, layer.weight, layer.bias)  # type: ignore[method-assign]


def doubled(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (args[0] * 2,)


def doubled_in_place(_: nn.Module, args: tuple[Tensor, ...]) -> None:
    args[0].mul_(2)


CHANGES: dict[str, Change] = {
    "hook": lambda m: m[1].register_forward_hook(lambda layer, i, o: o * 4),
    "hook in place": lambda m: m[1].register_forward_hook(lambda layer, i, o: o.mul_(3)),
    "hook with the weight": lambda m: m[1].register_forward_hook(
        lambda layer, i, o: o + i[0] @ layer.weight.T
    ),
    "pre-hook": lambda m: m[1].register_forward_pre_hook(doubled),
    "pre-hook in place": lambda m: m[1].register_forward_pre_hook(doubled_in_place),
    "weight norm": lambda m: nn.utils.parametrizations.weight_norm(m[1]),
    "patched": lambda m: patched(m[1]),
}


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_layers_with_hooks_and_forwards_of_their_own(change: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    x, y = torch.randn(11, 4), torch.randint(0, 3, (11,))
    CHANGES[change](model)
    told = compare(model, x, y, size=4)
    whole = change in ("patched", "weight norm", "hook with the weight")
    assert bool(told) == whole, told


def test_hooks_on_all_modules() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    handle = nn.modules.module.register_module_forward_hook(
        lambda layer, i, o: o * 4 if isinstance(layer, nn.Linear) else None
    )
    try:
        compare(model, torch.randn(9, 4), torch.randint(0, 3, (9,)), size=4)
    finally:
        handle.remove()


def test_attention_with_a_forward_of_its_own_keeps_it() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = (
                nn.MultiheadAttention(4, 2, batch_first=True),
                nn.Linear(4, 3),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.attention(x, x, x)[0].mean(dim=1))

    torch.manual_seed(0)
    model, x, y = Attending(), torch.randn(9, 5, 4), torch.randint(0, 3, (9,))
    own = model.attention

    def forward(*args: Tensor, **kwargs: Any) -> Any:
        mixed, weights = nn.MultiheadAttention.forward(own, *args, **kwargs)
        return mixed * 3, weights

    own.forward = forward  # type: ignore[method-assign,assignment]
    compare(model, x, y, size=4)
    assert own.forward is forward


class Experts(nn.Module):
    """Sends each row, or each of its tokens, to one of two layers by its first feature."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, 4)
        chosen = tokens[:, 0] > 0
        h = torch.zeros_like(tokens)
        for mask, expert in ((~chosen, self.a), (chosen, self.b)):
            if mask.any():
                h = h.index_put((mask,), expert(tokens[mask]))
        return self.head(torch.tanh(h).reshape(len(x), -1, 4).mean(dim=1))


def routed(length: int, seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    x = torch.randn(26, length, 4)
    x[:2, :, 0] = -1
    x[4:8, :, 0] = 1  # a batch that goes to b alone
    return x, torch.randint(0, 3, (26,))


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("size", [1, 4, 7, 13, 26])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_experts_that_the_first_rows_do_not_use(length: int, size: int, seed: int) -> None:
    x, y = routed(length, seed)
    for order in (None, torch.randperm(26)):
        compare(Experts(), x, y, size, order)


def test_as_many_tokens_as_rows_are_not_taken_for_rows() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(12, 3, 4), torch.randint(0, 3, (12,))
    x[:, :, 0] = -1
    x[:, 0, 0] = 1
    # b gets one token of each row, but in the last four rows two of one and none of another
    x[8, 1, 0], x[9, 0, 0] = 1, -1
    told = compare(Experts(), x, y, size=4)
    assert "a.bias, a.weight go" in told[0]
    assert any("b.bias" in line for line in told[1:])
    x[8, 1, 0], x[9, 0, 0] = -1, 1
    assert all("b.bias" not in line for line in compare(Experts(), x, y, size=4))


@pytest.mark.parametrize("size", [4, 7, 13])
def test_a_branch_that_only_some_batches_take(size: int) -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rare, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            chosen = x[:, 0] > 1
            if chosen.any():
                x = torch.where(chosen[:, None], torch.tanh(F.linear(x, self.rare.weight)), x)
                x = x + chosen[:, None] * self.rare.bias
            return self.head(x)

    torch.manual_seed(0)
    x = torch.randn(26, 4)
    x[:2, 0], x[-1, 0] = -1, 2
    compare(Branching(), x, torch.randint(0, 3, (26,)), size)


@pytest.mark.parametrize("tied", [False, True])
def test_padding_tokens_have_no_gradient(tied: bool) -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.head = nn.Embedding(5, 4, padding_idx=0), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.tokens(x)
            return self.head(torch.tanh((h + self.tokens(x.flip(1)) if tied else h).mean(dim=1)))

    torch.manual_seed(0)
    model, x = Padded(), torch.randint(0, 5, (11, 6))
    nn.init.normal_(model.tokens.weight)
    assert (x == 0).any()
    assert compare(model, x, torch.randint(0, 3, (11,)), size=4) == []
