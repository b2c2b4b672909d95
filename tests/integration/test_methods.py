"""Every method through a real fit: alive, resumed bit for bit, and in any order the same."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perennial.data.rows import Rows
from perennial.errors import MethodError
from perennial.methods.agem import AGEM
from perennial.methods.base import Method
from perennial.methods.baselines import Joint, Scratch
from perennial.methods.der import DER
from perennial.methods.ewc import EWC
from perennial.methods.fisher import diagonal_fisher
from perennial.methods.interpolation import Interpolation
from perennial.methods.l2sp import L2SP
from perennial.methods.lwf import LwF
from perennial.methods.replay import Replay
from perennial.methods.si import SI
from perennial.steps.candidate import Trained, train
from perennial.steps.learner import Constructor, Learner, build_learner, memory_gradients
from perennial.tasks.classification import Classification
from perennial.training.settings import Training
from perennial.types import VersionView

METHODS: dict[str, Callable[[], Method]] = {
    "agem": lambda: AGEM(rows=16),
    "ewc": lambda: EWC(strength=20.0),
    "ewc proximal": lambda: EWC(strength=20.0, step="proximal"),
    "joint": Joint,
    "l2sp": lambda: L2SP(strength=0.5),
    "lwf": LwF,
    "der": lambda: DER(alpha=0.5),
    "replay": Replay,
    "replay separate": lambda: Replay(new_weight=0.5, forward="separate"),
    "scratch": Scratch,
    "si": lambda: SI(strength=5.0),
}


def listed(name: str) -> list[Method]:
    """The method, and the one without which it cannot work."""
    method = METHODS[name]()
    return [Replay(), method] if method.needs_replay else [method]


STEPS: dict[str, Any] = {"max_steps": 20, "validate_every": 7}


class Stopped(Exception):  # noqa: N818
    """The process was killed here."""


def rows(count: int, seed: int, *, new: bool) -> Rows:
    """Two clouds; in the new rows the informative feature is another one, reversed."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(count, 6)).astype(np.float32)
    label = (values[:, 1] < 0 if new else values[:, 0] > 0).astype(np.int64)
    names = np.array([f"{new}-{seed}-{i}" for i in range(count)])
    return Rows(features={"x": values}, label=label, id=names, content=names, cluster=names)


def made(kind: str = "mlp") -> Learner:
    def build() -> nn.Module:
        torch.manual_seed(0)
        between = nn.BatchNorm1d(16) if kind == "batch norm" else nn.Dropout(0.3)
        return nn.Sequential(nn.Linear(6, 16), between, nn.ReLU(), nn.Linear(16, 2))

    return build_learner(
        model=Constructor(target="x", arguments={}, build=build),
        task=Classification(),
        optimizer=functools.partial(torch.optim.SGD, lr=0.1),
        device=torch.device("cpu"),
        form="tuple",
        label="label",
    )


def retrain(
    folder: Path,
    methods: Sequence[Method],
    *,
    champion: VersionView | None = None,
    kind: str = "mlp",
    stop_at: int | None = None,
    **training: Any,
) -> tuple[Trained, dict[str, Tensor], list[str]]:
    learner = made(kind)
    torch.manual_seed(1)
    told: list[str] = []

    def show(step: int, steps: int, scores: str, *, stopped: bool = False) -> None:
        if stop_at is not None and step >= stop_at:
            raise Stopped

    first = champion is None
    trained = train(
        learner,
        champion=champion or VersionView(id="", weights=learner.model.state_dict()),
        methods=methods,
        new=rows(300, 1, new=not first),
        history=None if first else rows(200, 2, new=False),
        new_validation=rows(100, 3, new=not first),
        history_validation=None if first else rows(100, 4, new=False),
        training=Training(
            **{
                "max_steps": 60,
                "validate_every": 60,
                "batch_size": 20,
                "accelerator": "cpu",
                "resume_seconds": 0.0,
                **training,
            }
        ),
        seed=0,
        folder=folder,
        logger=None,
        show=show,
        warn=told.append,
    )
    return trained, {n: v.clone() for n, v in learner.model.state_dict().items()}, told


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> VersionView:
    return served(tmp_path_factory.mktemp("champion"), "mlp")


