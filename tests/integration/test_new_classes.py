"""Whole cycles in which new rows bring classes that the champion does not know.

The lineage is founded on the digits zero to seven; eight and nine come with the new rows.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

import perennial
from perennial.data.rows import Rows
from perennial.errors import ConfigError, RegistryError
from perennial.launch import evaluate_job
from perennial.methods.agem import AGEM
from perennial.methods.base import Method
from perennial.methods.baselines import Joint, Scratch
from perennial.methods.ewc import EWC
from perennial.methods.interpolation import Interpolation
from perennial.methods.l2sp import L2SP
from perennial.methods.lwf import LwF
from perennial.methods.replay import Replay
from perennial.methods.si import SI
from perennial.models.head import Head
from perennial.models.reference import MLP
from perennial.promotion.registry import Registry
from perennial.reporting.result import schema
from perennial.steps import candidate as candidate_room
from perennial.steps.candidate import Trained, train, view
from perennial.steps.learner import Constructor, Learner, build_learner
from perennial.tasks.classification import UNKNOWN, Classification
from perennial.training.settings import Training
from perennial.types import VersionView

Run = Callable[..., dict[str, Any]]
WORDS = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
FOUNDED = sorted(WORDS[:8].tolist())

NET = '''
"""A LightningModule whose output layer has a name of its own."""

import lightning.pytorch as pl
import torch
from torch import nn


class Net(pl.LightningModule):
    def __init__(self, classes=8):
        super().__init__()
        self.outputs = nn.Linear(32, classes, bias=False)
        self.body = nn.Sequential(nn.Linear(64, 32), nn.ReLU())

    def forward(self, pixels):
        return self.outputs(self.body(pixels))

    def training_step(self, batch, batch_idx):
        pixels, label = batch
        return nn.functional.cross_entropy(self(pixels), label)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=3e-3)
'''


def registry(home: Path) -> Registry:
    return Registry(url=f"sqlite:///{home / 'registry.db'}")


def write(path: Path, index: npt.NDArray[Any], *, text: bool) -> None:
    bundled = load_digits()
    pixels = (bundled.data[index] / 16).astype(np.float32)
    label = bundled.target[index]
    columns = {
        "pixels": pa.FixedSizeListArray.from_arrays(pa.array(pixels.reshape(-1)), 64),
        "label": WORDS[label].tolist() if text else label.tolist(),
    }
    pq.write_table(pa.table(columns), path)


@pytest.fixture(params=[True, False], ids=["text", "numbers"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, ...]:
    return written(tmp_path, text=request.param)


def written(folder: Path, *, text: bool) -> tuple[str, ...]:
    """History of eight classes; new and later rows of ten, the new ones beginning with a nine."""
    target = load_digits().target
    order = np.random.default_rng(0).permutation(len(target))
    history = order[target[order] < 8][:1000]
    rest = order[~np.isin(order, history)]
    nine = rest[target[rest] == 9][:1]
    rest = np.concatenate([nine, rest[rest != nine[0]]])
    for name, index in (("history", history), ("new", rest[:620]), ("later", rest[620:])):
        write(folder / f"{name}.parquet", index, text=text)
    return (
        "data=files",
        f"data.history={folder / 'history.parquet'}",
        f"data.new={folder / 'new.parquet'}",
        "model.classes=8",
        "trainer.max_steps=300",
        "trainer.validate_every=100",
    )


def test_a_lineage_learns_classes_that_it_did_not_know(
    run: Run, home: Path, files: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "zero" in pq.read_table(tmp_path / "history.parquet")["label"].to_pylist()
    old = FOUNDED if text else [str(digit) for digit in range(8)]
    added = ["eight", "nine"] if text else ["8", "9"]
    # other machines round otherwise, and this is no test of the gate
    files = (*files, "gate.retention.margin=0.05", "gate.retention.total=0.05")
    result = run(*files, "data.new_classes=grow")
    told = json.loads((Path(result["folder"]) / "result.json").read_text())
    jsonschema.validate(told, schema())
    assert result["status"] == "promoted"
    assert result["data"]["new"]["new_classes"] == added
    assert f"new: 2 new classes, matched by name: {added[0]} (" in capsys.readouterr().out
    first, second = (registry(home).version(f"digits@{number}") for number in (1, 2))
    assert list(first.manifest["label_names"]) == old
    assert list(second.manifest["label_names"]) == [*old, *added]
    assert "head" not in first.manifest["model"]
    assert second.manifest["model"]["arguments"]["classes"] == 8
    assert second.manifest["model"]["head"] == {"name": "layers.5", "outputs": 10}
    assert f"<dd>{', '.join(added)}</dd>" in second.open("report.html").read_text()

    rows = pq.read_table(second.open("predictions/holdouts.parquet")).to_pandas()
    p = np.stack(rows["champion_probabilities"])
    assert p.shape == np.stack(rows["candidate_probabilities"]).shape == (len(rows), 10)
    np.testing.assert_allclose(p[:, 8:], UNKNOWN, rtol=1e-3)
    unknown = rows["label"] >= 8
    assert unknown.sum() > 50
    assert not rows["champion_score"][unknown].any()
    np.testing.assert_allclose(rows["champion_loss"][unknown], -np.log(UNKNOWN), rtol=1e-3)
    assert rows["candidate_score"][unknown].mean() > 0.7
    history = rows[rows["holdout"] != "new"]
    assert history["champion_score"].mean() > 0.9
    assert history["candidate_score"].mean() > history["champion_score"].mean() - 0.04

    later = [name for name in files if not name.startswith("data.new=")]
    result = run(*later, f"data.new={tmp_path / 'later.parquet'}")
    assert result["candidate"] == {"id": "digits@3"}, result["error"]
    assert result["champion"] == {"id": "digits@2"}
    assert result["data"]["new"]["new_classes"] == []
    third = registry(home).version("digits@3")
    assert third.manifest["label_names"] == second.manifest["label_names"]
    assert third.manifest["model"] == second.manifest["model"]
    assert result["metrics"]["candidate"]["new"]["accuracy"] > 0.85

    table = pq.read_table(tmp_path / "later.parquet")
    pixels = np.array(table["pixels"].to_pylist(), dtype=np.float32)
    for ref in ("digits@2", "digits@3"):
        model = perennial.load(ref)
        named = model.predict(pixels)
        truth = [str(label) for label in table["label"].to_pylist()]
        assert np.mean([a == b for a, b in zip(named, truth, strict=True)]) > 0.85
        assert set(added) <= set(named)


def test_by_default_an_unknown_class_is_bad_data(run: Run, home: Path, tmp_path: Path) -> None:
    result = run(*written(tmp_path, text=True))
    assert result["exit_code"] == 30
    assert "'nine' in row 0 is unknown" in result["error"]["what"]
    assert "data.new_classes=grow" in result["error"]["mend"]
    assert registry(home).champion("digits") is None, "said before anything is trained"
    result = run(*written(tmp_path, text=True), "data.new_classes=ask")
    assert result["exit_code"] == 1
    assert result["error"]["where"] == "data.new_classes"


def test_a_rejected_candidate_leaves_the_lineage_as_it_was(
    run: Run, home: Path, tmp_path: Path
) -> None:
    files = written(tmp_path, text=True)
    grow = ("data.new_classes=grow", "trainer.max_steps=200")
    held_back = run(*files, *grow, "promote=false")
    assert held_back["data"]["new"]["new_classes"] == ["eight", "nine"]
    forgetful = ("method=none", "optimizer.lr=0.5", "trainer.validate_every=30")
    result = run(*files, *grow, *forgetful, "trainer.max_steps=30")
    assert result["status"] == "rejected"
    assert result["data"]["new"]["new_classes"] == ["eight", "nine"], "they are new again"
    champion = registry(home).champion("digits")
    assert champion is not None
    assert champion.number == 1
    assert list(champion.manifest["label_names"]) == FOUNDED


def test_history_may_not_bring_classes(run: Run, home: Path, tmp_path: Path) -> None:
    files = written(tmp_path, text=True)
    grow = ("data.new_classes=grow", "trainer.max_steps=4", "trainer.validate_every=2")
    run(*files, *grow, "promote=false")
    wrong = f"data.history={tmp_path / 'new.parquet'}"
    result = run(*files, wrong, f"data.new={tmp_path / 'later.parquet'}", *grow)
    assert result["exit_code"] == 30
    assert "only data.new may bring a new class" in result["error"]["mend"]


def test_a_checkpoint_without_history_learns_classes(run: Run, home: Path, tmp_path: Path) -> None:
    model = MLP(inputs=64, classes=8)
    save_file(model.state_dict(), tmp_path / "serving.safetensors")
    files = [name for name in written(tmp_path, text=False) if "history" not in name]
    adopted = (
        f"checkpoint={tmp_path / 'serving.safetensors'}",
        "method=none",
        "gate.retention=waived",
        "trainer.max_steps=200",
    )
    refused = run(*files, *adopted)
    assert refused["exit_code"] == 30
    result = run(*files, *adopted, "data.new_classes=grow")
    assert result["status"] == "promoted", result["error"]
    assert result["data"]["new"]["new_classes"] == ["8", "9"]
    first, second = (registry(home).version(f"digits@{number}") for number in (1, 2))
    assert list(first.manifest["label_names"]) == [str(digit) for digit in range(8)]
    assert list(second.manifest["label_names"]) == [str(digit) for digit in range(10)]


def test_an_own_module_grows_and_is_rebuilt(
    run: Run,
    home: Path,
    compose: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "growing_net.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    files = [name for name in written(tmp_path, text=True) if not name.startswith("model.")]
    result = run(
        *files, "model=custom", "model._target_=growing_net.Net", "data.new_classes=grow"
    )  # fmt: skip
    assert result["candidate"] == {"id": "digits@2"}, result["error"]
    version = registry(home).version("digits@2")
    assert version.manifest["model"]["head"] == {"name": "outputs", "outputs": 10}
    assert view(version).weights["outputs.weight"].shape == (10, 32)
    model = perennial.load("digits@2", allow=["growing_net.Net"])
    pixels = np.array(
        pq.read_table(tmp_path / "new.parquet")["pixels"].to_pylist(), dtype=np.float32
    )
    assert {"eight", "nine"} <= set(model.predict(pixels))

    scored = ("data=files", f"data.new={tmp_path / 'new.parquet'}", "allow=[growing_net.Net]")
    capsys.readouterr()
    evaluate_job(compose(*scored, "ref=digits@2", "accelerator=cpu", config="evaluate"))
    assert "digits@2 on data.new" in capsys.readouterr().out
    evaluate_job(
        compose(
            *scored, "ref=digits@1", "accelerator=cpu", "data.new_classes=grow", config="evaluate"
        )
    )
    assert "digits@1 on data.new" in capsys.readouterr().out

    (tmp_path / "growing_net.py").write_text(NET.replace("self.outputs", "self.renamed"))
    monkeypatch.delitem(__import__("sys").modules, "growing_net")
    with pytest.raises(RegistryError, match="'outputs' has 10 outputs, and Net has no such"):
        perennial.load("digits@2", allow=["growing_net.Net"])


class Stopped(Exception):  # noqa: N818
    """The process was killed here."""


def test_an_interrupted_cycle_goes_on_bit_for_bit(
    run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (*written(tmp_path, text=True), "data.new_classes=grow", "trainer.max_steps=60",
               "trainer.validate_every=20", "trainer.resume_seconds=0")  # fmt: skip
    fit = candidate_room.fit

    def stopping(at: int) -> Callable[..., Any]:
        def fitted(**given: Any) -> Any:
            if "history" not in given["start_scores"]:
                return fit(**given)  # the first version

            def show(step: int, *_: Any) -> None:
                if step >= at:
                    raise Stopped

            return fit(**{**given, "show": show})

        return fitted

    with monkeypatch.context() as patch:
        patch.setattr(candidate_room, "fit", stopping(0))
        assert run(*command)["status"] == "failed"
    whole = home.with_name("whole")
    shutil.copytree(home, whole)
    for folder in (whole / "registry" / "cycles", whole / "cycles"):
        shutil.rmtree(folder, ignore_errors=True)
    with monkeypatch.context() as patch:
        patch.setenv("PERENNIAL_HOME", str(whole))
        assert run(*command)["candidate"] == {"id": "digits@2"}
    with monkeypatch.context() as patch:
        patch.setattr(candidate_room, "fit", stopping(40))
        assert run(*command)["status"] == "failed"
    assert list(home.rglob("resume.json")), "there is something to go on from"
    assert run(*command)["candidate"] == {"id": "digits@2"}
    a, b = (registry(folder).version("digits@2") for folder in (home, whole))
    assert a.files["model.safetensors"] == b.files["model.safetensors"]
    assert a.files["methods/ewc.safetensors"] == b.files["methods/ewc.safetensors"]


METHODS: dict[str, Callable[[], Method]] = {
    "agem": lambda: AGEM(rows=16),
    "ewc": lambda: EWC(strength=20.0),
    "ewc proximal": lambda: EWC(strength=20.0, step="proximal"),
    "interpolation": lambda: Interpolation(budget=0.05, points=4),
    "joint": Joint,
    "l2sp": lambda: L2SP(strength=0.5),
    "lwf": LwF,
    "replay": Replay,
    "scratch": Scratch,
    "si": lambda: SI(strength=5.0),
}


def rows(count: int, seed: int, *, classes: int) -> Rows:
    """Gaussian clouds around distant corners."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, classes, size=count)
    corners = np.random.default_rng(0).normal(size=(4, 6)) * 3
    values = (corners[label] + generator.normal(size=(count, 6))).astype(np.float32)
    names = np.array([f"{classes}-{seed}-{i}" for i in range(count)])
    return Rows(features={"x": values}, label=label, id=names, content=names, cluster=names)


