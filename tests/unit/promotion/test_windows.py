"""Windows of recorded predictions in the registry: whole or not at all, on both databases."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perennial.errors import RegistryError
from perennial.promotion.registry import Registry, Version
from perennial.promotion.windows import Content
from support.postgres import BINARIES

DATABASES = ["sqlite", "remote files", "postgresql"]


@pytest.fixture(params=DATABASES)
def registry(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / "home"))
    if request.param == "postgresql":
        if not BINARIES:
            pytest.skip("PostgreSQL server not installed")
        yield Registry(url=request.getfixturevalue("url"), files=str(tmp_path / "files"))
        return
    files = None if request.param == "sqlite" else f"memory://{uuid.uuid4().hex}"
    yield Registry(url=f"sqlite:///{tmp_path}/registry.db", files=files)


def commit(registry: Registry, expected: int | None = None, name: str = "a") -> Version:
    return registry.commit(
        name=name,
        files={"model": b"weights"},
        manifest={"of": f"{name}-{expected}"},
        decision=None,
        verdict="promoted",
        cycle_id=f"{name}-{expected}",
        expected_champion=expected,
        promote=True,
        new_holdout=None,
    )


def keep(registry: Registry, version: Version, **windows: Any) -> None:
    contents = {
        name: Content(content[0], len(content[0]), *content[1:])
        for name, content in windows.items()
    }
    registry.keep_windows(version, contents, erasures=len(registry.erasures(version.name)))


def texts(registry: Registry, number: int | None = None) -> dict[str, bytes]:
    return {one.window: one.open().read_bytes() for one in registry.windows("a", number)}


def test_windows_are_listed_as_they_were_recorded_and_replaced(registry: Registry) -> None:
    assert registry.windows("a") == []
    version = commit(registry)
    keep(registry, version, w2=(b"r1 r2",))
    keep(registry, version, w1=(b"r3",))
    assert [(one.window, one.position, one.rows) for one in registry.windows("a", 1)] == [
        ("w2", 1, 5),
        ("w1", 2, 2),
    ]
    old = registry.windows("a")[0]
    path = old.open()
    keep(registry, version, w2=(b"r1 r2 scored", old.sha256))
    assert texts(registry) == {"w2": b"r1 r2 scored", "w1": b"r3"}
    assert path.exists()
    registry.sweep()
    assert not path.exists(), "what was replaced is deleted at once, not after a day"
    assert texts(registry) == {"w2": b"r1 r2 scored", "w1": b"r3"}
    assert registry.windows("a", 2) == registry.windows("b") == []


def test_what_is_there_already_changes_nothing_and_what_is_not_as_it_was_is_refused(
    registry: Registry,
) -> None:
    version = commit(registry)
    keep(registry, version, w=(b"one",))
    keep(registry, version, w=(b"one",))
    with pytest.raises(RegistryError, match="Another process wrote to window w of a@1"):
        keep(registry, version, w=(b"two",))
    with pytest.raises(RegistryError, match="nothing was changed"):
        keep(registry, version, v=(b"new",), w=(b"two", "0" * 64))
    assert texts(registry) == {"w": b"one"}, "all or nothing"
    with pytest.raises(RegistryError, match="forgotten while this ran"):
        registry.keep_windows(version, {"v": Content(b"new", 1)}, erasures=3)


def test_windows_are_dropped_and_a_file_that_another_has_stays(registry: Registry) -> None:
    first, second = commit(registry), commit(registry, 1)
    keep(registry, first, w=(b"same",), v=(b"other",))
    keep(registry, second, w=(b"same",))
    gone = registry.windows("a", 1)
    assert registry.drop_windows(gone) == 2
    assert registry.drop_windows(gone) == registry.drop_windows([]) == 0
    assert registry.finish_erasures() == 1
    assert texts(registry) == {"w": b"same"}


def test_a_sweep_leaves_windows_of_any_age(registry: Registry, monkeypatch: Any) -> None:
    monkeypatch.setattr("perennial.promotion.registry._ORPHAN_SECONDS", -3600.0)
    version = commit(registry)
    keep(registry, version, w=(b"rows",))
    registry.stage(b"an orphan")
    registry.sweep()
    assert texts(registry) == {"w": b"rows"}


def test_rows_are_erased_from_windows_in_the_same_transaction(registry: Registry) -> None:
    version = commit(registry)
    keep(registry, version, w=(b"r1 r2",), v=(b"r1",), u=(b"r2",))
    files = {1: registry.version("a@1").files}
    seen = {(one.number, one.window): one.sha256 for one in registry.windows("a")}
    settings: dict[str, Any] = {
        "ids": ["r1"], "query": "ids", "counts": {}, "before": files, "after": {},
        "recorded": seen, "reduced": {(1, "w"): registry.stage(b"r2"), (1, "v"): None},
    }  # fmt: skip
    old = [one.open() for one in registry.windows("a")]
    with pytest.raises(RegistryError, match="nothing was forgotten"):
        registry.erase("a", **(settings | {"recorded": {}}))
    assert len(texts(registry)) == 3
    registry.erase("a", **settings)
    assert texts(registry) == {"w": b"r2", "u": b"r2"}
    registry.finish_erasures()
    assert [path.exists() for path in old] == [False, False, True]
    with pytest.raises(RegistryError, match="read"):
        Registry(url="sqlite:////nowhere/registry.db", read_only=True).drop_windows([])


def test_a_copy_of_the_registry_reads_and_does_not_share_windows(
    registry: Registry, tmp_path: Path
) -> None:
    version = commit(registry)
    keep(registry, version, w=(b"rows",))
    copy = registry.scratch(tmp_path / "copy")
    assert texts(copy) == {"w": b"rows"}
    copy.drop_windows(copy.windows("a"))
    assert texts(registry) == {"w": b"rows"}
