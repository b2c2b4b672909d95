"""Durable files: the order in which they reach the disk, and what a killed process leaves."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from perennial import files
from perennial.errors import StorageError


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Syncs and renames in their order."""
    found: list[tuple[str, str]] = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        found.append(("sync", kind))
        sync(descriptor)

    def replaced(source: Any, target: Any) -> None:
        assert Path(source).parent == Path(target).parent
        found.append(("rename", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(files.os, "fsync", synced)
    monkeypatch.setattr(files.os, "replace", replaced)
    return found


def test_a_file_is_synced_before_its_name_and_its_folder_after(
    tmp_path: Path, events: list[tuple[str, str]]
) -> None:
    digest = files.write_bytes(tmp_path / "new" / "a.bin", b"content")
    assert events == [("sync", "file"), ("rename", "a.bin"), ("sync", "folder")]
    assert digest == hashlib.sha256(b"content").hexdigest()
    assert files.hash_file(tmp_path / "new" / "a.bin") == digest


def test_what_was_written_is_whole_when_its_sync_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(
        files.os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size)
    )
    files.write_bytes(tmp_path / "a.bin", b"small, so that it waits in a buffer")
    assert sizes[0] == 35


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    files.write_bytes(tmp_path / "a.bin", b"old")

    def full(file: Any) -> None:
        file.write(b"half of the n")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match="disk is full"):
        files.write(tmp_path / "a.bin", full)
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"old"


def test_only_what_dead_processes_of_this_host_left_is_swept(tmp_path: Path) -> None:
    dead = os.fork()
    if not dead:
        os._exit(0)
    os.waitpid(dead, 0)
    host, other = files._host(), "0" * 8
    left = tmp_path / "deep" / f".tmp-{host}-{dead}-00000000-a.bin"
    stays = [
        tmp_path / f".tmp-{host}-{os.getpid()}-00000000-a.bin",
        tmp_path / f".tmp-{other}-{dead}-00000000-a.bin",
        tmp_path / ".tmp-of-somebody-else",
        tmp_path / "a.bin",
    ]
    left.parent.mkdir()
    for path in (left, *stays):
        path.write_bytes(b"x")
    assert files.sweep(tmp_path) == 1
    assert not left.exists()
    assert all(path.exists() for path in stays)