def served(folder: Path, kind: str) -> VersionView:
    trained, weights, _ = retrain(folder, [SI()], kind=kind)
    return VersionView(id="m@1", weights=weights, methods=trained.methods)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_gradients_on_memory_leave_batch_norm_as_it_is() -> None:
    learner = made("batch norm")
    learner.model.train()
    memory = rows(40, 2, new=False)
    before = {n: v.clone() for n, v in learner.model.state_dict().items()}
    found = memory_gradients(learner, memory, seed=0)(3, 40)
    assert same(before, learner.model.state_dict())
    assert all(layer.training for layer in learner.model.modules())
    learner.model.eval()
    x, y = torch.from_numpy(memory.features["x"]), torch.from_numpy(memory.label)
    nn.functional.cross_entropy(learner.model(x), y).backward()
    for name, parameter in learner.model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_memory_smaller_than_what_is_asked_is_drawn_with_replacement(
    champion: VersionView, tmp_path: Path
) -> None:
    learner, seen = made(), []
    learner.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    gradients = memory_gradients(learner, rows(10, 2, new=False), seed=0)
    for count in (25, 25, 10):
        gradients(1, count)
    assert [len(x) for x in seen] == [25, 25, 10]
    assert torch.equal(seen[0], seen[1])
    assert len(seen[2].unique(dim=0)) == 10, "without replacement where there are enough"
    _, _, told = retrain(tmp_path, [AGEM(rows=201)], champion=champion, max_steps=1)
    assert [line for line in told if line.startswith("agem")] == [
        "agem: memory has 200 rows, fewer than the 201 of a step; they are drawn with replacement"
    ]


def test_distillation_on_replayed_rows_is_refused_without_replay(
    champion: VersionView, tmp_path: Path
) -> None:
    with pytest.raises(MethodError, match="replayed rows, and batches hold none"):
        retrain(tmp_path / "alone", [LwF(rows="replayed")], champion=champion, max_steps=1)
    methods = [Replay(), LwF(rows="replayed")]
    retrain(tmp_path / "replay", methods, champion=champion, max_steps=1)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_is_alive_after_three_steps(
    name: str, champion: VersionView, tmp_path: Path
) -> None:
    short = {"max_steps": 4, "validate_every": 4}
    _, plain, _ = retrain(tmp_path / "none", [], champion=champion, **short)
    _, found, _ = retrain(tmp_path / "method", listed(name), champion=champion, **short)
    assert max(float((plain[n] - found[n]).abs().max()) for n in plain) > 1e-5


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_resumes_bit_for_bit(name: str, champion: VersionView, tmp_path: Path) -> None:
    whole, expected, _ = retrain(tmp_path / "whole", listed(name), champion=champion, **STEPS)
    with pytest.raises(Stopped):
        retrain(tmp_path / "parts", listed(name), champion=champion, stop_at=11, **STEPS)
    assert (tmp_path / "parts" / "resume.json").exists()
    again, weights, _ = retrain(tmp_path / "parts", listed(name), champion=champion, **STEPS)
    assert again.fit.curve == whole.fit.curve
    assert same(expected, weights)
    for method, state in whole.methods.items():
        assert same(dict(state), dict(again.methods[method]))


