"""Which rows go through the model together, and what batch norms make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perennial.errors import ConfigError, MethodError
from perennial.methods.base import Method, arrange
from perennial.methods.batch_norm import batch_norms, statistics
from perennial.methods.division import divided
from perennial.methods.replay import Replay
from perennial.training.parts import over_parts
from perennial.types import Batch, Part, StepContext

ORIGIN = np.array([True, True, False, False, False, False])


def step(model: nn.Module, is_new: Any = ORIGIN) -> StepContext:
    ids = np.array([str(i) for i in range(len(is_new))])
    return StepContext(
        batch=Batch(data=None, ids=ids, is_new=np.asarray(is_new)), model=model, parameters={}
    )


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def summary(parts: tuple[Part, ...]) -> list[tuple[list[int], float, str]]:
    return [(np.flatnonzero(p.rows).tolist(), round(p.weight, 9), p.statistics) for p in parts]


NEW, OLD, ALL = [0, 1], [2, 3, 4, 5], [0, 1, 2, 3, 4, 5]
THIRD = round(1 / 3, 9)


def two(weight: float, new: str, replayed: str) -> Any:
    return [(NEW, weight, new), (OLD, round(1 - weight, 9), replayed)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"forward": "joint"}, []),
        ({"running_statistics": "mixed"}, []),
        ({"new_weight": 1 / 3}, []),
        ({"new_weight": 0.25}, two(0.25, "running", "running")),
        ({"forward": "separate"}, two(THIRD, "running", "running")),
        ({"forward": "separate", "running_statistics": "mixed"}, two(THIRD, "update", "update")),
        ({"running_statistics": "mixed", "new_weight": 0.5}, two(0.5, "update", "update")),
        ({"running_statistics": "new"}, two(THIRD, "update", "batch")),
        ({"running_statistics": "frozen"}, [(ALL, 1.0, "running")]),
        ({"running_statistics": "frozen", "forward": "joint"}, [(ALL, 1.0, "running")]),
        ({"running_statistics": "frozen", "new_weight": 0.5}, two(0.5, "running", "running")),
    ],
)
def test_what_goes_together(settings: dict[str, Any], expected: Any) -> None:
    assert summary(Replay(**settings).divide(step(normed()))) == expected


def test_a_single_row_is_normalised_by_running_statistics() -> None:
    parts = divided(np.array([True, False, False]), None, "mixed")
    assert summary(parts) == [([0], THIRD, "running"), ([1, 2], 1 - THIRD, "update")]


def test_one_kind_of_rows_has_all_the_weight() -> None:
    parts = divided(np.array([False, False]), 0.3, "mixed")
    assert summary(parts) == [([0, 1], 1.0, "update")]


def test_norms_in_evaluation_mode_are_the_models_own_business() -> None:
    model = normed()
    model[1].eval()
    assert batch_norms(model) == []


@pytest.mark.parametrize("manner", ["mixed", "new", "frozen"])
def test_running_statistics_by_hand(manner: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=0.3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    norm = model[0]
    norm.running_mean.fill_(0.5)
    norm.running_var.fill_(2.0)
    x = torch.randn(6, 3) * 3 + torch.tensor(ORIGIN)[:, None] * 5
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    seen: list[Tensor] = []
    norm.register_forward_hook(lambda m, i, o: seen.append(o.detach()))
    over_parts(model, x, model, divided(ORIGIN, None, manner))
    for rows, got in zip((x[:2], x[2:]), seen, strict=True):
        by_rows = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + norm.eps).sqrt()
        by_running = (rows - mean) / (var + norm.eps).sqrt()
        torch.testing.assert_close(got, by_running if manner == "frozen" else by_rows)
    for rows in {"mixed": (x[:2], x[2:]), "new": (x[:2],), "frozen": ()}[manner]:
        mean = 0.7 * mean + 0.3 * rows.mean(0)
        var = 0.7 * var + 0.3 * rows.var(0)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var)
    assert int(norm.num_batches_tracked) == {"mixed": 2, "new": 1, "frozen": 0}[manner]
    assert all(m.training and getattr(m, "track_running_stats", True) for m in model.modules())


def test_flags_come_back_after_an_error() -> None:
    norm = nn.BatchNorm1d(3)
    for manner in ("batch", "running"):
        with pytest.raises(RuntimeError), statistics([norm], manner):
            raise RuntimeError
        assert norm.training
        assert norm.track_running_stats


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"new_weight": 0.0}, "method.replay.new_weight"),
        ({"new_weight": 1}, "method.replay.new_weight"),
        ({"new_weight": float("nan")}, "method.replay.new_weight"),
        ({"new_weight": True}, "method.replay.new_weight"),
        ({"new_weight": "half"}, "method.replay.new_weight"),
        ({"forward": "both"}, "method.replay.forward"),
        ({"running_statistics": "old"}, "method.replay.running_statistics"),
        (
            {"forward": "joint", "new_weight": 0.5},
            "method.replay.forward, method.replay.new_weight",
        ),
        (
            {"forward": "joint", "running_statistics": "new"},
            "method.replay.forward, method.replay.running_statistics",
        ),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Replay(**settings)
    assert caught.value.where == where


class Context:
    def __init__(self, norm: nn.Module) -> None:
        self.model = nn.Sequential(nn.Linear(3, 3), norm)
        self.told: list[str] = []
        self.warn = self.told.append


@pytest.mark.parametrize(
    ("norm", "manner", "words"),
    [
        (nn.Identity(), "new", "no batch norm"),
        (nn.Identity(), "mixed", "no batch norm"),
        (nn.LayerNorm(3), "frozen", "no batch norm"),
        (nn.BatchNorm1d(3, track_running_stats=False), "frozen", "without running statistics"),
        (nn.BatchNorm1d(3, track_running_stats=False), "new", "without running statistics"),
    ],
)
def test_a_setting_that_the_model_would_ignore_is_refused(
    norm: nn.Module, manner: str, words: str
) -> None:
    with pytest.raises(MethodError, match=words):
        Replay(running_statistics=manner).prepare(Context(norm))  # type: ignore[arg-type]
    quiet = Context(norm)
    Replay(new_weight=0.5).prepare(quiet)  # type: ignore[arg-type]
    assert quiet.told == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, None),
        ({"running_statistics": "frozen", "new_weight": 0.5}, None),
        ({"running_statistics": "mixed"}, None),
        ({"new_weight": 0.5}, "keep the champion's statistics"),
        ({"forward": "separate"}, "keep the champion's statistics"),
        ({"running_statistics": "new"}, "not when the model serves"),
        ({"running_statistics": "mixed", "new_weight": 0.5}, "not when the model serves"),
    ],
)
def test_what_follows_for_batch_norms_is_said(settings: dict[str, Any], words: str | None) -> None:
    context = Context(nn.BatchNorm1d(3))
    Replay(**settings).prepare(context)  # type: ignore[arg-type]
    assert len(context.told) == (words is not None)
    assert words is None or words in context.told[0]


def test_two_methods_that_divide_are_refused() -> None:
    class Dividing(Method):
        name = "dividing"

        def divide(self, step: StepContext) -> tuple[Part, ...]:
            return ()

    with pytest.raises(MethodError, match="dividing and replay both divide a batch"):
        arrange([Replay(), Dividing()])
