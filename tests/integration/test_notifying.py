"""A cycle's end is told to whom it may concern, and nothing secret with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from perennial.launch import run_job
from perennial.promotion.registry import Registry
from perennial.steps import tell

Run = Callable[..., dict[str, Any]]
SHORT = ("trainer.max_steps=300", "trainer.validate_every=100", "gate.retention=waived")
KEEP = """
import json, os, sys
with open(sys.argv[1], "a") as file:
    file.write(json.dumps([os.environ["PERENNIAL_STATUS"], json.load(sys.stdin)]) + "\\n")
"""


class Stopped(BaseException):
    """The process was killed here."""


@pytest.fixture
def listening(tmp_path: Path) -> tuple[str, ...]:
    script = tmp_path / "keep.py"
    script.write_text(KEEP)
    command = f"notify.command=[{sys.executable},{script},{tmp_path / 'kept'}]"
    return (
        "notify=command",
        command,
        "notify.when=[promoted,rejected,inconclusive,failed,skipped]",
    )


def kept(tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "kept"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    assert all(status == message["status"] for status, message in lines)
    return [message for _, message in lines]


def test_every_end_is_told_once(run: Run, listening: tuple[str, ...], tmp_path: Path) -> None:
    done = run(*SHORT, *listening)
    assert done["status"] == "promoted"
    (told,) = kept(tmp_path)
    assert (told["champion"], told["candidate"]) == ("digits@1", "digits@2")
    assert (told["exit_code"], told["applied"], told["report"]) == (0, True, done["report"])
    assert told["text"].startswith("digits, promoted: digits@2 serves now in place of digits@1")
    assert [check["name"] for check in told["checks"]][:2] == ["retention", "improvement"]
    run(*SHORT, *listening)
    run(*SHORT, *listening, "data=files", "data.new=nowhere.csv", "data.history=nowhere.csv")
    run(*SHORT, *listening, "optimizer.lr=abc")
    assert [one["status"] for one in kept(tmp_path)] == ["promoted", "skipped", "failed", "failed"]
    assert kept(tmp_path)[2]["error"]["what"]


def test_who_is_told_does_not_make_another_cycle(run: Run, listening: tuple[str, ...]) -> None:
    first = run(*SHORT, "promote=false")
    again = run(*SHORT, "promote=false", *listening)
    assert (again["status"], again["config_sha256"]) == ("skipped", first["config_sha256"])


def test_a_run_killed_before_it_could_tell_is_told_by_the_next(
    run: Run, listening: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tell, "notify", lambda *_, **__: (_ for _ in ()).throw(Stopped))
        with pytest.raises(Stopped):
            run(*SHORT, *listening)
    assert kept(tmp_path) == []
    assert run(*SHORT, *listening)["status"] == "promoted"
    assert [one["candidate"] for one in kept(tmp_path)] == ["digits@2"]
    assert run(*SHORT, *listening)["status"] == "skipped"
    assert [one["status"] for one in kept(tmp_path)] == ["promoted", "skipped"]


def test_a_run_killed_while_it_tells_tells_again(
    run: Run, listening: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Registry.remove_work_folder

    def killed(registry: Registry, cycle_id: str) -> None:
        if registry.aliases("digits")["candidate"] == 2:
            raise Stopped
        original(registry, cycle_id)

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "remove_work_folder", killed)
        with pytest.raises(Stopped):
            run(*SHORT, *listening)
    run(*SHORT, *listening)
    assert [one["status"] for one in kept(tmp_path)] == ["promoted", "promoted"]


def test_dry_runs_and_trials_tell_nobody(
    run: Run,
    compose: Callable[..., dict[str, Any]],
    listening: tuple[str, ...],
    tmp_path: Path,
) -> None:
    for dry, multirun in ((True, False), (False, True)):
        for broken in ((), ("optimizer.lr=abc",)):
            folder = tmp_path / f"{dry}-{len(broken)}"
            folder.mkdir()
            extra = ("debug=dry",) if dry else ("tracking=none",)
            config = compose(*SHORT, *listening, *extra, *broken, "trainer.accelerator=cpu")
            result, _ = run_job(config, folder=folder, multirun=multirun)
            assert (result["status"] == "failed") == bool(broken)
    assert kept(tmp_path) == []


@pytest.mark.parametrize("command", ["[no-such-program]", "[sh,-c,'exit 7']"])
def test_trouble_is_a_line_and_changes_nothing(
    run: Run, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(*SHORT, "notify=command", f"notify.command={command}")
    assert (done["status"], done["exit_code"], done["error"]) == ("promoted", 0, None)
    said = [line for line in capsys.readouterr().out.splitlines() if "Notification" in line]
    assert len(said) == 1
    assert run(*SHORT)["status"] == "skipped"  # it was told as far as it could be


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[Any]]]:
    got: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", got
    server.shutdown()
    server.server_close()


def test_address_and_headers_are_kept_nowhere(hook: tuple[str, list[Any]], tmp_path: Path) -> None:
    """Given on the command line, which is the worst place."""
    url, got = hook
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [
            *(sys.executable, str(root / "train.py"), "trainer.accelerator=cpu", *SHORT),
            *("tracking=wandb", "tracking.mode=offline", "notify=webhook"),
            f"notify.url='{url}/services/hunter2secret?a=b'",
            "notify.headers={Authorization: 'Bearer hunter3secret'}",
        ],
        cwd=tmp_path,
        env={**os.environ, "no_proxy": "127.0.0.1", "WANDB_SILENT": "true"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [one["status"] for one in got] == ["promoted"]
    line = next(line for line in done.stdout.splitlines() if "Notification" in line)
    assert (
        line.strip()
        == f"Notification: {url.removeprefix('http://')} was not told: it answered 500."
    )
    assert "hunter" not in done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"overrides.yaml", "config.yaml", "result.json"} <= {path.name for path in files}
    assert [path for path in files if b"hunter" in path.read_bytes()] == []
