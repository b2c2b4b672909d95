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


def test_what_is_worn_above_is_learned_and_shoes_are_kept(
    run: Callable[..., dict[str, Any]],
) -> None:
    result = run(
        "experiment=fashion",
        "fraction=0.2",
        "trainer.max_steps=200",
        "trainer.validate_every=50",
        "gate.retention.margin=0.05",  # with a fifth of the rows, two points cannot be told
        "gate.retention.total=0.05",
        "seed=10",
    )
    assert result["error"] is None, result["error"]
    assert result["status"] == "promoted", result["decision"]
    candidate = result["metrics"]["candidate"]
    assert candidate["history"]["accuracy"] > 0.88
    assert candidate["new"]["accuracy"] > 0.5
    vetoes = {check["name"] for check in result["decision"]["checks"]}
    assert {"slice/history/class=sneaker", "slice/new/class=shirt"} <= vetoes


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


def test_intents_of_five_domains_are_learned_and_those_before_kept(
    run: Callable[..., dict[str, Any]],
) -> None:
    result = run(
        "experiment=intents",
        "per_domain=2",
        "per_intent=40",
        "model.classes=10",
        "data.memory.capacity=40",
        "trainer.max_steps=12",
        "trainer.validate_every=12",
    )
    assert result["error"] is None, result["error"]
    # 10 intents, 40 rows of each, one in ten of the first remembered, one pass
    assert result["data"]["new"]["rows"] == 10 * 40
    assert result["cost"]["replayed_rows"] == 12 * 32
    champion, candidate = (result["metrics"][one] for one in ("champion", "candidate"))
    assert champion["new"]["accuracy"] == 0
    assert candidate["new"]["accuracy"] > 0.85
    assert candidate["history"]["accuracy"] > 0.85


def test_a_week_of_films_is_learned_with_the_items_that_it_brings(
    run: Callable[..., dict[str, Any]],
) -> None:
    result = run("experiment=films", "week=4", "trainer.max_steps=40", "model.width=16")
    assert result["error"] is None, result["error"]
    assert len(result["data"]["new"]["new_classes"]) > 400
    before, after = (result["metrics"][who]["new"] for who in ("champion", "candidate"))
    assert after["recall@20"] > before["recall@20"]
