"""The services that keep a watcher running: their commands compose, and they let it stop."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from perennial.verbs.watch import parse
from support.pages import blocks

PAGE = (Path(__file__).parents[2] / "docs/how-to/when.md").read_text()
BLOCKS = {block.title: block.text for block in blocks(PAGE) if block.title}


def unit() -> ConfigParser:
    found = ConfigParser(interpolation=None)
    found.optionxform = str  # type: ignore[assignment, method-assign]
    # as systemd does: a line goes on after a backslash
    found.read_string(re.sub(r"\\\n\s*", "", BLOCKS["churn-watch.service"]))
    return found


def deployment() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(BLOCKS["watch.yaml"])
    assert (found["kind"], found["apiVersion"]) == ("Deployment", "apps/v1")
    return found["spec"]  # type: ignore[no-any-return]


def container() -> dict[str, Any]:
    (found,) = deployment()["template"]["spec"]["containers"]
    return found  # type: ignore[no-any-return]


def commands() -> list[list[str]]:
    return [
        shlex.split(unit()["Service"]["ExecStart"]),
        [*container()["command"], *container()["args"]],
    ]


@pytest.mark.parametrize("command", commands(), ids=["systemd", "kubernetes"])
def test_a_service_watches_with_settings_that_compose(command: list[str], tmp_path: Path) -> None:
    program, verb, *arguments = command
    # no shell lies between a signal and the watcher
    assert (Path(program).name, verb) == ("perennial", "watch")
    _, settings = parse(arguments)
    experiment = tmp_path / "conf" / "experiment" / "churn.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text("# @package _global_\nmodel_name: churn\n")
    done = subprocess.run(
        [sys.executable, "-m", "perennial.cli", *settings, "trigger=continuous", "--cfg", "job"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found = yaml.safe_load(done.stdout)
    assert (found["model_name"], found["data"]["new"]) == ("churn", "rows")
    assert found["trigger"]["minimum_rows"] == 1000


def test_systemd_starts_what_failed_again_and_leaves_time_to_stop() -> None:
    service = unit()["Service"]
    program = shlex.split(service["ExecStart"])[0]
    assert Path(program).is_absolute()  # systemd asks for it
    assert program.startswith(f"{service['WorkingDirectory']}/")
    assert (service["KillMode"], service["Restart"]) == ("mixed", "on-failure")
    assert int(service["TimeoutStopSec"]) >= 120
    assert "KillSignal" not in service  # SIGTERM, which a watcher listens to
    assert unit()["Install"]["WantedBy"] == "multi-user.target"


def test_kubernetes_never_has_two_watchers_of_a_lineage() -> None:
    spec = deployment()
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    template = spec["template"]
    assert spec["selector"]["matchLabels"] == template["metadata"]["labels"]
    assert template["spec"]["terminationGracePeriodSeconds"] >= 120
    names = {volume["name"] for volume in template["spec"]["volumes"]}
    assert {mount["name"] for mount in container()["volumeMounts"]} == names
