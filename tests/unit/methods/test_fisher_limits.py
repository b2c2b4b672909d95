from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perennial.errors import MethodError
from perennial.methods import squares as room
from perennial.methods.fisher import diagonal_fisher
from perennial.types import Batch


def estimate(model: nn.Module, x: Tensor, **changes: object) -> dict[str, Tensor]:
    ids = np.array([str(i) for i in range(len(x))])
    batch = Batch(data=(x,), ids=ids, is_new=np.ones(len(x), dtype=bool))
    settings: dict[str, object] = {"logits": lambda data: model(data[0]), "kind": "sampled"}
    values, _ = diagonal_fisher(model, [batch], **(settings | changes))  # type: ignore[arg-type]
    return values


class Watched(nn.Module):
    """A call that has no part in the gradient, and one by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.head(x)
        return self.head(input=x)


@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_norm_that_mixes_rows_is_refused(affine: bool) -> None:
    norm = nn.BatchNorm1d(5, affine=affine, track_running_stats=False)
    with pytest.raises(MethodError, match="mixes rows"):
        estimate(nn.Sequential(nn.Linear(4, 5), norm, nn.Linear(5, 3)), torch.randn(6, 4))


class Centred(nn.Module):
    """Rows that see each other without any norm, or noise that looks as if they did."""

    def __init__(self, *, noise: bool) -> None:
        super().__init__()
        self.head, self.noise = nn.Linear(4, 3), noise

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + torch.randn_like(x) if self.noise else x - x.mean(dim=0))


def test_a_forward_that_mixes_rows_is_refused_and_one_that_draws_is_not() -> None:
    with pytest.raises(MethodError, match="rows beside it"):
        estimate(Centred(noise=False), torch.randn(6, 4))
    model, x = Centred(noise=True), torch.randn(6, 4)
    state = torch.get_rng_state()
    assert estimate(model, x)
    assert torch.equal(torch.get_rng_state(), state)


def test_calls_without_gradient_and_by_keyword() -> None:
    torch.manual_seed(0)
    model, x = Watched(), torch.randn(6, 4)
    found = estimate(model, x, kind="true")
    p = torch.softmax(model.head(x), dim=1).detach()
    torch.testing.assert_close(found["head.weight"], (p * (1 - p)).T @ x.square() / 6)


def test_what_is_not_a_number_or_has_no_rows_or_labels_is_an_error() -> None:
    model = nn.Linear(4, 3)
    with pytest.raises(MethodError, match="not finite"):
        estimate(model, torch.full((2, 4), float("nan")))
    with pytest.raises(MethodError, match="observed labels"):
        estimate(model, torch.randn(2, 4), kind="empirical")
    with pytest.raises(MethodError, match="there are none"):
        diagonal_fisher(model, [], logits=lambda data: model(data[0]))


def test_chunks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv3d(2, 4, 2, stride=(1, 2, 1), padding=1, dilation=(2, 1, 1), groups=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.LazyLinear(3),
    )
    x = torch.randn(7, 2, 4, 5, 3)
    model(x)
    whole = estimate(model, x, kind="true")
    monkeypatch.setattr(room, "CHUNK", {"other": 1})
    for name, value in estimate(model, x, kind="true").items():
        torch.testing.assert_close(value, whole[name], rtol=1e-5, atol=1e-9)
