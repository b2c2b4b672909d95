"""What was decided is told once: after a failure to write, after a kill, and when it is applied."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from perennial import files
from perennial.errors import StorageError
from perennial.launch import run_job
from perennial.promotion.registry import Registry
from perennial.steps import tell

Run = Callable[..., dict[str, Any]]
SHORT = ("trainer.max_steps=300", "trainer.validate_every=100", "gate.retention=waived")


def registry(home: Path) -> Registry:
    return Registry(url=f"sqlite:///{home}/registry.db")


class Stopped(BaseException):
    """The process was killed here."""


class Recorder:
    """Stands for a tracker."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.aliases: dict[str, list[str]] = {}

    def summary(self, values: Any) -> None:
        self.values |= values

    def artifact(self, *, name: str, aliases: Any, **_: Any) -> None:
        self.aliases[name] = list(aliases)

    def use(self, *, name: str, aliases: Any, **_: Any) -> None:
        self.aliases[f"{name}, used"] = list(aliases)

    def table(self, name: str, columns: Any, rows: Any) -> None:
        self.values[name] = len(rows)

    def tag(self, word: str) -> None:
        self.values["tag"] = word

    def start(self, **_: Any) -> None:
        pass

    def logger(self, prefix: str = "") -> None:
        return None

    def identity(self) -> dict[str, str | None]:
        return {"run_id": "r", "url": None, "directory": None}

    def finish(self, exit_code: int) -> None:
        pass


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    found = Recorder()
    monkeypatch.setattr("perennial.tracking.wandb.NoTracker", lambda: found)
    return found


