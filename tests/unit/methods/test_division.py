"""Which rows go through the model together, and what batch norms make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perennial.errors import ConfigError, MethodError
from perennial.methods.base import arrange
from perennial.methods.baselines import Joint, Scratch
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


def plain() -> nn.Module:
    return nn.Linear(3, 2)


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def summary(parts: tuple[Part, ...]) -> list[tuple[list[int], float, str]]:
    return [(np.flatnonzero(p.rows).tolist(), round(p.weight, 9), p.statistics) for p in parts]


NEW, OLD, ALL = [0, 1], [2, 3, 4, 5], [0, 1, 2, 3, 4, 5]
THIRD = round(1 / 3, 9)


@pytest.mark.parametrize(
    ("settings", "build", "expected"),
    [
        ({}, plain, []),
        ({"forward": "joint"}, normed, []),
        ({"new_weight": 1 / 3}, plain, []),
        ({"new_weight": 0.25}, plain, [(NEW, 0.25, "update"), (OLD, 0.75, "update")]),
        ({"forward": "separate"}, plain, [(NEW, THIRD, "update"), (OLD, 1 - THIRD, "update")]),
        ({}, normed, [(NEW, THIRD, "update"), (OLD, 1 - THIRD, "update")]),
        (
            {"running_statistics": "new"},
            normed,
            [(NEW, THIRD, "update"), (OLD, 1 - THIRD, "batch")],
        ),
        ({"running_statistics": "frozen"}, normed, [(ALL, 1.0, "running")]),
        ({"running_statistics": "frozen", "forward": "joint"}, normed, [(ALL, 1.0, "running")]),
        (
            {"running_statistics": "frozen", "new_weight": 0.5},
            normed,
            [(NEW, 0.5, "running"), (OLD, 0.5, "running")],
        ),
    ],
)
def test_what_goes_together(settings: dict[str, Any], build: Any, expected: Any) -> None:
    model = build()
    assert summary(Replay(**settings).divide(step(model))) == expected
    if "new_weight" not in settings:
        for baseline in (Joint, Scratch):
            assert summary(baseline(**settings).divide(step(model))) == expected


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
    assert Replay().divide(step(model)) == ()


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


@pytest.mark.parametrize(
    ("norm", "manner", "words"),
    [
        (nn.Identity(), "new", "no batch norm"),
        (nn.LayerNorm(3), "frozen", "no batch norm"),
        (nn.BatchNorm1d(3, track_running_stats=False), "frozen", "without running statistics"),
        (nn.BatchNorm1d(3, track_running_stats=False), "new", "without running statistics"),
    ],
)
def test_a_setting_that_the_model_would_ignore_is_refused(
    norm: nn.Module, manner: str, words: str
) -> None:
    class Context:
        model = nn.Sequential(nn.Linear(3, 3), norm)

    for method in (Replay(running_statistics=manner), Joint(running_statistics=manner)):
        with pytest.raises(MethodError, match=words):
            method.prepare(Context())  # type: ignore[arg-type]
    Replay().prepare(Context())  # type: ignore[arg-type]


def test_two_methods_that_divide_are_refused() -> None:
    class Dividing(Joint):
        name = "dividing"
        new_share = Replay.__base__.new_share  # type: ignore[union-attr]

    with pytest.raises(MethodError, match="dividing and replay both divide a batch"):
        arrange([Replay(), Dividing()])
