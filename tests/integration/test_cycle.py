"""Whole cycles through the real configuration: what they decide, keep and hand over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import perennial
from perennial.data.digits import digits
from perennial.launch import run_job
from perennial.models.reference import MLP
from perennial.promotion.registry import Registry
from perennial.reporting.result import schema

Run = Callable[..., dict[str, Any]]
SHORT = ("trainer.max_steps=30", "trainer.validate_every=15")

NET = '''
"""A LightningModule that knows nothing of Perennial."""

import lightning.pytorch as pl
import torch
from torch import nn


class Net(pl.LightningModule):
    def __init__(self, width=32):
        super().__init__()
        self.save_hyperparameters()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU())
        self.head = nn.Linear(width, 10)

    def forward(self, images):
        return self.head(self.body(images.float()))

    def training_step(self, batch, batch_idx):
        images, label = batch
        loss = nn.functional.cross_entropy(self(images), label)
        self.log("own/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        images, label = batch
        self.log("own/accuracy", (self(images).argmax(1) == label).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
'''


def registry(home: Path) -> Registry:
    return Registry(url=f"sqlite:///{home / 'registry.db'}")


def accuracy(result: dict[str, Any], who: str, part: str) -> float:
    return float(result["metrics"][who][part]["accuracy"])


def fit_on_history(model: nn.Module, steps: int = 150) -> nn.Module:
    rows = digits(part="history", inverted=False, seed=0).with_format("numpy")
    rows = rows.filter(lambda split: split == "train", input_columns="split")
    names = [name for name in rows.column_names if name not in ("label", "split", "group")]
    features = torch.from_numpy(np.asarray(rows[names[0]], dtype=np.float32))
    label = torch.from_numpy(np.asarray(rows["label"], dtype=np.int64))
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(steps):
        chosen = torch.randint(len(label), (64,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(features[chosen]), label[chosen]).backward()
        optimizer.step()
    return model


def table(path: Path, *, rows: int, shift: float, seed: int) -> str:
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 3, size=rows)
    values = generator.normal(size=(rows, 4))
    values[:, 0] += 4 * label + shift
    values[:, 1] -= 4 * label
    frame = pd.DataFrame({f"x{i}": values[:, i] for i in range(4)})
    frame["animal"] = np.array(["cat", "dog", "eel"])[label]
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return str(path)


def test_default_run_promotes_serves_and_is_not_repeated(run: Run, home: Path) -> None:
    result = run()
    assert (result["status"], result["exit_code"], result["bootstrap"]) == ("promoted", 0, True)
    assert accuracy(result, "candidate", "new") > accuracy(result, "champion", "new") + 0.25
    assert result["decision"]["applied"] is True
    assert result["candidate"]["id"] == "digits@2"

    version = registry(home).version("digits@champion")
    assert version.number == 2
    assert {"model.safetensors", "version.yaml", "report.html"} <= set(version.files)
    assert {"memory/train.arrow", "memory/validation.arrow"} <= set(version.files)
    assert {f"{kind}/cycle-{n}.arrow" for kind in ("holdout", "rows") for n in (1, 2)} <= set(
        version.files
    )
    assert "methods/ewc.safetensors" in version.files
    assert Path(result["report"]).is_file()
    assert (Path(result["folder"]) / "result.json").is_file()

    predictor = perennial.load("digits@champion")
    predicted = predictor.predict(np.zeros((3, 8, 8), dtype=np.float32))
    assert len(predicted) == 3
    assert set(predicted) <= {str(number) for number in range(10)}

    again = run()
    assert (again["status"], again["exit_code"], again["bootstrap"]) == ("skipped", 10, False)
    assert len(registry(home).versions("digits")) == 2


def test_plain_fine_tuning_forgets_and_is_rejected(run: Run, home: Path) -> None:
    result = run("method=none")
    assert (result["status"], result["exit_code"]) == ("rejected", 20)
    outcomes = {check["name"]: check["outcome"] for check in result["decision"]["checks"]}
    assert outcomes["retention"] == "reject"
    assert accuracy(result, "candidate", "new") > accuracy(result, "champion", "new")
    assert registry(home).aliases("digits")["champion"] == 1


def test_a_decision_held_back_is_applied_by_the_same_command(run: Run, home: Path) -> None:
    settings = ("trainer.max_steps=400",)
    held = run(*settings, "promote=false")
    assert held["decision"]["verdict"] == "promoted"
    assert held["decision"]["applied"] is False
    assert registry(home).aliases("digits")["champion"] == 1

    applied = run(*settings)
    assert (applied["status"], applied["exit_code"]) == ("promoted", 0)
    assert applied["decision"]["applied"] is True
    assert applied["candidate"] == held["candidate"]
    assert registry(home).aliases("digits")["champion"] == 2


def test_the_same_seed_gives_the_same_result(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for name in ("first", "second"):
        monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / name))
        results.append(run(*SHORT, "seed=3"))
    first, second = results
    assert first["status"] != "failed"
    assert first["metrics"] == second["metrics"]
    weights = [
        registry(tmp_path / name).version("digits@2").files["model.safetensors"]
        for name in ("first", "second")
    ]
    assert weights[0] == weights[1]


def test_a_foreign_lightning_module_goes_on_from_its_own_checkpoint(
    run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "modules"
    source.mkdir()
    (source / "foreign_net.py").write_text(NET)
    monkeypatch.syspath_prepend(str(source))
    import foreign_net  # type: ignore[import-not-found]

    net = fit_on_history(foreign_net.Net(width=48))
    trainer = pl.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.strategy.connect(net)
    checkpoint = tmp_path / "net.ckpt"
    trainer.save_checkpoint(checkpoint)

    result = run(
        *("trainer.max_steps=60", "trainer.validate_every=30"),
        "model=custom",
        "model._target_=foreign_net.Net",
        "+model.width=48",
        f"checkpoint={checkpoint}",
    )
    assert result["error"] is None
    assert result["bootstrap"] is True
    assert result["cost"]["replayed_rows"] > 0
    assert accuracy(result, "champion", "history/cycle-1") > 0.8

    versions = registry(home).versions("digits")
    assert sorted(version.manifest["how"] for version in versions) == ["adopted", "retrained"]
    founded = registry(home).version("digits@1")
    retrained = registry(home).version("digits@2")
    assert "methods/ewc.safetensors" in founded.files
    assert "methods/ewc.safetensors" in retrained.files
    assert retrained.files["model.safetensors"] != founded.files["model.safetensors"]
    with pytest.raises(perennial.errors.RegistryError, match="allow"):
        perennial.load("digits@1")
    served = perennial.load("digits@1", allow=["foreign_net.Net"])
    for name, value in net.state_dict().items():
        torch.testing.assert_close(served.model.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_checkpoint_founds_a_lineage_once(
    run: Run, home: Path, tmp_path: Path, suffix: str
) -> None:
    def saved(name: str, seed: int) -> Path:
        torch.manual_seed(seed)
        state = MLP(inputs=64, classes=10).state_dict()
        path = tmp_path / f"{name}{suffix}"
        if suffix == ".pt":
            torch.save(state, path)
        else:
            save_file(state, path)
        return path

    mine, other = saved("mine", 0), saved("other", 1)
    first = run(*SHORT, f"checkpoint={mine}")
    assert first["error"] is None
    assert registry(home).version("digits@1").manifest["how"] == "adopted"

    again = run(*SHORT, "seed=1", "promote=false", f"checkpoint={mine}")
    assert again["error"] is None

    before = len(registry(home).versions("digits"))
    refused = run(*SHORT, f"checkpoint={other}")
    assert (refused["status"], refused["exit_code"]) == ("failed", 1)
    assert refused["error"]["where"] == "checkpoint"
    assert "model_name=digits-2" in refused["error"]["mend"]
    assert len(registry(home).versions("digits")) == before


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_with_named_labels(run: Run, home: Path, tmp_path: Path, suffix: str) -> None:
    history = table(tmp_path / f"old{suffix}", rows=1000, shift=0.0, seed=0)
    new = table(tmp_path / f"new{suffix}", rows=600, shift=9.0, seed=1)
    result = run(
        "data=files",
        f"data.history={history}",
        f"data.new={new}",
        "data.label=animal",
        "model_name=animals",
        "model.inputs=4",
        "model.classes=3",
        "trainer.max_steps=300",
        "optimizer.lr=0.003",
    )
    assert result["error"] is None
    assert result["status"] == "promoted"
    predictor = perennial.load("animals@champion")
    assert predictor.label_names == ("cat", "dog", "eel")
    rows = pd.read_csv(new) if suffix == ".csv" else pd.read_parquet(new)
    values = rows[["x0", "x1", "x2", "x3"]].to_numpy(dtype=np.float32)
    assert np.mean(np.array(predictor.predict(values)) == rows["animal"].to_numpy()) > 0.9
    # as pandas reads it: float64, with the label, and the columns in any order
    assert predictor.predict(rows[rows.columns[::-1]]) == predictor.predict(values)


def test_dry_run_writes_nothing(run: Run, tmp_path: Path) -> None:
    result = run("debug=dry")
    assert result["exit_code"] == 0
    assert result["status"] != "failed"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_dry_run_over_a_champion_changes_nothing(run: Run, tmp_path: Path) -> None:
    run(*SHORT)

    def found() -> dict[Path, bytes]:
        return {
            path: path.read_bytes()
            for path in tmp_path.rglob("*")
            if path.is_file() and path.suffix not in (".db-shm", ".db-wal")
        }

    before = found()
    result = run("debug=dry", "force=true")
    assert (result["exit_code"], result["error"]) == (0, None)
    assert found() == before


def test_a_dry_run_says_what_the_real_run_would_do(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run("debug=dry")
    told = " ".join(capsys.readouterr().out.split())
    assert "the real run would make the first version, then retrain digits@1 on 349 new" in told
    run("trainer.max_steps=400", "gate.retention=waived")
    capsys.readouterr()
    run("debug=dry")
    told = " ".join(capsys.readouterr().out.split())
    assert told.endswith(
        "nothing was written; the real run would be skipped: no row of data.new is new: each "
        "was learned or held out before."
    )


def test_a_policy_is_checked_where_nothing_is_new_too(run: Run) -> None:
    assert run()["status"] == "promoted"
    for dry in ([], ["debug=dry"]):
        refused = run("gate.slices.columns=[regin]", *dry)
        assert refused["status"] == "failed"
        assert "no slice column 'regin'" in refused["error"]["what"]
    assert run()["status"] == "skipped"


def test_a_job_of_a_sweep_returns_its_objective_and_moves_no_alias(
    compose: Callable[..., dict[str, Any]], home: Path, tmp_path: Path
) -> None:
    config = compose("tracking=none", "trainer.accelerator=cpu", "trainer.max_steps=400")
    result, objective = run_job(config, folder=tmp_path, multirun=True)
    assert result["decision"]["verdict"] == "promoted"
    assert result["decision"]["applied"] is False
    assert result["exit_code"] == 0
    assert objective is not None
    assert 0.5 < objective <= 1.0
    assert registry(home).aliases("digits")["champion"] == 1
    stored = json.loads((tmp_path / "result.json").read_text())
    assert "objective" not in stored
    jsonschema.validate(stored, schema())


@pytest.mark.parametrize("method", ["joint", "scratch"])
def test_all_of_history_is_not_its_memory(run: Run, method: str) -> None:
    refused = run(*SHORT, f"method={method}", "history=memory")
    assert (refused["status"], refused["error"]["where"]) == ("failed", "history")
