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
