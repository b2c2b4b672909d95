"""W&B's own sweep and agent run the YAMLs that ship, and the workspace shows keys that exist."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from support.wandb_server import WandbServer

ROOT = Path(__file__).parents[2]
SWEEPS = ROOT / "conf" / "sweep" / "wandb"
NAMES = ["methods", "replay"]
SHORT = ["trainer.max_steps=20", "trainer.validate_every=10", "trainer.accelerator=cpu"]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def environment(folder: Path, url: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_") and k != "NETRC"}
    places = {f"WANDB_{name}_DIR": str(folder / name) for name in ("CONFIG", "CACHE", "DATA")}
    return {
        **kept, **places, "HOME": str(folder), "NETRC": str(folder / "netrc"),
        "PERENNIAL_HOME": str(folder / "home"), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}",
        "WANDB_BASE_URL": url, "WANDB_API_KEY": "k" * 40,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
def test_the_agent_runs_what_the_file_says(name: str, tmp_path: Path) -> None:
    given = yaml.safe_load((SWEEPS / f"{name}.yaml").read_text())
    given["command"][-1:-1] = SHORT
    place = tmp_path / "conf" / "sweep" / "wandb" / f"{name}.yaml"
    place.parent.mkdir(parents=True)
    place.write_text(yaml.safe_dump(given))
    command = (SWEEPS / f"{name}.yaml").read_text().splitlines()[0].removeprefix("# ")
    command = re.sub(r"wandb agent( --count \d+)?", "wandb agent --count 2", command, count=1)
    with WandbServer() as server:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment(tmp_path, server.url),
            capture_output=True, text=True, timeout=800, check=False,
        )  # fmt: skip
        told = done.stdout + done.stderr
        assert done.returncode == 0, told
        expected = {"replay": ["trial0"], "methods": ["trial0", "trial1"]}[name]
        assert sorted(server.runs) == expected, told
        for run in expected:
            assert server.exit_codes[run] == 0
            assert server.runs[run]["jobType"] == "trial"
            assert server.runs[run]["groupName"] == "digits"
            assert server.summary(run)["decision/trial"] is True
            assert server.summary(run)["decision/applied"] is False
            assert isinstance(server.summary(run)[given["metric"]["name"]], float)
        first = server.config("trial0")
        if name == "replay":
            assert first["method"]["replay"]["new_fraction"] == 0.1
            assert first["method"]["ewc"]["strength"] == 0.01
        else:  # the sweep has taken the group's name: its settings lie beside it
            assert first["method"] == "none"
            assert server.config("trial1")["seed"] == 1
        assert "champion" not in server.called("digits")


def test_every_sweep_is_run_by_a_test() -> None:
    assert {path.stem for path in SWEEPS.glob("*.yaml")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_sweep_composes(name: str, compose: Any) -> None:
    given = yaml.safe_load((SWEEPS / f"{name}.yaml").read_text())
    assert given["command"] == ["${env}", "perennial", "train", "${args_no_hyphens}"]
    for key, one in given["parameters"].items():
        for value in one.get("values") or [one["min"], one["max"]]:
            compose(f"{key}={value}")
    assert given["metric"] == {"name": "validation/best", "goal": "maximize"}


def test_a_sweep_of_wandb_is_no_choice_of_hydra(verb: Any) -> None:
    code, _, errors = verb("train", "sweep/wandb=replay")
    assert code == 1
    assert "sweep/wandb" in errors
    assert "wandb/replay" not in verb("train", "--help")[1]


def documented() -> list[re.Pattern[str]]:
    text = (ROOT / "docs" / "reference" / "tracking.md").read_text()
    keys = re.findall(r"^\| `([^`]+/[^`]+)`", text, re.MULTILINE)
    return [re.compile(re.sub(r"<[^>]+>", r".+", key)) for key in keys]


def keys(value: Any) -> set[str]:
    """Every text of a nested value that looks like a key of a run."""
    if isinstance(value, dict):
        return {key for one in value.values() for key in keys(one)}
    if isinstance(value, list):
        return {key for one in value for key in keys(one)}
    found = re.fullmatch(r"(?:summary:)?([a-z]+/[\w/]+)", value) if isinstance(value, str) else None
    return {found[1]} if found else set()


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")
def test_the_workspace_shows_documented_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    script = load(ROOT / "scripts" / "wandb_workspace.py")
    with WandbServer() as server:
        for name, value in environment(tmp_path, server.url).items():
            monkeypatch.setenv(name, value)
        wandb.teardown()
        script.main(["--entity", "team", "--project", "perennial", "--model", "digits"])
        wandb.teardown()
    assert "/team/perennial?nw=" in capsys.readouterr().out
    (view,) = server.views
    spec = json.loads(view["spec"])
    shown = keys(spec)
    patterns = documented()
    assert not [key for key in shown if not any(one.fullmatch(key) for one in patterns)]
    assert {
        "plasticity/candidate", "retention/candidate", "validation/combined", "training/loss",
        "cost/wall_seconds", "decision/verdict", "tables/checks",
    } <= shown  # fmt: skip
    sections = spec["section"]["panelBankConfig"]["sections"]
    kinds = {panel["viewType"] for one in sections for panel in one["panels"]}
    assert {"Scatter Plot", "Run History Line Plot", "Bar Chart"} <= kinds