@pytest.mark.parametrize("manner", ["mixed", "new", "frozen"])
def test_separate_forwards_of_batch_norm_resume_bit_for_bit(manner: str, tmp_path: Path) -> None:
    serving = served(tmp_path / "served", "batch norm")

    def methods() -> list[Method]:
        return [Replay(running_statistics=manner, forward="separate"), DER(alpha=0.5)]

    steps: dict[str, Any] = {"max_steps": 20, "validate_every": 7, "kind": "batch norm"}
    whole, expected, _ = retrain(tmp_path / "whole", methods(), champion=serving, **steps)
    with pytest.raises(Stopped):
        retrain(tmp_path / "parts", methods(), champion=serving, stop_at=11, **steps)
    again, weights, _ = retrain(tmp_path / "parts", methods(), champion=serving, **steps)
    assert again.fit.curve == whole.fit.curve
    assert same(expected, weights)
    learned = int(expected["1.num_batches_tracked"] - serving.weights["1.num_batches_tracked"])
    best = whole.fit.curve.index(max(whole.fit.curve[1:], key=lambda point: point["combined"]))
    steps_of_best = int(whole.fit.curve[best]["step"])
    assert learned == steps_of_best * {"mixed": 2, "new": 1, "frozen": 0}[manner]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_what_a_method_leaves_survives_a_kill_after_training(
    name: str, champion: VersionView, tmp_path: Path
) -> None:
    steps = {"max_steps": 6, "validate_every": 6}
    first, expected, _ = retrain(tmp_path, listed(name), champion=champion, **steps)
    assert (tmp_path / "fit.json").exists()
    again, weights, _ = retrain(tmp_path, listed(name), champion=champion, stop_at=0, **steps)
    assert same(expected, weights)
    assert first.methods.keys() == again.methods.keys()
    for method, state in first.methods.items():
        assert same(dict(state), dict(again.methods[method]))


IN_A_FRESH_PROCESS = """
import importlib.util, sys, torch
from pathlib import Path

spec = importlib.util.spec_from_file_location("methods", sys.argv[1])
sys.modules["methods"] = methods = importlib.util.module_from_spec(spec)
spec.loader.exec_module(methods)
folder = Path(sys.argv[2])
champion = methods.served(folder / "champion", "mlp")
for name in sorted(methods.METHODS):
    method = methods.listed(name)
    parts = folder / name / "parts"
    again, weights, _ = methods.retrain(parts, method, champion=champion, **methods.STEPS)
    torch.save({"curve": again.fit.curve, "weights": weights}, folder / name / "found.pt")
"""


@pytest.mark.slow
def test_every_method_goes_on_bit_for_bit_in_a_fresh_process(
    champion: VersionView, tmp_path: Path
) -> None:
    whole = {}
    for name in METHODS:
        folder = tmp_path / name

        whole[name] = retrain(folder / "whole", listed(name), champion=champion, **STEPS)
        with pytest.raises(Stopped):
            retrain(folder / "parts", listed(name), champion=champion, stop_at=11, **STEPS)
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, __file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name, (trained, weights, _) in whole.items():
        found = torch.load(tmp_path / name / "found.pt", weights_only=True)
        assert found["curve"] == trained.fit.curve, name
        assert same(weights, found["weights"]), name


def test_the_order_of_methods_is_no_setting(champion: VersionView, tmp_path: Path) -> None:
    names = ["agem", "der", "ewc", "l2sp", "lwf", "replay", "si"]
    results = []
    for i, order in enumerate((names, names[::-1], names[3:] + names[:3])):
        methods = [METHODS[name]() for name in order]
        _, weights, _ = retrain(tmp_path / str(i), methods, champion=champion, max_steps=12)
        results.append(weights)
    assert same(results[0], results[1])
    assert same(results[0], results[2])


def test_protection_retains_what_plain_fine_tuning_forgets(
    champion: VersionView, tmp_path: Path
) -> None:
    steps = {"max_steps": 150, "validate_every": 150}
    plain, _, _ = retrain(tmp_path / "none", [], champion=champion, **steps)
    start, end = (plain.fit.curve[i]["history"] for i in (0, -1))
    assert start > 0.85
    assert end < start - 0.2
    for name in ("der", "ewc", "ewc proximal", "joint", "l2sp", "lwf", "replay"):
        kept, _, _ = retrain(tmp_path / name, listed(name), champion=champion, **steps)
        assert kept.fit.curve[-1]["history"] > end + 0.02, name


