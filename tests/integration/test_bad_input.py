"""Every mistake is told with where and how to mend it, and leaves registry and champion alone."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from perennial import files
from perennial.models.reference import MLP
from perennial.paths import CONF_DIR
from perennial.promotion.registry import Registry
from perennial.steps import found
from perennial.usage import help_text

Run = Callable[..., dict[str, Any]]
SHORT = ("trainer.max_steps=10", "trainer.validate_every=5")
TABLE = (
    *SHORT,
    "data=files",
    "model_name=animals",
    "data.label=animal",
    "model.inputs=4",
    "model.classes=3",
)


def frame(rows: int, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 3, size=rows)
    values = generator.normal(size=(rows, 4))
    values[:, 0] += 4 * label
    columns = {f"x{i}": values[:, i] for i in range(4)}
    return pd.DataFrame({**columns, "animal": np.array(["cat", "dog", "eel"])[label]})


def state(home: Path) -> dict[str, Any]:
    """Everything that a registry says, each file verified."""
    if not (home / "registry.db").exists():
        return {}
    registry = Registry(url=f"sqlite:///{home / 'registry.db'}")
    return {
        name: {
            "aliases": registry.aliases(name),
            "versions": {
                version.number: {path: version.open(path).read_bytes() for path in version.files}
                for version in registry.versions(name)
            },
            "decisions": registry.cycles(name),
        }
        for name in registry.lineages()
    }


def refused(result: dict[str, Any], *named: str, code: int) -> None:
    """The result is a failure that says what is wrong, where, and what to do."""
    assert (result["status"], result["exit_code"]) == ("failed", code), result["error"]
    error = result["error"]
    assert error["what"]
    assert error["where"]
    assert error["mend"]
    assert "did not foresee" not in error["what"], error
    told = " ".join(error.values())
    for name in named:
        assert name in told, f"{name!r} is not named: {error}"
    written = json.loads((Path(result["folder"]) / "result.json").read_text())
    assert written["error"] == error


@pytest.fixture
def history(tmp_path: Path) -> Path:
    path = tmp_path / "history.csv"
    frame(1000, seed=0).to_csv(path, index=False)
    return path


@pytest.fixture
def attempt(run: Run, home: Path, tmp_path: Path, history: Path) -> Callable[[pd.DataFrame], Any]:
    """Retrains an existing champion on a table, and checks that nothing came of it."""
    new = tmp_path / "good.csv"
    frame(200, seed=1).to_csv(new, index=False)
    first = run(*TABLE, f"data.history={history}", f"data.new={new}")
    assert first["error"] is None

    def job(rows: pd.DataFrame) -> dict[str, Any]:
        before = state(home)
        assert before["animals"]["aliases"]["champion"]
        path = tmp_path / "bad.csv"
        rows.to_csv(path, index=False)
        result = run(*TABLE, f"data.history={history}", f"data.new={path}")
        assert state(home) == before
        return result

    return job


def test_missing_file(run: Run, home: Path, history: Path, tmp_path: Path) -> None:
    result = run(*TABLE, f"data.history={history}", f"data.new={tmp_path / 'nowhere.csv'}")
    refused(result, "nowhere.csv", "data.new", code=30)
    assert state(home) == {}


@pytest.mark.parametrize("change", ["a bit", "cut short", "gone"])
def test_a_holdout_changed_on_disk_promotes_nothing(
    run: Run, home: Path, history: Path, tmp_path: Path, change: str
) -> None:
    new, later = tmp_path / "new.csv", tmp_path / "later.csv"
    frame(200, seed=1).to_csv(new, index=False)
    frame(200, seed=3).to_csv(later, index=False)
    assert run(*TABLE, f"data.history={history}", f"data.new={new}")["error"] is None
    registry = Registry(url=f"sqlite:///{home / 'registry.db'}")
    champion = registry.version("animals@champion")
    held = champion.open("holdout/cycle-1.arrow")
    whole, before = held.read_bytes(), registry.cycles("animals")
    held.chmod(0o644)
    if change == "gone":
        held.unlink()
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        held.write_bytes(flipped if change == "a bit" else whole[:middle])
    result = run(*TABLE, f"data.history={history}", f"data.new={later}")
    refused(result, f"holdout/cycle-1.arrow of {champion.id}", code=1)
    assert registry.cycles("animals") == before
    assert registry.aliases("animals")["champion"] == champion.number


def test_empty_data_set(attempt: Callable[[pd.DataFrame], Any]) -> None:
    refused(attempt(frame(0, seed=2)), "bad.csv", "no rows", code=30)


def test_missing_label_column(attempt: Callable[[pd.DataFrame], Any]) -> None:
    result = attempt(frame(300, seed=2).rename(columns={"animal": "animals"}))
    refused(result, "animal", code=30)


def test_nan_in_a_feature(attempt: Callable[[pd.DataFrame], Any]) -> None:
    rows = frame(300, seed=2)
    rows.loc[17, "x2"] = np.nan
    refused(attempt(rows), "x2", "17", code=30)


def test_unknown_label(attempt: Callable[[pd.DataFrame], Any]) -> None:
    rows = frame(300, seed=2)
    rows.loc[23, "animal"] = "fox"
    refused(attempt(rows), "fox", "23", "cat", code=30)


def test_label_out_of_range(run: Run, home: Path, tmp_path: Path) -> None:
    paths = {}
    for part, seed in (("history", 0), ("new", 1)):
        rows = frame(1000, seed=seed)
        rows["animal"] = rows["animal"].map({"cat": 0, "dog": 1, "eel": 2})
        if part == "new":
            rows.loc[5, "animal"] = 7
        paths[part] = tmp_path / f"{part}.csv"
        rows.to_csv(paths[part], index=False)
    result = run(*TABLE, f"data.history={paths['history']}", f"data.new={paths['new']}")
    refused(result, "7", "out of range", code=30)
    assert state(home) == {}


def test_more_classes_than_outputs(run: Run, home: Path, history: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.csv"
    frame(300, seed=1).to_csv(new, index=False)
    result = run(*TABLE, "model.classes=2", f"data.history={history}", f"data.new={new}")
    refused(result, "3 classes", "2 outputs", code=30)
    assert state(home) == {}


def test_another_schema(attempt: Callable[[pd.DataFrame], Any]) -> None:
    refused(attempt(frame(300, seed=2).drop(columns="x3")), "x3", code=30)


def test_another_schema_before_there_is_a_champion(
    run: Run, home: Path, history: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new.csv"
    frame(300, seed=1).assign(x9=1.5).to_csv(new, index=False)
    refused(run(*TABLE, f"data.history={history}", f"data.new={new}"), "x9", code=30)
    assert state(home) == {}


@pytest.mark.parametrize(("old", "new", "named"), [(200, 300, "data.history"), (1000, 8, "new")])
def test_too_small_a_holdout_is_told_before_training(
    run: Run,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    old: int,
    new: int,
    named: str,
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(found, "train", never)
    paths = {}
    for part, rows, seed in (("history", old, 0), ("new", new, 1)):
        paths[part] = tmp_path / f"{part}.csv"
        frame(rows, seed=seed).to_csv(paths[part], index=False)
    result = run(*TABLE, f"data.history={paths['history']}", f"data.new={paths['new']}")
    refused(result, named, "holdout", code=30)
    assert state(home) == {}


def test_checkpoint_of_another_shape(run: Run, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "wide.pt"
    torch.save(MLP(inputs=64, classes=10, hidden=(100, 50)).state_dict(), path)
    result = run(*SHORT, f"checkpoint={path}")
    refused(result, "layers.3.weight", "(50, 100)", "(100, 100)", "wide.pt", code=1)
    assert state(home) == {}


def test_missing_checkpoint(run: Run, home: Path, tmp_path: Path) -> None:
    refused(run(*SHORT, f"checkpoint={tmp_path / 'none.pt'}"), "none.pt", code=1)
    assert state(home) == {}


class Execute:
    """Pickles to a call of ``os.system``."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def test_checkpoint_that_would_execute_code(run: Run, home: Path, tmp_path: Path) -> None:
    marker, path = tmp_path / "executed", tmp_path / "evil.pt"
    torch.save({"state_dict": {"w": torch.zeros(1)}, "extra": Execute(marker)}, path)
    assert zipfile.is_zipfile(path)
    result = run(*SHORT, f"checkpoint={path}")
    refused(result, "system", "evil.pt", code=1)
    assert not marker.exists()
    assert state(home) == {}


