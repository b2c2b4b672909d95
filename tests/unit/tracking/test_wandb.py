from __future__ import annotations

import ast
import logging
import sys
from pathlib import Path

import pytest
import wandb

import perennial.tracking.wandb as module
from perennial.errors import ConfigError
from perennial.tracking.wandb import NoTracker, WandbTracker, resolve_mode

NOTHING = {"run_id": None, "url": None, "directory": None}


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    for name in ("API_KEY", "MODE", "BASE_URL", "IDENTITY_TOKEN_FILE", "DIR"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("prompted"))
    wandb.teardown()
    yield
    wandb.teardown()


def _start(tracker, folder):
    tracker.start(name="n", group="g", job_type="retrain", config={"a": 1}, folder=folder)


def test_no_tracker(tmp_path):
    tracker = NoTracker()
    _start(tracker, tmp_path / "x")
    tracker.summary({"a": 1})
    tracker.artifact(name="n", kind="model", files={}, aliases=[], metadata={})
    tracker.use(name="n", kind="model", files={}, aliases=[], metadata={})
    tracker.table("t", ["a"], [[1]])
    tracker.tag("promoted")
    tracker.finish(0)
    assert tracker.logger() is None
    assert tracker.identity() == NOTHING
    assert not (tmp_path / "x").exists()


def test_an_unknown_mode_is_refused():
    with pytest.raises(ConfigError, match="offlin"):
        WandbTracker(mode="offlin")


def test_mode_order(tmp_path, monkeypatch, caplog):
    assert resolve_mode(None) == "offline"
    assert resolve_mode("online") == "offline"
    assert "no API key" in caplog.text
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert resolve_mode(None) == "online"
    assert resolve_mode("disabled") == "disabled"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert resolve_mode(None) == "offline"
    assert resolve_mode("online") == "online"


def test_a_stored_login_means_online(tmp_path):
    assert resolve_mode(None) == "offline"
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {'k' * 40}\n")
    assert resolve_mode(None) == "online"


def test_disabled_leaves_nothing(tmp_path):
    tracker = WandbTracker(mode="disabled")
    _start(tracker, tmp_path / "runs")
    tracker.summary({"a": 1})
    assert tracker.identity() == NOTHING
    tracker.finish(0)
    tracker.finish(0)


def test_a_broken_client_stops_nothing(tmp_path, monkeypatch, caplog):
    def broken(**_):
        raise RuntimeError("postgresql://ann:hunter2@db")

    monkeypatch.setattr(wandb, "init", broken)
    tracker = WandbTracker(mode="offline")
    with caplog.at_level(logging.WARNING):
        _start(tracker, tmp_path)
    assert "not tracked" in caplog.text
    assert "hunter2" not in caplog.text
    tracker.summary({"a": 1})
    assert tracker.logger() is None
    assert tracker.identity() == NOTHING
    tracker.finish(0)


@pytest.mark.parametrize("argument", ["registry.url=postgresql://a:pw@db/r", "seed=1"])
def test_a_command_line_with_a_secret_is_not_recorded(argument, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(sys, "argv", ["train.py", argument])
    monkeypatch.setattr(wandb, "init", lambda **given: seen.update(given))
    module._init({}, mode="offline", finish_seconds=60)
    assert seen["settings"].x_disable_meta is ("pw" in argument)
    assert seen["settings"].console == "off"
    assert seen["reinit"] == "finish_previous"


def test_settings_of_a_group_whose_name_a_sweep_took_lie_beside_it():
    config = {"seed": 0, "method": {"ewc": {"strength": 0.1}}, "data": {"label": "y"}}
    taken = {"seed": 0, "method": "ewc", "data": {"label": "y"}}
    assert module._beside(config, taken) == {"method.ewc.strength": 0.1}
    assert module._beside(config, {**taken, "method.ewc.strength": 0.1}) == {}
    assert module._beside(config, config) == {}


def test_the_module_stays_light():
    tree = ast.parse(Path(module.__file__).read_text())
    names = {a.name for n in tree.body if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in tree.body if isinstance(n, ast.ImportFrom)}
    assert not names & {"wandb", "torch", "lightning", "lightning.pytorch.loggers"}