def made(*, frozen: bool = False) -> Learner:
    def build() -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, 2))
        model[3].weight.requires_grad_(not frozen)
        return model

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
    methods: list[Method],
    champion: VersionView | None,
    *,
    frozen: bool = False,
    stop_at: int | None = None,
    **training: Any,
) -> tuple[Trained, dict[str, Tensor], Learner]:
    learner = made(frozen=frozen)
    torch.manual_seed(1)

    def show(step: int, steps: int, scores: str) -> None:
        if stop_at is not None and step >= stop_at:
            raise Stopped

    first = champion is None
    classes = 2 if first else 4
    trained = train(
        learner,
        champion=champion
        or VersionView(id="", weights=learner.model.state_dict(), label_names=("a", "b")),
        methods=methods,
        new=rows(300, 1, classes=classes),
        history=None if first else rows(200, 2, classes=2),
        new_validation=rows(100, 3, classes=classes),
        history_validation=None if first else rows(100, 4, classes=2),
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
        warn=lambda line: None,
        label_names=tuple("abcd")[:classes],
    )
    return trained, {n: v.clone() for n, v in learner.model.state_dict().items()}, learner


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> VersionView:
    trained, weights, _ = retrain(tmp_path_factory.mktemp("champion"), [SI()], None)
    return VersionView(id="m@1", weights=weights, methods=trained.methods, label_names=("a", "b"))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_resumes_a_grown_cycle_bit_for_bit(
    name: str, champion: VersionView, tmp_path: Path
) -> None:
    steps = {"max_steps": 20, "validate_every": 7}
    whole, expected, learner = retrain(
        tmp_path / "whole", [METHODS[name]()], champion, **steps
    )  # fmt: skip
    assert learner.head == Head("3", 4)
    assert expected["3.weight"].shape == (4, 16)
    with pytest.raises(Stopped):
        retrain(tmp_path / "parts", [METHODS[name]()], champion, stop_at=11, **steps)
    again, weights, _ = retrain(tmp_path / "parts", [METHODS[name]()], champion, **steps)
    assert again.fit.curve == whole.fit.curve
    assert all(torch.equal(weights[n], value) for n, value in expected.items())
    for method, state in whole.methods.items():
        assert all(torch.equal(again.methods[method][n], v) for n, v in state.items())


@pytest.mark.parametrize("name", sorted(METHODS))
def test_with_every_method_new_classes_are_learned(
    name: str, champion: VersionView, tmp_path: Path
) -> None:
    steps = {"max_steps": 100, "validate_every": 50}
    trained, _, _ = retrain(tmp_path, [METHODS[name]()], champion, **steps)
    start = trained.fit.curve[0]
    assert start["history"] > 0.9, "the curve starts with the champion, as it serves"
    assert 0.3 < start["new"] < 0.7, "which knows half of the classes"
    assert max(point["new"] for point in trained.fit.curve) > 0.85


def test_a_frozen_output_layer_is_refused(champion: VersionView, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'3' is frozen"):
        retrain(tmp_path, [], champion, frozen=True)