def test_registry_of_a_newer_release(run: Run, home: Path) -> None:
    assert run(*SHORT)["error"] is None
    before = state(home)
    with sqlite3.connect(home / "registry.db") as database:
        (version,) = database.execute("SELECT schema_version FROM meta").fetchone()
        database.execute("UPDATE meta SET schema_version = schema_version + 1")
    refused(run(*SHORT, "seed=1"), str(version + 1), "newer", "registry.db", "upgrade", code=1)
    with sqlite3.connect(home / "registry.db") as database:
        database.execute("UPDATE meta SET schema_version = ?", (version,))
    assert state(home) == before


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("after", [0, 3, 9])
def test_disk_full(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, call: str, after: int
) -> None:
    assert run(*SHORT)["error"] is None
    before = state(home)
    real, count, full = getattr(os, call), iter(range(1000)), True

    def failing(*arguments: Any) -> Any:
        path = str(arguments[-1])
        if call == "fsync":
            path = str(Path(f"/proc/self/fd/{arguments[0]}").readlink())
        if full and str(home) in path and next(count) >= after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(files.os, call, failing)
    again = (*SHORT, "trainer.batch_size=48")
    refused(run(*again), "disk is full", "free some space", str(home), code=1)
    assert state(home) == before
    assert not list(home.rglob(".tmp-*"))

    full = False
    assert run(*again)["error"] is None


