"""A cycle killed at any instant leaves the registry whole, and the same command then finishes.

Everything heavy is imported once, here, unused or not; each case is a fork that kills itself with
SIGKILL at its n-th write, sync, rename or database call, or is killed from outside after a random
time.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jinja2  # noqa: F401
import pytest
import sklearn.datasets  # noqa: F401
import torch

from perennial import (
    clock,
    cycle,  # noqa: F401
    launch,
)
from perennial.data import digits
from perennial.models import reference  # noqa: F401
from perennial.promotion.registry import Registry
from perennial.steps import page, record, settings
from perennial.steps.candidate import view
from perennial.tasks import classification  # noqa: F401
from perennial.tracking import wandb  # noqa: F401
from support.killed import Points, wait

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

OVERRIDES = (
    "tracking=none",
    "trainer.accelerator=cpu",
    "trainer.max_steps=4",
    "trainer.validate_every=2",
    "trainer.resume_seconds=0",
    "trainer.batch_size=32",
)


def in_fork(config: dict[str, Any], folder: Path, kill_at: int | None = None) -> int:
    """Start a cycle in a fork; returns its process id."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.environ["PERENNIAL_HOME"] = str(folder / "home")
        torch.set_num_threads(1)
        points = Points(kill_at)
        points.install()
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 1)
            run_folder = folder / f"run-{time.time_ns()}"
            run_folder.mkdir()
            result, _ = launch.run_job(config, folder=run_folder, multirun=False)
        (folder / "count").write_text(str(points.count))
        code = result["exit_code"]
    finally:
        os._exit(code)


def check_and_finish(config: dict[str, Any], folder: Path, *, finished: bool) -> None:
    """The registry is consistent now, and after the same command too, which ends as it should."""
    check_registry(folder)
    code = wait(in_fork(config, folder))
    # 10: killed after the commit, so the cycle had been decided
    assert code in ((0, 20, 21, 10) if not finished else (10,))
    assert check_registry(folder) is not None
    assert list((folder / "home").rglob(".tmp-*")) == []


def check_registry(folder: Path) -> str | None:
    url = config_url(folder)
    registry = Registry(url=url)
    champion = registry.champion("digits")
    if champion is None:
        assert registry.versions("digits") == []
        return None
    for path in champion.files:
        champion.open(path)
    assert view(champion).weights
    return champion.id


def config_url(folder: Path) -> str:
    return f"sqlite:///{folder}/home/registry.db"


@pytest.fixture
def composed(
    compose: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    # most of such a short cycle, and none of it writes, renames or asks the database
    environment = settings.capture("cpu")
    for module in (record, settings):
        monkeypatch.setattr(module, "capture", lambda device: environment)
    monkeypatch.setattr(page, "render_report", lambda **parts: "<p>report</p>")
    monkeypatch.setattr(digits, "digits", functools.cache(digits.digits))
    config = compose(*OVERRIDES)
    for name in ("history", "new"):
        arguments = {k: v for k, v in config["data"][name].items() if k != "_target_"}
        digits.digits(**arguments)
    return functools.partial(compose, *OVERRIDES)


@pytest.fixture
def config(composed: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return composed()


def placed(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    folder.mkdir()
    return again(config, folder)


@pytest.fixture
def points(config: dict[str, Any], tmp_path: Path) -> int:
    folder = tmp_path / "count"
    assert wait(in_fork(placed(config, folder), folder)) in (0, 20, 21)
    return int((folder / "count").read_text())


@pytest.mark.parametrize("share", range(4))
def test_killed_at_every_write_and_database_call(
    config: dict[str, Any], points: int, tmp_path: Path, share: int
) -> None:
    assert points > 50
    for point in range(1 + share, points + 1, 4):
        folder = tmp_path / f"at-{point}"
        here = placed(config, folder)
        assert wait(in_fork(here, folder, kill_at=point)) is None, point
        check_and_finish(here, folder, finished=False)


def test_killed_at_random_moments(config: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "whole"
    started = time.monotonic()
    assert wait(in_fork(placed(config, folder), folder)) in (0, 20, 21)
    duration = time.monotonic() - started
    generator = random.Random(0)
    killed = 0
    for case in range(20):
        folder = tmp_path / f"random-{case}"
        here = placed(config, folder)
        child = in_fork(here, folder)
        time.sleep(generator.uniform(0.05, 0.95) * duration)
        os.kill(child, signal.SIGKILL)
        code = wait(child)
        killed += code is None
        check_and_finish(here, folder, finished=code is not None)
    assert killed >= 10


TRIGGER = (
    "trigger=all",
    "+trigger@trigger.of.weekly=schedule",
    "trigger.of.weekly.every=7d",
    "+trigger@trigger.of.rows=continuous",
    "trigger.cooldown=1d",
    "trigger.budget.cycles=1",
    "trigger.budget.period=7d",
)
START = datetime(2026, 11, 26, tzinfo=UTC)


def test_a_cycle_that_was_due_and_killed_goes_on_under_its_trigger(
    composed: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    def at(config: dict[str, Any], folder: Path, kill_at: int | None = None, **span: float) -> Any:
        with clock.read_from(lambda: START + timedelta(**span)):
            return wait(in_fork(config, folder, kill_at))

    config, before = composed("seed=1", *TRIGGER), tmp_path / "before"
    assert at(placed(composed(), before), before) in (0, 20, 21)
    counting = tmp_path / "counting"
    shutil.copytree(before, counting)
    assert at(again(config, counting), counting, days=30) in (0, 20, 21)
    points = int((counting / "count").read_text())
    assert points > 30
    for point in range(1, points + 1, 17):
        folder = tmp_path / f"at-{point}"
        shutil.copytree(before, folder)
        here = again(config, folder)
        assert at(here, folder, kill_at=point, days=30) is None, point
        # whether it was decided or not, the next call tells a verdict and not that nothing is due
        last = point + 4 > points
        assert at(here, folder, days=30, hours=1) in ((0, 20, 21, 10) if last else (0, 20, 21)), (
            point
        )
        records = Registry(url=config_url(folder)).cycles("digits")
        assert [one.number for one in records if one.champion is not None] == [1, 1], point
        assert not list((folder / "home" / "cycles").glob("*")), point
        assert at(here, folder, days=30, hours=2) == 10, point


def again(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A configuration for a folder that has a registry."""
    return {**config, "registry": {**config["registry"], "url": config_url(folder)}}
