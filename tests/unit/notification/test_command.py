"""A message to a real program."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from perennial.errors import ConfigError, NotificationError
from perennial.notification import Command, Silent

MESSAGE = {
    "status": "rejected",
    "model": "digits",
    "champion": "digits@1",
    "candidate": "digits@2",
    "report": None,
    "text": "é" * 200_000,
}
KEEP = """
import json, os, sys
told = {name: value for name, value in os.environ.items() if name.startswith("PERENNIAL_")}
with open(sys.argv[1], "w") as file:
    json.dump([json.load(sys.stdin), told, sys.argv[2:]], file)
"""


def python(text: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", text, *arguments]


def test_the_program_gets_the_message_its_arguments_and_the_environment(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERENNIAL_HOME", "/kept")
    kept = tmp_path / "kept.json"
    Command(command=python(KEEP + "print('noise')", str(kept), "$HOME; *")).send(MESSAGE)
    given, told, arguments = json.loads(kept.read_text())
    assert given == MESSAGE
    assert told == {
        "PERENNIAL_HOME": "/kept",
        "PERENNIAL_STATUS": "rejected",
        "PERENNIAL_MODEL": "digits",
        "PERENNIAL_CHAMPION": "digits@1",
        "PERENNIAL_CANDIDATE": "digits@2",
        "PERENNIAL_REPORT": "",
    }
    assert arguments == ["$HOME; *"]  # no shell
    assert capfd.readouterr() == ("", "")


def trouble(command: list[str], *, timeout: float = 30.0) -> str:
    with pytest.raises(NotificationError) as caught:
        Command(command=command, timeout=timeout).send(MESSAGE)
    return caught.value.what


def test_a_missing_and_a_forbidden_program_are_said(tmp_path: Path) -> None:
    assert trouble(["no-such-program"]) == (
        "no-such-program could not be started: No such file or directory."
    )
    (tmp_path / "plain").write_text("")
    assert trouble([str(tmp_path / "plain")]).endswith("could not be started: Permission denied.")
    assert trouble(["a\0b"]).endswith("could not be started: ValueError.")


def test_a_failure_is_said_with_its_last_line() -> None:
    failing = "import sys; sys.stderr.write('first\\nno channel\\n'); sys.exit(3)"
    assert trouble(python(failing)) == f"{sys.executable} ended with 3: no channel."
    assert trouble(python("raise SystemExit(4)")) == f"{sys.executable} ended with 4."


def test_a_program_that_hangs_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    hang = (
        "import subprocess, sys, time, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "pathlib.Path(sys.argv[1]).write_text(str(child.pid))\n"
        "time.sleep(60)"
    )
    assert trouble(python(hang, str(child)), timeout=2).endswith("was stopped after 2 seconds.")
    state = Path(f"/proc/{child.read_text()}/stat")
    for _ in range(100):  # it is somebody else's to bury
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("it runs on")


def test_what_a_program_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    child = tmp_path / "child"
    leave = (
        "import subprocess, sys, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "pathlib.Path(sys.argv[1]).write_text(str(child.pid))"
    )
    started = time.monotonic()
    Command(command=python(leave, str(child)), timeout=30).send(MESSAGE)  # else it were stopped
    left = int(child.read_text())
    assert Path(f"/proc/{left}").exists()  # it runs on, and for a minute
    assert time.monotonic() - started < 30
    os.kill(left, 9)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"command": "echo hello"}, "notify.command"),
        ({"command": []}, "notify.command"),
        ({"command": ["echo", 3]}, "notify.command"),
        ({"when": "never"}, "notify.when"),
        ({"timeout": -1}, "notify.timeout"),
    ],
)
def test_odd_settings_are_refused(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Command(**{"command": ["true"], **changes})
    assert caught.value.where == where


def test_nobody_listens_to_nothing() -> None:
    assert not Silent.when
    Silent().send(MESSAGE)