def test_model_that_cannot_be_imported(run: Run, home: Path) -> None:
    result = run(*SHORT, "model=custom", "model._target_=no_such_module.Net")
    refused(result, "no_such_module", code=1)
    assert state(home) == {}


def test_method_that_needs_history_without_any(run: Run, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(MLP(inputs=64, classes=10).state_dict(), path)
    result = run(
        *SHORT,
        *("method=replay", "data.history=null", "gate.retention=waived", f"checkpoint={path}"),
    )
    refused(result, "replay", "history", code=1)
    assert state(home) == {}


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command line's outcome; heavy libraries that it imported are named on stdout."""
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('torch' in sys.modules, 'lightning' in sys.modules))\n"
        "from perennial.cli import main\n"
        "main()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("trainer.max_stepss=3", "trainer.max_steps"),
        ("method=ewcc", "method=ewc"),
        ("trigger.evry=7d", "trigger.every"),  # the default trigger has none
    ],
)
def test_a_misspelt_override_names_the_right_one(
    tmp_path: Path, override: str, suggestion: str
) -> None:
    done = command("train", override, cwd=tmp_path)
    assert done.returncode == 1
    assert f"did you mean {suggestion}?" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines()[-1] == "False False"


@pytest.mark.parametrize(
    ("overrides", "owner"),
    [
        (("method=si", "method.ewc.fisher=empirical"), "method=ewc"),
        (("method.si.strength=3",), "method=si"),
        (
            ("model=custom", "model.hidden=[3]"),
            "model=conv and model=mlp and model=tabular",
        ),
    ],
)
def test_a_setting_of_another_choice_names_the_choice(
    tmp_path: Path, overrides: tuple[str, ...], owner: str
) -> None:
    done = command("train", *overrides, cwd=tmp_path)
    assert done.returncode == 1
    assert "has no setting" in done.stderr
    assert f"it belongs to {owner}: choose that" in done.stderr
    assert "did you mean" not in done.stderr


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    done = command("train", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "False False"
    assert "Exit codes: 0 promoted" in done.stdout


def test_an_argument_of_ones_own_class_is_shown_with_its_plus(tmp_path: Path) -> None:
    given = ("model=custom", "model._target_=model.Net", "model.hidden=[24]", "tracking=none")
    done = command("train", *given, cwd=tmp_path)
    assert done.returncode == 1
    assert "write +model.hidden=[24], as an argument of your own class" in done.stderr
    done = command("train", "model.pooling=mean", cwd=tmp_path)
    assert "it belongs to model=huggingface" in done.stderr
    assert "+model" not in done.stderr


def test_help_names_every_group_and_setting_and_groups_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "own" / "gate"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# python train.py gate=mine\nmargin: 1\n")
    text = help_text("train", [CONF_DIR, tmp_path / "own"])
    for path in CONF_DIR.glob("*/*.yaml"):
        assert f" {path.stem} " in text
    for line in ("* digits ", "* default ", "mine ", "python train.py gate=mine", "  seed: 0"):
        assert line in text
    done = command("train", "--help", "--config-dir", str(tmp_path / "own"), cwd=tmp_path)
    assert "gate=mine" in done.stdout


def test_one_message_and_no_lines_of_hydras(tmp_path: Path) -> None:
    done = command("train", "tracking=none", "data=files", cwd=tmp_path)
    assert done.returncode == 1
    assert "data.new must be given" in done.stderr
    assert "Error executing job" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_an_optimizer_that_refuses_its_settings_is_a_message(run: Run) -> None:
    result = run("optimizer.lr=-1")
    assert (result["exit_code"], result["error"]["where"]) == (1, "optimizer")
    assert "Invalid learning rate" in result["error"]["what"]
