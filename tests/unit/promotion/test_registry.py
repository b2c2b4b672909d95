"""The registry: commits, races, damage and what a killed process leaves."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml

from perennial.errors import (
    ChampionChangedError,
    ConfigError,
    IntegrityError,
    NumberTakenError,
    RegistryError,
    StorageError,
)
from perennial.promotion import schema
from perennial.promotion.registry import Registry, Version


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'home' / 'registry.db'}"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(url=url_of(tmp_path))


def commit(registry: Registry, cycle_id: str, expected: int | None, **changes: Any) -> Version:
    settings: dict[str, Any] = {
        "name": "digits",
        "files": {"model.safetensors": cycle_id.encode()},
        "manifest": {"seed": 0},
        "decision": {"verdict": "promoted"},
        "verdict": "promoted",
        "cycle_id": cycle_id,
        "expected_champion": expected,
        "promote": True,
        "new_holdout": "h",
    }
    return registry.commit(**(settings | changes))


def test_a_number_that_was_foreseen_is_given_or_refused(registry: Registry) -> None:
    assert registry.next_number("digits") == 1
    assert commit(registry, "c1", None, number=1).number == 1
    foreseen = registry.next_number("digits")
    commit(registry, "c2", 1, promote=False)
    with pytest.raises(NumberTakenError, match=f"digits@{foreseen}"):
        commit(registry, "c3", 1, number=foreseen)
    assert [version.number for version in registry.versions("digits")] == [1, 2]
    assert registry.cycle("c3") is None


def test_a_record_that_was_changed_in_the_database_is_noticed(
    registry: Registry, tmp_path: Path
) -> None:
    commit(registry, "c1", None, manifest={"seed": 0, "label_names": ["ok", "fraud"], "lr": 1e-05})
    assert registry.champion("digits") is not None
    with sqlite3.connect(tmp_path / "home" / "registry.db") as database:
        database.execute("""UPDATE versions SET manifest = replace(manifest, '"ok"', '"no"')""")
    database.close()
    for read in (lambda: registry.champion("digits"), lambda: registry.version("digits@1")):
        with pytest.raises(IntegrityError, match="digits@1 is not the one that was stored"):
            read()


def test_one_process_works_at_a_cycle(registry: Registry, tmp_path: Path) -> None:
    def other() -> int:
        try:
            with Registry(url=url_of(tmp_path)).working("c1"):
                os._exit(0)
        except RegistryError as error:
            return 3 if "Another process is at this very cycle" in str(error) else 4

    with registry.working("c1"):
        assert _in_fork(other) == 3
    assert _in_fork(other) == 0  # freed, also by a process that ends without freeing it
    with registry.working("c1"):
        registry.remove_work_folder("c1")
    assert not registry.work_folder("c1").exists()


def _in_fork(run: Any) -> int:
    child = os.fork()
    if not child:
        code = 9
        try:
            code = run()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_untold_cycles_are_decided_and_have_a_work_folder(registry: Registry) -> None:
    commit(registry, "c1", None)
    commit(registry, "founded", 1, new_holdout=None)
    for cycle_id in ("c1", "founded", "undecided"):
        registry.work_folder(cycle_id).mkdir(parents=True)
    assert [record.cycle_id for record in registry.untold("digits")] == ["c1"]
    assert registry.untold("fraud") == []
    registry.remove_work_folder("c1")
    assert registry.untold("digits") == []


def test_a_locked_file_is_waited_for_and_then_said(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(registry, "c1", None)
    holder = sqlite3.connect(tmp_path / "home" / "registry.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(schema, "_BUSY_SECONDS", 1)
    with pytest.raises(RegistryError, match="Another process has held the registry for 1 sec"):
        commit(Registry(url=url_of(tmp_path)), "c2", 1)
    holder.rollback()
    holder.close()
    assert commit(registry, "c2", 1).number == 2


def test_reading_a_missing_registry_creates_nothing(registry: Registry, tmp_path: Path) -> None:
    assert registry.champion("digits") is None
    assert registry.versions() == []
    assert registry.lineages() == []
    assert registry.aliases("digits") == {}
    assert registry.cycle("c1") is None
    assert registry.cycles("digits") == []
    assert registry.adopted_checkpoint("digits") is None
    assert registry.sweep() == 0
    registry.work_folder("c1")
    registry.remove_work_folder("c1")
    assert list(tmp_path.iterdir()) == []


def test_a_commit_is_read_back_whole(registry: Registry, tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"weights")
    files = {"model.safetensors": source, "memory/rows.arrow": b"rows"}
    manifest = {"label_names": ["null", "één"], "metrics": {"accuracy": 0.5}}
    made = commit(registry, "c1", None, files=files, manifest=manifest, checkpoint_sha256="ab")
    again = Registry(url=url_of(tmp_path)).champion("digits")
    assert again == made
    assert (made.id, made.number, made.parent, made.manifest) == ("digits@1", 1, None, manifest)
    assert made.files["model.safetensors"] == hashlib.sha256(b"weights").hexdigest()
    assert made.open("memory/rows.arrow").read_bytes() == b"rows"
    hashes = {path: digest for path, digest in made.files.items() if path != "version.yaml"}
    assert yaml.safe_load(made.read_text("version.yaml")) == manifest | {"files": hashes}
    assert registry.adopted_checkpoint("digits") == "ab"
    record = registry.cycle("c1")
    assert record is not None
    assert (record.champion, record.candidate, record.applied) == (None, 1, True)
    assert record.decision == {"verdict": "promoted"}
    assert made.promoted == made.created


def test_aliases_follow_promotions_and_rollbacks(registry: Registry) -> None:
    commit(registry, "c1", None)
    commit(registry, "c2", 1)
    rejected = commit(registry, "c3", 2, promote=False, verdict="rejected")
    assert rejected.parent == 2
    assert rejected.promoted is None
    assert registry.aliases("digits") == {"champion": 2, "previous": 1, "candidate": 3}
    assert registry.version("digits@previous").number == 1
    assert registry.version("digits@3") == rejected
    assert registry.rollback("digits").number == 1
    assert registry.aliases("digits") == {"champion": 1, "previous": 2, "candidate": 3}
    with pytest.raises(RegistryError, match="digits@3 never served"):
        registry.rollback("digits", to=3)
    assert registry.rollback("digits", to=2).number == 2
    assert registry.aliases("digits")["previous"] == 1
    assert [record.cycle_id for record in registry.cycles("digits")] == ["c1", "c2", "c3"]
    with pytest.raises(RegistryError, match=r"there are: .*candidate, champion, previous, 1, 2, 3"):
        registry.rollback("digits", to=4)


def test_lineages_are_separate(registry: Registry) -> None:
    commit(registry, "c1", None)
    other = commit(registry, "c2", None, name="fraud")
    assert other.id == "fraud@1"
    assert registry.lineages() == ["digits", "fraud"]
    assert [version.id for version in registry.versions()] == ["digits@1", "fraud@1"]
    assert [version.id for version in registry.versions("fraud")] == ["fraud@1"]
    with pytest.raises(RegistryError, match="did you mean 'fraud'"):
        registry.version("frod@champion")
    with pytest.raises(RegistryError, match="did you mean 'champion'"):
        registry.version("fraud@champoin")
    with pytest.raises(RegistryError, match="write name@champion"):
        registry.version("fraud")


@pytest.mark.parametrize("expected", [None, 1, 7])
def test_a_champion_that_changed_refuses_and_nothing_changes(
    registry: Registry, expected: int | None
) -> None:
    commit(registry, "c1", None)
    commit(registry, "c2", 1)
    before = (registry.versions(), registry.aliases("digits"), registry.cycles("digits"))
    with pytest.raises(ChampionChangedError, match="found digits@2"):
        commit(registry, "c3", expected)
    assert (registry.versions(), registry.aliases("digits"), registry.cycles("digits")) == before


def test_apply_promotes_later_once_and_not_after_a_rollback(registry: Registry) -> None:
    commit(registry, "c1", None)
    commit(registry, "c2", 1, promote=False)
    commit(registry, "c3", 1, promote=False)
    commit(registry, "c4", 1, promote=False, verdict="rejected")
    assert registry.apply("c2").applied
    assert registry.apply("c2").applied
    assert registry.aliases("digits")["champion"] == 2
    with pytest.raises(ChampionChangedError):
        registry.apply("c3")
    with pytest.raises(RegistryError, match="was rejected"):
        registry.apply("c4")
    with pytest.raises(RegistryError, match="never decided"):
        registry.apply("c5")
    registry.rollback("digits")
    with pytest.raises(ChampionChangedError):
        registry.apply("c2")
    assert registry.aliases("digits")["champion"] == 1


def test_a_repeated_cycle_keeps_each_decision(registry: Registry) -> None:
    commit(registry, "c1", None, new_holdout=None)
    for cycle_id in ("a", "a", "b"):
        commit(registry, cycle_id, 1, promote=False)
    newest = registry.cycle("a")
    assert newest is not None
    assert newest.candidate == 3
    assert registry.decision("digits", 3) == newest
    assert registry.decision("digits", 5) is None


def known(registry: Registry) -> int:
    return len(registry.cycles("digits"))


def test_a_charge_is_of_the_decisions_there_are(registry: Registry) -> None:
    commit(registry, "c1", None)
    before = known(registry)
    commit(registry, "a", 1, promote=False, decisions=before)
    with pytest.raises(NumberTakenError, match="committed or decided meanwhile"):
        commit(registry, "b", 1, promote=False, decisions=before)
    record = registry.decision("digits", 2)
    assert record is not None
    commit(registry, "b", 1, promote=False, decisions=known(registry))
    with pytest.raises(RegistryError, match="changes what this decision is charged"):
        registry.decide_again(
            record, decision={}, verdict="promoted", files={}, decisions=before + 1
        )
    assert registry.aliases("digits")["champion"] == 1


def test_another_decision_on_a_candidate_is_kept_beside_the_first(registry: Registry) -> None:
    commit(registry, "c1", None)
    commit(registry, "a", 1, promote=False, verdict="rejected", trial=True, objective=0.75)
    first = registry.decision("digits", 2)
    assert first is not None
    assert (first.number, first.trial, first.objective, first.version) == (
        1,
        True,
        0.75,
        "digits@2",
    )
    second = registry.decide_again(
        first,
        decision={"alpha": 0.01},
        verdict="inconclusive",
        files={"decisions/2/result.json": b"{}"},
        decisions=known(registry),
    )
    assert (second.number, second.trial, second.applied) == (2, False, False)
    # what it adds is a file of the version, which is verified as it was
    assert registry.version("digits@2").read_text("decisions/2/result.json") == "{}"
    with pytest.raises(RegistryError, match="written by the registry itself"):
        commit(registry, "b", 1, files={"decisions/2/result.json": b"{}"})
    assert registry.aliases("digits")["champion"] == 1
    with pytest.raises(RegistryError, match="digits@2 was recorded meanwhile"):
        registry.decide_again(
            first, decision={}, verdict="promoted", files={}, decisions=known(registry)
        )
    third = registry.decide_again(
        second, decision={"alpha": 0.02}, verdict="promoted", files={}, decisions=known(registry)
    )
    assert registry.cycles("digits")[1:] == [first, second, third]
    assert registry.cycle("a") == registry.decision("digits", 2) == third
    assert (third.applied, third.decision) == (True, {"alpha": 0.02})
    assert registry.aliases("digits") == {"champion": 2, "previous": 1, "candidate": 2}
    with pytest.raises(RegistryError, match="serves already"):
        registry.decide_again(
            third, decision={}, verdict="promoted", files={}, decisions=known(registry)
        )
    registry.rollback("digits")
    with pytest.raises(RegistryError, match=r"has served before(.|\n)*rollback digits --to 2"):
        registry.decide_again(
            third, decision={}, verdict="promoted", files={}, decisions=known(registry)
        )


@pytest.mark.parametrize("verdict", ["promoted", "rejected"])
def test_another_decision_is_refused_where_the_champion_changed(
    registry: Registry, verdict: str
) -> None:
    commit(registry, "c1", None)
    commit(registry, "a", 1, promote=False)
    record = registry.decision("digits", 2)
    assert record is not None
    commit(registry, "b", 1)
    before = registry.cycles("digits")
    with pytest.raises(ChampionChangedError, match="expected digits@1, found digits@3"):
        registry.decide_again(
            record, decision={}, verdict=verdict, files={}, decisions=known(registry)
        )
    assert registry.cycles("digits") == before


def test_equal_files_are_stored_once(registry: Registry, tmp_path: Path) -> None:
    commit(registry, "c1", None, files={"a": b"same", "b/c": b"same"})
    commit(registry, "c2", 1, files={"a": b"same", "b/c": b"other"})
    blobs = [path for path in (tmp_path / "home" / "files").rglob("*") if path.is_file()]
    assert len(blobs) == 4  # same, other and two version.yaml


def test_a_flipped_bit_is_found_and_a_new_commit_repairs_it(
    registry: Registry, tmp_path: Path
) -> None:
    version = commit(registry, "c1", None)
    path = version.open("model.safetensors")
    path.chmod(0o644)
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    with pytest.raises(IntegrityError, match=r"model\.safetensors of digits@1.*\n.*\n.*rollback"):
        version.open("model.safetensors")
    with pytest.raises(IntegrityError):
        registry.export("digits@1", tmp_path / "out")
    commit(registry, "c2", 1, files={"model.safetensors": b"c1"})
    assert version.read_text("model.safetensors") == "c1"
    path.unlink()
    with pytest.raises(IntegrityError, match="gone"):
        version.open("model.safetensors")
    with pytest.raises(RegistryError, match=r"did you mean 'model\.safetensors'"):
        version.open("model.safetensor")


def test_export_gives_human_names_and_mends_what_was_edited(
    registry: Registry, tmp_path: Path
) -> None:
    commit(registry, "c1", None, files={"memory/rows.arrow": b"rows"})
    folder = registry.export("digits@champion")
    assert folder == tmp_path / "home" / "versions" / "digits" / "1"
    target = folder / "memory" / "rows.arrow"
    assert target.read_bytes() == b"rows"
    assert target.stat().st_mode & 0o222 == 0
    target.unlink()
    target.write_bytes(b"edited")
    assert registry.export("digits@1") == folder
    assert target.read_bytes() == b"rows"


@pytest.mark.parametrize(
    "path",
    ["../x", "/etc/x", "a/../../x", "", ".", "a//b", "a/", "a\\b", "C:x", "a\x00b", "m/x/y", "m/x"],
)
def test_paths_that_leave_the_version_are_refused(
    registry: Registry, tmp_path: Path, path: str
) -> None:
    with pytest.raises(RegistryError, match="cannot hold a file"):
        commit(registry, "c1", None, files={path: b"x", "m": b"", "m/x/y/z": b""})
    assert not (tmp_path / "home").exists()


def test_a_stored_path_that_leaves_the_version_is_not_exported(
    registry: Registry, tmp_path: Path
) -> None:
    commit(registry, "c1", None)
    with sqlite3.connect(tmp_path / "home" / "registry.db") as connection:
        connection.execute("UPDATE files SET path = '../../escaped' WHERE path != 'version.yaml'")
    connection.close()
    with pytest.raises(RegistryError, match="is not the one that was stored"):
        registry.export("digits@1", tmp_path / "deep" / "out")
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "../digits"}, ConfigError),
        ({"name": ".digits"}, ConfigError),
        ({"name": "digits\n"}, ConfigError),
        ({"cycle_id": "a/b"}, ConfigError),
        ({"manifest": {"accuracy": float("nan")}}, RegistryError),
        ({"manifest": {"path": Path("x")}}, RegistryError),
        ({"manifest": {"files": {}}}, RegistryError),
        ({"files": {"version.yaml": b""}}, RegistryError),
        ({"files": {"model": Path("missing")}}, StorageError),
    ],
)
def test_what_cannot_be_stored_is_refused(
    registry: Registry, changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        commit(registry, **({"cycle_id": "c1", "expected": None} | changes))
    assert registry.versions() == []


def test_read_only_refuses_every_change(registry: Registry, tmp_path: Path) -> None:
    commit(registry, "c1", None)
    reader = Registry(url=url_of(tmp_path), read_only=True)
    assert reader.champion("digits") == registry.champion("digits")
    for change in (
        lambda: commit(reader, "c2", 1),
        lambda: reader.rollback("digits", to=1),
        lambda: reader.apply("c1"),
        reader.sweep,
    ):
        with pytest.raises(RegistryError, match="reading only"):
            change()


def race(url: str, files: str | None, cycle_id: str, barrier: Any, results: Any) -> None:
    registry = Registry(url=url, files=files)
    barrier.wait()
    try:
        results.put(commit(registry, cycle_id, 1).id)
    except ChampionChangedError:
        results.put("changed")
    except RegistryError as error:
        results.put(str(error))


def test_of_two_racing_processes_one_promotes(registry: Registry, tmp_path: Path) -> None:
    commit(registry, "c1", None)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    runs = [
        context.Process(target=race, args=(url_of(tmp_path), None, cycle_id, barrier, results))
        for cycle_id in ("a", "b")
    ]
    for run in runs:
        run.start()
    assert sorted(results.get(timeout=60) for _ in runs) == ["changed", "digits@2"]
    for run in runs:
        run.join()
        run.close()
    results.close()
    results.join_thread()
    assert registry.aliases("digits") == {"champion": 2, "previous": 1, "candidate": 2}
    assert len(registry.cycles("digits")) == 2


KILLED = """
import os, signal, sys
import sqlalchemy as sa
from perennial.promotion import registry
registry_ = registry.Registry(url=sys.argv[1])
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "before":
    registry_._database.write = die
