"""The verbs beside training, as a user calls them: each in a fork of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import perennial

MODULE = """
import torch

class Net(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, width), torch.nn.ReLU(), torch.nn.Linear(width, 2)
        )

    def forward(self, x):
        return self.layers(x)
"""

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)

SHORT = ("trainer.max_steps=150", "trainer.validate_every=50")


def test_registry_verbs_on_two_versions(
    run: Callable[..., dict[str, Any]], verb: Callable[..., tuple[int, str, str]]
) -> None:
    assert verb("registry", "list")[1].startswith("The registry is empty")
    result = run("trainer.max_steps=400", "gate.retention=waived")
    assert result["status"] == "promoted"
    _, listed, _ = verb("registry", "list")
    _, first, second = listed.splitlines()
    assert re.fullmatch(r"digits@1  \d{4}-\d\d-\d\d \d\d:\d\d  bootstrap .* previous", first)
    assert re.fullmatch(r"digits@2  .{16}  retrained  promoted  .* candidate, champion", second)
    code, shown, _ = verb("registry", "show", "digits@champion")
    assert code == 0
    described = json.loads(shown)
    assert described["version"] == "digits@2"
    assert described["metrics"]["new"] == pytest.approx(result["metrics"]["candidate"]["new"])
    folder = Path(verb("registry", "path", "digits@champion")[1].strip())
    assert {"model.safetensors", "version.yaml", "report.html"} <= {
        path.name for path in folder.iterdir()
    }

    assert "digits@1 is the champion again" in verb("registry", "rollback", "digits")[1]
    assert perennial.load("digits@champion").id == "digits@1"
    assert verb("registry", "rollback", "digits", "--to", "2")[0] == 0
    assert perennial.load("digits@champion").id == "digits@2"
    for arguments, words in (
        (("list", "digit"), "there are: digits"),
        (("show", "digits@9"), "has no version '9'"),
        (("rollback", "nobody"), "nobody"),
        (("shwo", "digits@1"), "invalid choice"),
    ):
        code, _, errors = verb("registry", *arguments)
        assert (code, words in errors) == (1, True), errors


def test_evaluate_scores_as_the_loaded_model_does(
    run: Callable[..., dict[str, Any]],
    verb: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "own_net.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)

    def table(name: str, rows: int, sign: float) -> pd.DataFrame:
        x = generator.normal(size=(rows, 4)).astype(np.float32)
        frame = pd.DataFrame(x, columns=list("abcd"))
        frame["answer"] = np.where(sign * x[:, 0] > 0, "yes", "no")
        frame = frame[np.arange(rows) % 10 > 0]  # pandas writes a filtered index as a column
        frame.to_parquet(tmp_path / f"{name}.parquet")
        return frame

    table("old", 1200, 1.0)
    frame = table("week", 900, -1.0)
    own = ("data=files", "data.label=answer", "model_name=own")
    model = ("model=custom", "model._target_=own_net.Net", "+model.width=16")
    data = ("data.history=old.parquet", "data.new=week.parquet")
    result = run(*own, *model, *data, *SHORT)
    assert result["error"] is None

    score = ("evaluate", *own, "ref=own@1", "accelerator=cpu", "data.new=week.parquet")
    code, _, errors = verb(*score)
    assert code == 1
    assert "allow=[own_net.Net]" in errors
    code, printed, _ = verb(*score, "allow=[own_net.Net]")
    assert code == 0
    assert printed.startswith("own@1 on data.new")
    _, rows, shown, *_ = next(
        line for line in printed.splitlines() if line.startswith("all ")
    ).split()
    predicted = perennial.load("own@1", allow=["own_net.Net"]).predict(
        frame[list("abcd")].to_numpy()
    )
    assert int(rows) == len(frame)
    assert shown == f"{np.mean(np.array(predicted) == frame['answer']):.1%}"

    torch.save(perennial.load("own@1", allow=["own_net.Net"]).model.state_dict(), "serving.pt")
    adopting = (*own[:2], "model_name=adopted", *model, *data, *SHORT, "checkpoint=serving.pt")
    refused = run(*adopting)
    assert refused["exit_code"] == 1
    assert "task.labels=[no,yes]" in refused["error"]["mend"]
    adopted = run(*adopting, "task.labels=[no,yes]")
    assert adopted["metrics"]["champion"]["history"]["accuracy"] > 0.9

    wrong = run(*own[:2], "model_name=wrong", *model, *data, *SHORT, "data.features=[a,b]")
    assert wrong["exit_code"] == 1
    assert "cannot take a batch of the data" in wrong["error"]["what"]
    assert "float32 (2, 2)" in wrong["error"]["mend"]


def test_adopt_registers_a_checkpoint_with_all_that_retraining_needs(
    run: Callable[..., dict[str, Any]],
    verb: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "own_net.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(1)
    x = generator.normal(size=(1500, 4)).astype(np.float32)
    frame = pd.DataFrame(x, columns=list("abcd")).assign(answer=(x[:, 0] > 0).astype(np.int64))
    frame[:900].to_parquet("old.parquet")
    frame[900:].assign(a=frame.a[900:] + 1).to_parquet("week.parquet")
    import own_net  # type: ignore[import-not-found]

    torch.manual_seed(0)
    torch.save(own_net.Net(width=8).state_dict(), "serving.pt")
    model = ("model=custom", "model._target_=own_net.Net", "+model.width=8")
    data = ("data=files", "data.label=answer", "data.history=old.parquet", "model_name=served")
    command = ("adopt", *model, *data, "trainer.accelerator=cpu", "checkpoint=serving.pt")
    code, printed, _ = verb(*command)
    assert code == 0
    assert "served@1 is the champion" in printed
    files = json.loads(verb("registry", "show", "served@champion")[1])["files"]
    expected = {"methods/ewc.safetensors", "memory/train.arrow", "holdout/cycle-1.arrow"}
    assert expected <= set(files)
    code, printed, _ = verb(*command)
    assert (code, "going on from served@1" in printed) == (0, True)
    for missing, rc, words in (
        ("checkpoint=serving.pt", 1, "checkpoint must be given"),
        ("data.history=old.parquet", 30, "data.history"),
    ):
        left = [a for a in command if a not in (missing, "model_name=served")]
        code, _, errors = verb(*left, "model_name=other")
        assert (code, words in errors) == (rc, True), errors
    result = run(*model, *data, "data.new=week.parquet", "checkpoint=serving.pt", *SHORT)
    assert result["error"] is None
    assert result["champion"]["id"] == "served@1"
    assert result["bootstrap"] is False
