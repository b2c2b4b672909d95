"""Trials of a real command that take no time: a result in their folder, by their settings."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from perennial.promotion.registry import Registry

SHARE = "method.replay.new_fraction"
Result = Callable[[dict[str, Any]], dict[str, Any]]


def settings(line: Sequence[str]) -> dict[str, Any]:
    """What a trial's command line sets."""
    words = [word for word in line if "=" in word and not word.startswith(("-", "/"))]
    parsed = OverridesParser.create().parse_overrides(words)
    return {one.key_or_group: one.value() for one in parsed}


def finished(given: dict[str, Any]) -> dict[str, Any]:
    """More new rows learn more and keep less."""
    share = float(given.get(SHARE, 0.5))
    curve = [{"step": 0, "new": 0.0, "history": 0.9, "combined": 0.45}]
    for step in (2, 4):
        new, history = share * step / 4, 0.9 - 0.1 * share
        curve.append({"step": step, "new": new, "history": history, "combined": new + history})
    scores = {name: value for name, value in curve[-1].items() if name != "step"}
    stood = {name: value for name, value in curve[0].items() if name != "step"}
    return {
        "status": "inconclusive",
        "exit_code": 0,
        "cycle_id": f"cycle-{share}",
        "candidate": {"id": f"digits@{share}"},
        "decision": {"verdict": "inconclusive"},
        "validation": {"champion": stood, "candidate": scores, "curve": curve},
        "task": {"unit": "points"},
        "cost": {"wall_seconds": 1.0},
        "trigger": {"kind": "manual", "due": True, "reason": "by hand", "evidence": {}},
        "error": None,
    }


def skipped(given: dict[str, Any]) -> dict[str, Any]:
    """As where the lineage has learned all rows."""
    return {
        **finished(given),
        "status": "skipped",
        "candidate": None,
        "validation": None,
        "trigger": {
            "kind": "manual",
            "due": True,
            "reason": "no row of data.new is new",
            "evidence": {},
        },
    }


def champion(home: Path, seed: int = 1) -> Registry:
    """A registry with a first version, of which nothing is ever opened."""
    home.mkdir(exist_ok=True)
    registry = Registry(url=f"sqlite:///{home}/registry.db")
    registry.commit(
        name="digits",
        files={},
        manifest={"seed": seed},
        decision=None,
        verdict="promoted",
        cycle_id=f"founded-{seed}",
        expected_champion=None if registry.champion("digits") is None else 1,
        promote=True,
        new_holdout=None,
    )
    return registry


class Quick:
    """A trial's process that has left a result already; ``started`` counts them in their folder.

    It stands in the place of ``subprocess.Popen``: Hydra imports its plugins anew in every run.
    """

    result: Result = staticmethod(finished)

    def __init__(self, line: Sequence[str], **given: Any) -> None:
        told = settings(line)
        folder = Path(told["hydra.run.dir"])
        (folder / "result.json").write_text(json.dumps(self.result(told)))
        with (folder.parent / "started").open("a") as log:
            log.write(f"{folder.name}\n")

    def __class_getitem__(cls, item: Any) -> type:
        return cls

    def poll(self) -> int:
        return 0


def quick(monkeypatch: pytest.MonkeyPatch, result: Result = finished) -> None:
    """Have trials leave a result instead of being run."""
    made = type("Quick", (Quick,), {"result": staticmethod(result)})
    monkeypatch.setattr(subprocess, "Popen", made)
