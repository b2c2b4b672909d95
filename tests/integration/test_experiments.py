"""Experiments on real data, in a reduced form, where PERENNIAL_DATA says that it is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("PERENNIAL_DATA" not in os.environ, reason="PERENNIAL_DATA is not set"),
]


def test_attacks_of_types_never_seen_are_found_after_one_cycle(
    run: Callable[..., dict[str, Any]],
) -> None:
    result = run("experiment=intrusions", "every=20", "trainer.max_steps=400")
    assert result["error"] is None, result["error"]
    assert result["status"] == "promoted", result["decision"]
    checks = {check["name"]: check for check in result["decision"]["checks"]}
    unseen = checks["slice/new/kind=unseen attack"]
    assert unseen["estimate"] > 0.3
    assert "%" in unseen["reason"]  # before and after
    assert result["metrics"]["candidate"]["history"]["accuracy"] > 0.99


def test_windows_of_calls_are_learned_one_after_another(run: Callable[..., dict[str, Any]]) -> None:
    for window in (2, 3, 4):
        result = run("experiment=campaigns", f"window={window}", "trainer.max_steps=60")
        assert result["error"] is None, result["error"]
        names = {check["name"] for check in result["decision"]["checks"]}
        assert {"retention", "improvement"} <= names
    # of the three windows that it reads, no row that a version has learned is new again
    assert result["data"]["new"]["rows"] < 3 * 4119
    held = [name for name in result["metrics"]["champion"] if name.startswith("history/")]
    assert held[0] == "history/cycle-1"


def test_a_week_of_films_is_learned_with_the_items_that_it_brings(
    run: Callable[..., dict[str, Any]],
) -> None:
    result = run("experiment=films", "week=4", "trainer.max_steps=40", "model.width=16")
    assert result["error"] is None, result["error"]
    assert len(result["data"]["new"]["new_classes"]) > 400
    before, after = (result["metrics"][who]["new"] for who in ("champion", "candidate"))
    assert after["recall@20"] > before["recall@20"]
