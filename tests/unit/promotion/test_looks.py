"""What the registry remembers of looks at new rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from perennial.errors import RegistryError
from perennial.promotion import looks
from perennial.promotion.registry import Registry, Version
from support.postgres import BINARIES

START = datetime(2026, 11, 26, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def registry(request: Any, tmp_path: Path) -> Registry:
    if request.param == "sqlite":
        return Registry(url=f"sqlite:///{tmp_path}/registry.db")
    if not BINARIES:
        pytest.skip("PostgreSQL server not installed")
    return Registry(url=request.getfixturevalue("url"), files=str(tmp_path / "files"))


@pytest.fixture
def version(registry: Registry) -> Version:
    return registry.commit(
        name="fraud",
        files={"model": b"weights"},
        manifest={},
        decision=None,
        verdict="promoted",
        cycle_id="c",
        expected_champion=None,
        promote=True,
        new_holdout=None,
    )


def test_looks_come_back_in_their_order(registry: Registry, version: Version) -> None:
    assert registry.looks(version) == []
    for place, window in enumerate("ba"):
        now = START + timedelta(days=place)
        made = registry.keep_look(version, window, looked_at=now, found={"rows": place})
        assert (made.position, made.looked_at) == (place + 1, now)
    assert [(one.window, one.found) for one in registry.looks(version)] == [
        ("b", {"rows": 0}),
        ("a", {"rows": 1}),
    ]


def test_a_look_again_keeps_place_and_time(registry: Registry, version: Version) -> None:
    registry.keep_look(version, "a", looked_at=START, found={"rows": 1})
    registry.keep_look(version, "b", looked_at=START, found={})
    again = registry.keep_look(version, "a", looked_at=START + timedelta(days=1), found={"rows": 2})
    assert (again.position, again.looked_at, again.found) == (1, START, {"rows": 2})
    assert [one.window for one in registry.looks(version)] == ["a", "b"]


def test_the_oldest_go(
    registry: Registry, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "KEPT", 3)
    for window in "abcde":
        registry.keep_look(version, window, looked_at=START, found={})
    assert [(one.window, one.position) for one in registry.looks(version)] == [
        ("c", 3),
        ("d", 4),
        ("e", 5),
    ]


def test_what_is_not_plain_is_refused(registry: Registry, version: Version) -> None:
    with pytest.raises(RegistryError, match="cannot be stored"):
        registry.keep_look(version, "a", looked_at=START, found={"p": float("nan")})
