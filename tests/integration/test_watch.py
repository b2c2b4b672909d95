"""``perennial watch`` for real: a folder grows, a watcher is killed, and one runs at a time."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perennial.cli import main
from perennial.errors import ConfigError
from perennial.promotion.registry import Registry
from perennial.verbs import watch
from perennial.verbs.watch import parse, triggered

SETTINGS = (
    "data=files",
    "model_name=daily",
    "model.inputs=2",
    "model.classes=2",
    "trainer.max_steps=60",
    "trainer.accelerator=cpu",
    "optimizer.lr=0.01",
    "tracking=none",
    "gate.retention.margin=0.1",
    "gate.retention.total=0.2",
    "gate.slices.classes=false",
    "trigger.minimum_rows=300",
    "data.history={partitions: days, until: 2026-11-01}",
    "data.new=days",
)


def write(folder: Path, day: int, rows: int = 1000) -> None:
    generator = np.random.default_rng(day)
    label = generator.integers(0, 2, rows)
    told, noise = generator.normal(3 * label - 1.5, 1), generator.normal(size=rows)
    x, y = (told, noise) if day == 1 else (noise, told)
    frame = pd.DataFrame({"x": x, "y": y, "label": label})
    (folder / "days").mkdir(exist_ok=True)
    frame.to_csv(folder / "days" / f"2026-11-{day:02}.csv", index=False)


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(home: Path, tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def watch(*flags: str) -> subprocess.Popen[str]:
        command = "import sys; from perennial.cli import main; sys.argv[0] = 'perennial'; main()"
        with (tmp_path / f"watch-{len(started)}.txt").open("w") as output:
            one = subprocess.Popen(
                [sys.executable, "-c", command, "watch", "--every", "1s", *SETTINGS, *flags],
                cwd=tmp_path,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        started.append(one)
        return one

    yield watch
    for one in started:
        one.kill()
        one.wait()


def until(done: Callable[[], Any], watcher: subprocess.Popen[str]) -> Any:
    """Wait for something that the watcher is to bring about."""
    while not (found := done()):
        assert watcher.poll() is None, "the watcher ended"
        time.sleep(0.05)
    return found


def verdicts(home: Path) -> list[str]:
    registry = Registry(url=f"sqlite:///{home / 'registry.db'}")
    return [record.verdict for record in registry.cycles("daily") if record.champion is not None]


def children(process: subprocess.Popen[str]) -> list[int]:
    told = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(one) for one in told.split()]


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    try:
        return "State:\tZ" not in status.read_text()
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_a_folder_is_followed_by_one_watcher_that_can_be_killed(
    start: Start, home: Path, tmp_path: Path
) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    watcher = start()
    until(lambda: len(verdicts(home)) == 1, watcher)

    other = start()
    assert other.wait(timeout=300) == 1
    assert "Another process watches this lineage" in (tmp_path / "watch-1.txt").read_text()

    write(tmp_path, 3)
    (child,) = until(lambda: children(watcher), watcher)
    until(lambda: list((home / "cycles").glob("*/lock")), watcher)  # in the midst of the cycle
    watcher.kill()
    watcher.wait()
    while alive(child):
        time.sleep(0.05)
    assert len(verdicts(home)) == 1

    again = start()
    until(lambda: len(verdicts(home)) == 2, again)
    again.send_signal(signal.SIGTERM)
    assert again.wait(timeout=300) == 0
    told = (tmp_path / "watch-2.txt").read_text()
    assert "stopped; started again it goes on" in told
    assert "Traceback" not in told
    assert not list((home / "cycles").glob("*"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_fails_at_once_is_told_and_what_fails_later_is_tried_again(
    start: Start, home: Path, tmp_path: Path
) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    wrong = start("gate.alpha=2")
    assert wrong.wait(timeout=300) == 1
    assert "gate.alpha" in (tmp_path / "watch-0.txt").read_text()

    watcher = start("--longest-pause", "3s")
    until(lambda: len(verdicts(home)) == 1, watcher)
    broken = tmp_path / "days" / "2026-11-03.csv"
    broken.write_text("x,y,label\n1,2\n")
    output = tmp_path / "watch-1.txt"
    until(lambda: output.read_text().count("the cycle failed (exit 30)") >= 2, watcher)
    write(tmp_path, 3)
    until(lambda: len(verdicts(home)) == 2, watcher)
    watcher.send_signal(signal.SIGINT)
    assert watcher.wait(timeout=300) == 0
    results = [json.loads(p.read_text()) for p in tmp_path.glob("outputs/*/*/result.json")]
    assert {one["exit_code"] for one in results} <= {0, 1, 20, 21, 30}  # of skipped ones none stays


@pytest.mark.parametrize(
    ("given", "added"),
    [
        (["data.new=days"], ["trigger=continuous"]),
        (["data.new=days", "trigger=manual"], []),
        (["experiment=nightly"], []),
    ],
)
def test_a_trigger_that_an_experiment_names_is_the_one_that_is_asked(
    given: list[str], added: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tmp_path / "own" / "experiment" / "nightly.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text(
        "# @package _global_\n"
        "defaults: [{override /trigger: schedule}]\n"
        "data: {new: days}\ntrigger: {cron: '0 3 * * *'}\n"
    )
    monkeypatch.chdir(tmp_path)
    settings = ["data=files", "data.history=days", *given, f"--config-dir={tmp_path / 'own'}"]
    monkeypatch.setattr(sys, "argv", ["perennial", "watch", *settings])
    followed: list[list[str]] = []
    monkeypatch.setattr(
        "perennial.verbs.watch.follow", lambda **told: followed.append(told["settings"])
    )
    main()
    assert followed == [[*settings, *added]]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["table", "files"])
def test_a_table_and_a_stream_of_files_are_followed(
    start: Start, home: Path, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "stream").mkdir()
    database = sqlite3.connect(tmp_path / "rows.db")

    def arrive(day: int) -> None:
        write(tmp_path, day)
        path = tmp_path / "days" / f"2026-11-{day:02}.csv"
        pd.read_csv(path).to_sql("calls", database, index=False, if_exists="append")
        path.rename(tmp_path / "stream" / f"rows_{day}.csv")

    write(tmp_path, 1)
    (tmp_path / "days" / "2026-11-01.csv").rename(tmp_path / "past.csv")
    arrive(2)
    url = f"sqlite:///{tmp_path / 'rows.db'}"
    new = f"{{sql: select * from calls, url: '{url}'}}" if kind == "table" else "stream"
    watcher = start("data.history=past.csv", f"data.new={new}")
    until(lambda: len(verdicts(home)) == 1, watcher)
    arrive(3)
    until(lambda: len(verdicts(home)) == 2, watcher)
    watcher.send_signal(signal.SIGTERM)
    assert watcher.wait(timeout=300) == 0
    database.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--every", "soon"], "no span of time"),
        (["--every", "2h"], "look every 7200 s"),
        (["-m", "seed=0,1"], "one cycle at a time"),
    ],
)
def test_what_a_watch_cannot_do_is_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(arguments)


def test_a_cycle_that_takes_a_while_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    assert watch._ask(["--help"], told.append).code == 0
    assert not told
    monkeypatch.setattr(watch, "_QUIET_SECONDS", 0.0)
    asked = watch._ask(["--help"], told.append)
    assert "Exit codes" in (asked.folder / "output.txt").read_text()
    (line,) = told
    assert line.endswith(str(asked.folder.relative_to(tmp_path) / "output.txt"))


@pytest.mark.parametrize(
    ("settings", "configured", "added"),
    [
        (["seed=1"], "manual", ["trigger=continuous"]),
        (["trigger=manual"], "manual", []),
        (["trigger=drift"], "drift", []),
        (["experiment=churn"], "drift", []),
    ],
)
def test_a_trigger_that_an_experiment_chooses_is_kept(
    settings: list[str], configured: str, added: list[str]
) -> None:
    assert triggered(settings, chosen=configured) == [*settings, *added]
