"""A look at new rows that is killed at any instant: the same command again gives the same."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from perennial.monitoring.performance import thresholds
from perennial.promotion.registry import Registry
from perennial.reporting import monitor_page
from support.killed import Points, wait
from support.looks import found, labels, look, unlabelled

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def in_fork(home: Path, folder: Path, *given: Any, days: float, kill_at: int | None = None) -> int:
    """Look at rows in a fork; returns its process id."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        torch.set_num_threads(1)
        points = Points(kill_at)
        points.install()
        code, _, _ = look(home, folder, *given, days=days)
        (folder / "count").write_text(str(points.count))
    finally:
        os._exit(code)


def told(folder: Path) -> dict[str, Any]:
    """What does not depend on when it was looked at."""
    found: dict[str, Any] = json.loads((folder / "monitor.json").read_text())
    for shift in found["drift"]["shifts"]:
        shift.pop("since")
    for window in found["windows"]:
        window.pop("looked_at")
    return {key: value for key, value in found.items() if key not in ("created", "page")}


def test_killed_at_every_sixth_write_or_database_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor_page, "render_look", lambda told: "<p>page</p>")
    # what takes most of a look, and writes and asks nothing
    real, known = thresholds.watch, []

    def watch(*given: Any, **more: Any) -> thresholds.Watch:
        if not known:
            known.append(real(*given, **more))
        return known[0]

    monkeypatch.setattr(thresholds, "watch", watch)
    before = tmp_path / "before"
    found(before)
    look(before, tmp_path / "first", unlabelled(tmp_path, 20))
    new, late = unlabelled(tmp_path, 21, shift=2.0), labels(tmp_path, 20)
    given = (new, f"monitor.labels={late}")
    whole = tmp_path / "whole"
    shutil.copytree(before, tmp_path / "here")
    look(tmp_path / "here", tmp_path / "here" / "out", *given, days=1)
    assert known
    shutil.copytree(before, whole)
    assert wait(in_fork(whole, whole / "out", *given, days=1)) == 40
    expected, points = told(whole / "out"), int((whole / "out" / "count").read_text())
    assert expected["performance"]["scored"] == 200
    assert points > 30
    for point in range(1, points + 1, 13):
        home = tmp_path / f"at-{point}"
        shutil.copytree(before, home)
        assert wait(in_fork(home, home / "out", *given, days=1, kill_at=point)) is None, point
        assert wait(in_fork(home, home / "out", *given, days=2)) == 40, point
        assert told(home / "out") == expected, point
        once = (home / "out" / "monitor.json").read_bytes()
        assert wait(in_fork(home, home / "out", *given, days=3)) == 40, point
        assert (home / "out" / "monitor.json").read_bytes() == once, point
        registry = Registry(url=f"sqlite:///{home / 'registry.db'}")
        assert len(registry.windows("fraud", 1)) == 2, point
        assert len(registry.looks(registry.version("fraud@1"))) == 2, point
        assert not list(home.rglob(".tmp-*")), point
        shutil.rmtree(home)