def test_a_cycle_killed_after_its_decision_is_told_by_the_same_command(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    def killed(*_: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(tell, "_track", killed)
        with pytest.raises(Stopped):
            run(*SHORT)
    assert registry(home).aliases("digits")["champion"] == 2
    assert recorder.values == {"cycle/status": "failed", "tag": "failed"}

    told = run(*SHORT)
    assert (told["status"], told["exit_code"], told["error"]) == ("promoted", 0, None)
    assert (told["champion"]["id"], told["candidate"]["id"]) == ("digits@1", "digits@2")
    assert told["metrics"]["candidate"]["new"]["n"] == 600
    assert "digits@1 → digits@2" in Path(told["report"]).read_text()
    assert recorder.values["decision/verdict"] == "promoted"
    assert recorder.values["cycle/status"] == recorder.values["tag"] == "promoted"
    assert recorder.aliases["digits"] == ["version-2", "candidate", "champion"]
    assert recorder.aliases["digits, used"] == ["version-1", "previous"]
    assert run(*SHORT)["status"] == "skipped"


def test_another_command_does_not_tell_it(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tell, "_track", lambda *_: (_ for _ in ()).throw(Stopped))
        with pytest.raises(Stopped):
            run(*SHORT)
    assert run(*SHORT, "optimizer.lr=0.002")["status"] == "skipped"


def test_a_page_that_cannot_be_written_does_not_unsay_the_verdict(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = files.write_bytes

    def full(path: Path, content: bytes) -> str:
        if path.name == "report.html":
            raise StorageError("The disk is full.", where=str(path))
        return original(path, content)

    monkeypatch.setattr(files, "write_bytes", full)
    told = run(*SHORT)
    assert (told["status"], told["exit_code"], told["report"]) == ("promoted", 0, None)
    said = " ".join(capsys.readouterr().out.split())
    assert "digits@2 is recorded as promoted, but this could not be written" in said


def test_a_promotion_that_was_held_back_is_told_when_it_is_applied(
    run: Run, recorder: Recorder
) -> None:
    held = run(*SHORT, "promote=false")
    assert (held["status"], held["decision"]["applied"]) == ("promoted", False)
    assert recorder.aliases["digits"] == ["version-2", "candidate"]
    applied = run(*SHORT)
    assert (applied["status"], applied["decision"]["applied"]) == ("promoted", True)
    assert applied["metrics"] == held["metrics"]
    assert Path(applied["report"]).exists()
    assert recorder.values["cycle/status"] == recorder.values["tag"] == "promoted"
    assert recorder.aliases["digits"] == ["version-2", "candidate", "champion"]
    assert recorder.aliases["digits, used"] == ["version-1", "previous"]
    assert recorder.values["decision/applied"] is True


def test_a_forced_repetition_is_charged(run: Run) -> None:
    settings = (*SHORT, "method=none", "promote=false")
    first = run(*settings)
    assert first["decision"]["decision_number"] == 1
    assert run(*settings)["status"] == "skipped"
    for number in (2, 3):
        again = run(*settings, "force=true")
        assert again["decision"]["decision_number"] == number
        assert again["decision"]["alpha"] == pytest.approx(0.05 / 2 ** (number - 1))


def test_two_equal_runs_do_not_work_in_one_folder(run: Run, home: Path) -> None:
    run(*SHORT, "promote=false")
    decided = registry(home).cycles("digits")[-1].cycle_id
    with registry(home).working(decided):
        refused = run(*SHORT, "promote=false", "force=true")
    assert (refused["status"], refused["exit_code"]) == ("failed", 1)
    assert "Another process is at this very cycle" in refused["error"]["what"]


def test_a_trial_of_an_agent_moves_no_alias(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    done = run(*SHORT)
    assert (done["status"], done["decision"]["applied"]) == ("promoted", False)
    assert registry(home).aliases("digits")["champion"] == 1


@pytest.mark.parametrize("method", ["default", "none"])
def test_exit_zero_turns_verdicts_into_zero_and_nothing_else(run: Run, method: str) -> None:
    settings = ("trainer.max_steps=40", "trainer.validate_every=20", f"method={method}")
    assert run(*settings, "promote=false")["exit_code"] in (20, 21)
    assert run(*settings, "promote=false", "force=true", "exit_zero=true")["exit_code"] == 0
    assert run(*settings, "model._target_=no.Where", "exit_zero=true")["exit_code"] == 1


@pytest.mark.parametrize(
    ("setting", "where"),
    [
        ("promote=no", "promote"),
        ("exit_zero=no", "exit_zero"),
        ("force='yes'", "force"),
        ("model_name=null", "model_name"),
        ("seed=null", "seed"),
        ("seed=-1", "seed"),
        ("seed=4294967296", "seed"),
        ("optimizer.lr=abc", "optimizer.lr"),
        ("trainer.precision=foo", "trainer.precision"),
        ("data.memory=null", "data.memory"),
        ("+data.foo=1", "data.foo"),
        ("task.label=foo", "task.label"),
    ],
)
def test_a_setting_of_another_type_is_refused(
    run: Run, home: Path, setting: str, where: str
) -> None:
    refused = run(*SHORT, setting)
    assert (refused["status"], refused["exit_code"]) == ("failed", 1)
    assert refused["error"]["where"] == where
    assert refused["error"]["mend"]
    assert not (home / "registry.db").exists()


def test_no_password_in_a_version(
    compose: Callable[..., dict[str, Any]], home: Path, tmp_path: Path
) -> None:
    config = compose(*SHORT, "tracking=none", "trainer.accelerator=cpu")
    config["notes"] = {"password": "hunter2", "url": "postgresql://ann:hunter2@db/x"}
    (tmp_path / "run").mkdir()
    run_job(config, folder=tmp_path / "run", multirun=False)
    for name in ("digits@1", "digits@2"):
        text = registry(home).version(name).read_text("version.yaml")
        assert "hunter2" not in text
        kept = yaml.safe_load(text)["config"]
        assert kept["notes"] == {"password": "***", "url": "postgresql://ann:***@db/x"}
        assert not {"registry", "tracking"} & kept.keys()


def command(*overrides: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, str(root / "train.py"), "tracking=none", *overrides],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_failed_jobs_of_a_sweep_fail_it_and_hydra_keeps_no_password(tmp_path: Path) -> None:
    secret = "registry.url=postgresql+psycopg://ann:hunter2secret@127.0.0.1:9/x"
    sources = ("data=files", "data.new=nowhere.csv", "data.history=nowhere.csv")
    done = command(*sources, "seed=0,1", "registry.files=files", secret, "-m", cwd=tmp_path)
    assert done.returncode in (1, 30), done.stderr
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "config.yaml" for path in kept)
    assert not [path for path in kept if "hunter2secret" in path.read_text(errors="replace")]
    # Hydra's launcher repeats the command as it was typed; nothing of ours says it again
    ours = [line for line in done.stdout.splitlines() if "[HYDRA]" not in line]
    assert "hunter2secret" not in "".join(ours) + done.stderr


@pytest.mark.parametrize(("given", "folder"), [("", ".perennial"), ("~/models", "home/models")])
def test_perennial_home_is_read_in_one_way(tmp_path: Path, given: str, folder: str) -> None:
    (tmp_path / "home").mkdir()
    done = command(
        "--cfg", "job", "--resolve", cwd=tmp_path, PERENNIAL_HOME=given, HOME=str(tmp_path / "home")
    )
    assert done.returncode == 0, done.stderr
    assert f"sqlite:///{tmp_path / folder}/registry.db" in done.stdout
    refused = command("--cfg", "job", cwd=tmp_path, PERENNIAL_HOME="a?b")
    assert refused.returncode == 1
    assert "without ?, # and %" in refused.stderr


def test_results_of_failures_name_the_tracked_run(
    run: Run, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = run(*SHORT, "data=files", "data.new=nowhere.csv", "data.history=nowhere.csv")
    assert failed["status"] == "failed"
    assert failed["tracking"]["run_id"] == "r"
    written = json.loads((Path(failed["folder"]) / "result.json").read_text())
    assert written["tracking"]["run_id"] == "r"
