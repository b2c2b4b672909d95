"""Versions that go on without some rows: files, tombstones, records, and what is shared."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from perennial.data.forgotten import hashed
from perennial.errors import RegistryError
from perennial.promotion.registry import Registry, Version


@pytest.fixture(params=["local", "remote"])
def registry(request: Any, tmp_path: Path) -> Registry:
    files = None if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    return Registry(url=f"sqlite:///{tmp_path}/registry.db", files=files)


def commit(registry: Registry, name: str, rows: bytes, expected: int | None = None) -> Version:
    return registry.commit(
        name=name,
        files={"rows": rows, "model": b"weights"},
        manifest={"of": f"{name}-{expected}"},
        decision=None,
        verdict="promoted",
        cycle_id=f"{name}-{expected}",
        expected_champion=expected,
        promote=True,
        new_holdout=None,
    )


def erase(registry: Registry, name: str, rows: bytes, **changes: Any) -> Any:
    versions = registry.versions(name)
    before = {version.number: version.files for version in versions}
    after = {number: {**files, "rows": registry.stage(rows)} for number, files in before.items()}
    settings: dict[str, Any] = {
        "ids": ["r1"], "query": "ids", "counts": {"rows": 1}, "before": before, "after": after,
        "recorded": {}, "reduced": {},
    }  # fmt: skip
    return registry.erase(name, **(settings | changes))


def test_versions_go_on_without_and_the_old_files_are_deleted(
    registry: Registry, tmp_path: Path
) -> None:
    first = commit(registry, "a", b"r1 r2")
    commit(registry, "a", b"r1 r2", 1)
    old = first.open("rows")
    assert old.read_bytes() == b"r1 r2"
    done = erase(registry, "a", b"r2")
    assert (done.number, done.query, done.counts) == (1, "ids", {"rows": 1})
    assert registry.finish_erasures() == 3, "the rows, and a manifest of each version"
    assert not old.exists(), "nor is there a cached copy"
    for number in (1, 2):
        version = registry.version(f"a@{number}")
        assert version.read_text("rows") == "r2"
        assert version.read_text("model") == "weights"
    assert registry.finish_erasures() == 0
    forgotten = registry.forgotten("a")
    assert forgotten.erasures == 1
    assert forgotten.hashes == set(hashed(["r1"], forgotten.salt))
    assert registry.forgotten("b").erasures == 0
    assert erase(registry, "a", b"").number == 2
    assert registry.forgotten("a").salt == forgotten.salt
    assert [one.number for one in registry.erasures("a")] == [1, 2]
    assert b"r1" not in (tmp_path / "registry.db").read_bytes()


def test_a_file_that_another_lineage_has_stays(registry: Registry) -> None:
    commit(registry, "a", b"r1 r2")
    commit(registry, "b", b"r1 r2")
    erase(registry, "a", b"r2")
    assert registry.finish_erasures() == 1, "the manifest alone"
    assert registry.version("b@1").read_text("rows") == "r1 r2"
    # and goes with the last that has it
    erase(registry, "b", b"r2")
    assert registry.finish_erasures() == 2


def test_a_stopped_erasure_is_finished_by_the_next_cycle(registry: Registry) -> None:
    old = commit(registry, "a", b"r1 r2").open("rows")
    erase(registry, "a", b"r2")
    assert old.exists()
    assert registry.sweep() >= 2
    assert not old.exists()


def test_what_was_looked_at_has_to_be_what_is_there(registry: Registry) -> None:
    commit(registry, "a", b"r1 r2")
    before = {1: registry.version("a@1").files}
    commit(registry, "a", b"r1 r2", 1)
    with pytest.raises(RegistryError, match="committed to a meanwhile: nothing was forgotten"):
        erase(registry, "a", b"r2", before=before, after={1: before[1]})
    assert registry.erasures("a") == []
    with pytest.raises(RegistryError, match="read"):
        Registry(url=f"sqlite:///{registry.work_folder('x').parents[1]}/registry.db",
                 files="memory://other", read_only=True).finish_erasures()  # fmt: skip


def test_another_machines_cached_copies_go_with_its_next_sweep(tmp_path: Path) -> None:
    files = f"memory://{uuid.uuid4().hex}"
    registry = Registry(url=f"sqlite:///{tmp_path}/registry.db", files=files)
    copy = commit(registry, "a", b"r1 r2").open("rows")
    content = copy.read_bytes()
    erase(registry, "a", b"r2")
    registry.finish_erasures()
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(content)  # as on another machine
    registry.sweep()
    assert copy.exists(), "it may be of a cycle that is about to commit"
    day_ago = time.time() - 25 * 3600
    os.utime(copy, (day_ago, day_ago))
    registry.sweep()
    assert not copy.exists()