@pytest.mark.parametrize("kind", ["mlp", "batch norm"])
def test_interpolation_keeps_its_budget_on_validation_rows(kind: str, tmp_path: Path) -> None:
    served_there = served(tmp_path / "served", kind)
    steps = {"max_steps": 150, "validate_every": 150}
    plain, end, _ = retrain(tmp_path / "none", [], champion=served_there, kind=kind, **steps)
    method = Interpolation(budget=0.05)
    trained, found, told = retrain(
        tmp_path / "method", [method], champion=served_there, kind=kind, **steps
    )
    assert trained.fit.curve == plain.fit.curve, "it costs nothing in training"
    assert method.alpha is not None
    assert 0 < method.alpha < 1
    assert any(f"{method.alpha:.0%} of the way" in line for line in told)
    for name, value in found.items():
        if value.is_floating_point() and "running" not in name:
            between = torch.lerp(served_there.weights[name], end[name], method.alpha)
            torch.testing.assert_close(value, between, rtol=0, atol=1e-6)
    learner = made(kind)
    learner.load(found)
    scores = learner.score({"history": rows(100, 4, new=False)})
    assert scores["history"] >= trained.fit.curve[0]["history"] - 0.05 - 1e-12


def test_what_methods_leave_is_of_the_interpolated_weights(tmp_path: Path) -> None:
    """EWC's precision is taken where the candidate ends; SI's importance is of its own path."""
    serving = served(tmp_path / "served", "mlp")
    steps = {"max_steps": 40, "validate_every": 40}

    def methods() -> list[Method]:
        return [EWC(strength=1.0, fisher="true"), Interpolation(budget=0.05), SI(strength=1.0)]

    trained, found, _ = retrain(tmp_path / "with", methods(), champion=serving, **steps)
    others = [method for method in methods() if method.name != "interpolation"]
    plain, end, _ = retrain(tmp_path / "without", others, champion=serving, **steps)
    assert float((found["0.weight"] - end["0.weight"]).abs().max()) > 1e-3
    for name, value in plain.methods["si"].items():
        torch.testing.assert_close(trained.methods["si"][name], value)

    def precision(weights: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
        learner = made()
        learner.load(weights)
        part = rows(300, 1, new=True) if kind == "new" else rows(200, 2, new=False)
        x = torch.from_numpy(part.features["x"])
        mean, count = diagonal_fisher(learner.model, [x], logits=learner.model, kind="true")
        return {name: count * value for name, value in mean.items()}

    old = precision(dict(serving.weights), "history")
    for name, value in precision(found, "new").items():
        torch.testing.assert_close(
            trained.methods["ewc"][name], old[name] + value, rtol=1e-4, atol=1e-5
        )


def of_method(told: list[str]) -> list[str]:
    """Lines besides the one that every fit ends with."""
    return [line for line in told if not line.startswith("Time of training steps")]


def test_importance_of_the_path_passes_from_cycle_to_cycle(
    champion: VersionView, tmp_path: Path
) -> None:
    first = champion.methods["si"]
    assert sum(float(value.sum()) for value in first.values()) > 0
    trained, _, told = retrain(tmp_path / "a", [SI()], champion=champion)
    assert all((trained.methods["si"][n] >= value - 1e-7).all() for n, value in first.items())
    assert not of_method(told)
    unknown = VersionView(id="m@1", weights=champion.weights)
    _, _, told = retrain(tmp_path / "b", [SI()], champion=unknown)
    assert len(of_method(told)) == 1
    assert of_method(told)[0].startswith(
        "si: m@1 left no path of its training, so nothing is protected"
    )


def test_scratch_starts_from_nothing(champion: VersionView, tmp_path: Path) -> None:
    trained, found, _ = retrain(
        tmp_path, [Scratch()], champion=champion, max_steps=1, validate_every=2
    )
    assert trained.fit.replayed_rows > 0
    assert float((found["0.weight"] - champion.weights["0.weight"]).abs().max()) > 0.1


def test_what_follows_the_training_says_that_other_weights_were_kept(
    champion: VersionView, tmp_path: Path
) -> None:
    # the score on history falls from the first validation on, so an early step is kept
    settings: dict[str, Any] = {"max_steps": 150, "validate_every": 10}
    _, _, told = retrain(tmp_path / "best", [SI()], champion=champion, **settings)
    kept = [line for line in told if "Kept the weights of step" in line]
    assert bool(kept) == any("si: what it learns" in line for line in told)
    assert kept
    _, _, told = retrain(tmp_path / "last", [SI()], champion=champion, keep="last", **settings)
    assert not of_method(told)
