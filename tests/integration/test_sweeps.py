"""Sweeps as a user runs them: what is refused at once, and, in the slow tier, real trials."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TINY = (
    *("tracking=none", "trainer.accelerator=cpu", "trainer.max_steps=4"),
    *("trainer.validate_every=2", "trainer.batch_size=32"),
)
SEARCHED = "method.replay.new_fraction=interval(0.1,0.8)"
WHOLE = 20
NOWHERE = "postgresql+psycopg://a:s3cret@127.0.0.1:1/sweeps"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["sweep=optuna"], "add -m"),
        (["-m", "sweep=optuna"], "nothing to search"),
        (["-m", "sweep=optuna", "sweep.sampler=tpee", SEARCHED], "did you mean sweep.sampler=tpe"),
        (["-m", "sweep=optuna", "sweep.sampler=grid", SEARCHED], "list values"),
        (["-m", "sweep=optuna", "sweep.trialz=3", SEARCHED], "sweep.trials"),
        (["-m", "sweep=optuna", "sweep.seed=1,2", SEARCHED], "several values"),
        (["-m", "sweep=optuna", "optimizer.lrr=1e-3,1e-4"], "optimizer.lr"),
        (["-m", "sweep=optuna", "debug=dry", SEARCHED], "without -m and sweep"),
        (["-m", "sweep=optuna", "sweep.promote=best", "promote=false", SEARCHED], "contradict"),
        (["-m", "sweep=mix", "seed=0,1"], "new_fraction alone"),
        (["-m", "sweep=mix", "method=ewc"], "nothing is replayed"),
        (["-m", "sweep=mix", "sweep.choose=combined"], "sweep.choose"),
        (["-m", "sweep=optuna", "hydra/launcher=basic", SEARCHED], "needs its own"),
        (["-m", "sweep=optuna", "++model_name=a,b"], "cannot be searched"),
        (["-m", "sweep=optuna", "data.validation_fraction=0.1,0.2"], "same rows"),
        (
            [
                "-m",
                "sweep=optuna",
                f"sweep.storage={NOWHERE}",
                SEARCHED,
            ],
            "its server runs",
        ),
        (["-m", "sweep.sampler=grid", SEARCHED], "sweep=mix and sweep=optuna"),
        (["-m", "sweep=optun"], "sweep=optuna"),
    ],
)
def test_what_cannot_be_swept_is_told_at_once(
    verb: Callable[..., tuple[int, str, str]], given: list[str], told: str, home: Path
) -> None:
    code, out, errors = verb("train", *given, "tracking=none")
    assert code == 1
    said = out + errors
    assert told in said
    assert "mend:" in said
    assert "s3cret" not in said
    assert not (home / "registry.db").exists()


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PERENNIAL_HOME": str(folder / "home"), "CUDA_VISIBLE_DEVICES": ""}


def train(folder: Path, *given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "perennial.cli", *given, *TINY],
        cwd=folder,
        env=environment(folder),
        text=True,
        capture_output=True,
        check=False,
    )


def told(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("multirun/*/sweep.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def alive(folder: Path) -> int:
    """Processes that were started for a sweep in this folder."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            count += str(folder).encode() in path.read_bytes()
        except OSError:
            continue
    return count


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_real_sweep_killed_twice_ends_with_all_its_trials(tmp_path: Path) -> None:
    given = ["-m", "sweep=optuna", "sweep.sampler=random", f"sweep.trials={WHOLE}", "sweep.jobs=2"]
    for number in (2, 5):  # killed while these run
        running = subprocess.Popen(
            [sys.executable, "-m", "perennial.cli", *given, SEARCHED, *TINY],
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=subprocess.DEVNULL,
        )
        while not list(tmp_path.glob(f"multirun/*/{number}/output.txt")):
            assert running.poll() is None
            time.sleep(0.05)
        time.sleep(2)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        time.sleep(0.5)
        assert alive(tmp_path) == 0
    done = train(tmp_path, *given, SEARCHED)
    assert done.returncode == 0, done.stderr
    assert "goes on after" in done.stdout
    found = told(tmp_path)
    assert found["counts"] == {"finished": WHOLE, "pruned": 0, "failed": 0}
    for values in (
        {json.dumps(one["params"]) for one in found["trials"]},
        {one["candidate"] for one in found["trials"]},
    ):
        assert len(values) == WHOLE
    again = train(tmp_path, *given, SEARCHED)
    assert again.returncode == 0
    assert told(tmp_path) == found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_chosen_trial_goes_through_the_gate_and_a_bad_one_stops_nothing(tmp_path: Path) -> None:
    given = ["-m", "sweep=optuna", "sweep.sampler=grid", "sweep.trials=null", "sweep.promote=best"]
    # more steps than TINY has, so that something is learned; the last batch size is none
    done = train(tmp_path, *given, "method.replay.new_fraction=0.3,0.6,7")
    found = told(tmp_path)
    assert found["counts"] == {"finished": 2, "pruned": 0, "failed": 1}
    assert "new_fraction" in next(o["reason"] for o in found["trials"] if o["state"] == "failed")
    assert "goes through the gate" in done.stdout
    (result,) = tmp_path.glob("multirun/*/promotion/result.json")
    decided = json.loads(result.read_text())
    assert decided["candidate"]["id"] == found["chosen"]["candidate"]
    assert done.returncode == decided["exit_code"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "process"])
def test_launchers_run_combinations_and_searches(tmp_path: Path, launcher: str) -> None:
    chosen = f"hydra/launcher={launcher}"
    done = train(tmp_path, "-m", chosen, "method.replay.new_fraction=0.2,0.5")
    assert done.returncode == 0, done.stderr
    assert "Best of 2 trials" in done.stdout
    given = ["-m", "sweep=optuna", chosen, "sweep.trials=2", "sweep.jobs=2", SEARCHED]
    secret = [f"sweep.storage=sqlite:///{tmp_path}/hunter9.db", "notify=webhook"]
    done = train(tmp_path, *given, *secret, "notify.url=https://127.0.0.1:1/t0ken")
    assert done.returncode == 0, done.stdout + done.stderr
    assert told(tmp_path)["counts"]["finished"] == 2
    for path in (path for path in tmp_path.glob("multirun/**/*") if path.is_file()):
        assert not {secret for secret in (b"hunter9", b"t0ken") if secret in path.read_bytes()}, (
            path
        )