else:
    registry_._refuse_if_swept = die
registry_.commit(name="digits", files={"model.safetensors": b"orphan"}, manifest={},
    decision=None, verdict="promoted", cycle_id="c2", expected_champion=1, promote=True,
    new_holdout=None)
"""


@pytest.mark.parametrize("moment", ["before", "inside"])
def test_killed_after_the_upload_the_champion_serves(
    registry: Registry, tmp_path: Path, moment: str
) -> None:
    first = commit(registry, "c1", None)
    killed = subprocess.run([sys.executable, "-c", KILLED, url_of(tmp_path), moment], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert registry.champion("digits") == first
    assert registry.versions() == [first]
    assert registry.cycle("c2") is None
    blobs = tmp_path / "home" / "files"
    orphan = hashlib.sha256(b"orphan").hexdigest()
    path = blobs / orphan[:2] / orphan
    assert path.is_file()
    assert registry.sweep() == 0  # younger than a day
    old = time.time() - 25 * 3600
    for blob in blobs.rglob("*"):
        if blob.is_file():
            os.utime(blob, (old, old))
    assert registry.sweep() == 2  # the file and its version.yaml
    assert not path.exists()
    assert first.read_text("model.safetensors") == "c1"
    assert commit(registry, "c2", 1).number == 2


def test_a_newer_schema_is_refused(registry: Registry, tmp_path: Path) -> None:
    commit(registry, "c1", None)
    with sqlite3.connect(tmp_path / "home" / "registry.db") as connection:
        connection.execute("UPDATE meta SET schema_version = 99")
    connection.close()
    for attempt in (lambda: registry.champion("digits"), lambda: commit(registry, "c2", 1)):
        with pytest.raises(RegistryError, match="upgrade perennial"):
            attempt()


@pytest.mark.parametrize("content", [b"not a database" * 99, b"SQLite format 3\x00" + b"x" * 4096])
def test_a_damaged_database_is_named(registry: Registry, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "registry.db").write_bytes(content)
    for attempt in (lambda: registry.champion("digits"), lambda: commit(registry, "c2", 1)):
        with pytest.raises(RegistryError, match=r"registry\.db"):
            attempt()


def test_an_unreachable_server_is_named_without_the_password() -> None:
    registry = Registry(url="postgresql://me:hunter2@127.0.0.1:1/db", files="memory://nowhere")
    with pytest.raises(RegistryError, match="cannot be reached") as caught:
        registry.champion("digits")
    assert "hunter2" not in str(caught.value)
    assert "me:***@127.0.0.1:1/db" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "files"),
    [
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("mysql://host/db", "files"),
        ("postgresql+psycopg://host/db", None),
        ("postgresql+nodriver://host/db", "files"),
        ("hunter2", None),
        ("postgresql://me:hunter2@host:port/db", "files"),
        ("sqlite:///x.db", "nosuchsystem://bucket"),
    ],
)
def test_urls_that_cannot_serve_are_refused(url: str, files: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        Registry(url=url, files=files)
    assert "hunter2" not in str(caught.value)


def test_scratch_starts_as_a_copy_and_leaves_the_original_alone(
    registry: Registry, tmp_path: Path
) -> None:
    commit(registry, "c1", None)
    commit(registry, "c2", 1)
    before = registry.versions()
    scratch = registry.scratch(tmp_path / "scratch")
    assert scratch.versions() == before
    assert scratch.cycles("digits") == registry.cycles("digits")
    champion = scratch.champion("digits")
    assert champion is not None
    assert champion.read_text("model.safetensors") == "c2"
    assert commit(scratch, "c3", 2).read_text("model.safetensors") == "c3"
    assert scratch.aliases("digits")["champion"] == 3
    assert scratch.work_folder("c3").is_relative_to(tmp_path / "scratch")
    assert registry.versions() == before
    assert registry.aliases("digits")["champion"] == 2
    with pytest.raises(RegistryError, match="already holds"):
        registry.scratch(tmp_path / "scratch")


def test_scratch_of_a_missing_registry_is_empty(registry: Registry, tmp_path: Path) -> None:
    scratch = registry.scratch(tmp_path / "scratch")
    assert scratch.champion("digits") is None
    assert commit(scratch, "c1", None).number == 1
    assert not (tmp_path / "home").exists()


def test_files_may_lie_behind_an_fsspec_url(tmp_path: Path) -> None:
    bucket = f"memory://team-{uuid.uuid4().hex}"
    registry = Registry(url=url_of(tmp_path), files=bucket)
    source = tmp_path / "weights"
    source.write_bytes(b"weights")
    version = commit(registry, "c1", None, files={"model": source, "memory/a": b"rows"})
    cached = version.open("model")
    assert cached.read_bytes() == b"weights"
    cached.chmod(0o644)
    cached.write_bytes(b"damaged")
    assert version.open("model").read_bytes() == b"weights"
    cached.unlink()
    assert (registry.export("digits@1") / "memory" / "a").read_bytes() == b"rows"
    digest = version.files["model"]
    cached.unlink()
    with fsspec.open(f"{bucket}/{digest[:2]}/{digest}", "wb") as file:
        file.write(b"flipped")
    with pytest.raises(IntegrityError, match="model of digits@1"):
        version.open("model")
    with fsspec.open(f"{bucket}/00/{'0' * 64}", "wb") as file:
        file.write(b"orphan")
    assert registry.sweep() == 0
    filesystem, root = fsspec.core.url_to_fs(bucket)
    assert registry._store.remove_unless(set(version.files.values()), older_than=2e10) == 1
    filesystem.rm_file(f"{root}/{digest[:2]}/{digest}")
    with pytest.raises(IntegrityError, match="gone"):
        version.open("model")


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_files_of_another_registry_are_refused(tmp_path: Path, kind: str) -> None:
    files = str(tmp_path / "shared") if kind == "local" else f"memory://{uuid.uuid4().hex}"
    commit(Registry(url=url_of(tmp_path), files=files), "c1", None)
    assert commit(Registry(url=url_of(tmp_path), files=files), "c2", 1).number == 2
    other = Registry(url=url_of(tmp_path / "other"), files=files)
    with pytest.raises(ConfigError, match="belong to another registry"):
        commit(other, "c1", None)
    assert other.versions() == []


def test_a_broken_file_system_is_an_error_of_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = f"memory://me:hunter2@{uuid.uuid4().hex}"
    registry = Registry(url=url_of(tmp_path), files=files)
    version = commit(registry, "c1", None)

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(f"lost {files}")

    filesystem = fsspec.filesystem("memory")
    monkeypatch.setattr(type(filesystem), "open", fail)
    attempts = (
        lambda: version.open("model.safetensors"),
        lambda: commit(registry, "c2", 1),
    )
    for attempt in attempts:
        with pytest.raises(RegistryError, match=r"Could not (read|write).*lost") as caught:
            attempt()
        assert "hunter2" not in str(caught.value)
    assert registry.versions() == [version]


def test_work_folders_are_removed_whole(registry: Registry, tmp_path: Path) -> None:
    folder = registry.work_folder("c1")
    assert folder == tmp_path / "home" / "cycles" / "c1"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("x")
    registry.remove_work_folder("c1")
    assert not folder.exists()
    with pytest.raises(ConfigError):
        registry.work_folder("../c1")


def test_a_relative_url_survives_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    registry = Registry(url="sqlite:///./home/registry.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    commit(registry, "c1", None)
    assert (tmp_path / "home" / "registry.db").is_file()


def test_the_room_imports_without_torch() -> None:
    code = "import sys, json, perennial.promotion.registry; print(json.dumps(list(sys.modules)))"
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code]))
    assert not {"torch", "lightning", "fsspec"} & set(loaded)
