"""What serving costs: counted exactly, timed in turns, and without a trace in the models."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from perennial.evaluation import serving as room
from perennial.evaluation.serving import ROUNDS, serving, summary
from perennial.models.undisturbed import same_draws
from perennial.types import Serving

CPU = torch.device("cpu")


class Odd(nn.Module):
    """Draws, counts its calls in a buffer, and has a frozen, a tied and a half-precision weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4, bias=False)
        self.b = nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight
        self.frozen = nn.Parameter(torch.ones(3, dtype=torch.float16), requires_grad=False)
        self.drop = nn.Dropout()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.calls += 1
        assert not torch.is_grad_enabled()
        assert not self.training
        noise = torch.rand(()) + random.random() + np.random.rand()
        return self.b(self.a(x)) + noise


def pair():
    models = {"champion": Odd(), "candidate": Odd()}
    models["candidate"].drop.eval()
    called = []

    def forward(name):
        called.append(name)
        return models[name](torch.ones(2, 4))

    return models, forward, called


def test_parameters_and_bytes_are_counted():
    models, forward, _ = pair()
    found = serving(models, forward, device=CPU, seed=0)
    assert list(found) == ["champion", "candidate"]
    for cost in found.values():
        assert cost.parameters == 16 + 3
        # a stored version keeps a tied weight under both names
        assert cost.bytes == 2 * 16 * 4 + 3 * 2 + 8
        assert len(cost.latency) == ROUNDS
        assert (cost.latency > 0).all()


def test_nothing_is_left_behind():
    models, forward, _ = pair()

    def state():
        return (
            torch.get_rng_state().tolist(),
            random.getstate(),
            np.random.get_state()[1].tolist(),
            [part.training for model in models.values() for part in model.modules()],
            [value.tolist() for model in models.values() for value in model.state_dict().values()],
        )

    before = state()
    serving(models, forward, device=CPU, seed=0)
    assert state() == before


def test_both_take_turns_in_an_order_drawn_anew():
    models, forward, called = pair()
    serving(models, forward, device=CPU, seed=3)
    rounds = np.array(called).reshape(-1, 2)
    assert all(set(one) == {"champion", "candidate"} for one in rounds.tolist())
    first = (rounds[-ROUNDS:, 0] == "champion").sum()
    assert ROUNDS // 4 < first < 3 * ROUNDS // 4
    again, forward, repeated = pair()
    serving(again, forward, device=CPU, seed=3)
    assert repeated[-2 * ROUNDS :] == called[-2 * ROUNDS :]


@pytest.mark.parametrize(("each", "rounds"), [(0.004, ROUNDS), (0.01, 29), (10.0, 5)])
def test_slow_models_get_fewer_rounds_within_the_time(each, rounds, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(room.time, "perf_counter", lambda: clock[0])
    models, _, _ = pair()

    def forward(name):
        clock[0] += each if name == "champion" else 2 * each

    found = serving(models, forward, device=CPU, seed=0)
    assert found["champion"].latency == pytest.approx(each)
    assert found["candidate"].latency == pytest.approx(2 * each)
    assert len(found["champion"].latency) == len(found["candidate"].latency)
    assert abs(len(found["champion"].latency) - rounds) <= 1
    assert clock[0] <= max(1.0 + 3 * each, 6 * 3 * each)


def test_the_random_state_comes_back_after_an_error():
    def trouble():
        with same_draws():
            torch.manual_seed(9)
            raise ValueError("trouble")

    before = torch.get_rng_state().tolist()
    with pytest.raises(ValueError, match="trouble"):
        trouble()
    assert torch.get_rng_state().tolist() == before


def test_the_summary_is_in_milliseconds():
    cost = Serving(parameters=3, bytes=12, latency=np.arange(101) / 1000)
    assert summary(cost) == {
        "parameters": 3,
        "bytes": 12,
        "latency_p50_ms": pytest.approx(50.0),
        "latency_p95_ms": pytest.approx(95.0),
    }
