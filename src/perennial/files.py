"""Durable files: written beside their target, synced, renamed, hashed.

A reader sees the old file or the new one, never a torn one, also when the process is killed at any
instant and when the system's temporary folder is another file system: the temporary file lies in
the target's own folder. Whatever a killed process leaves behind is named so that `sweep` finds it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from perennial.errors import StorageError

_TEMPORARY = re.compile(r"^\.tmp-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}-")
_CHUNK_BYTES = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write(path: Path, writer: Callable[[BinaryIO], object]) -> str:
    """Write a file durably and return its SHA-256 (64 hex digits).

    Args:
        path: Target; its folder is created.
        writer: Called with a binary file open for writing (and seeking).

    Raises:
        StorageError: The disk is full, read-only or gone; the target is as it was before.
    """
    temporary = path.parent / f".tmp-{_host()}-{os.getpid()}-{secrets.token_hex(4)}-{path.name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "w+b") as file:
                writer(file)
                file.flush()
                os.fsync(file.fileno())
                file.seek(0)
                digest = hash_stream(file)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    return digest


def write_bytes(path: Path, content: bytes) -> str:
    """Write bytes durably; see `write`."""
    return write(path, lambda file: file.write(content))


def write_json(path: Path, value: Any) -> str:
    """Write a value as indented JSON durably; NaN and infinities are refused by ``json``."""
    return write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def rename(source: Path, target: Path) -> None:
    """Give a folder that is whole its name, durably.

    Raises:
        StorageError: It cannot be renamed; it is as it was before.
    """
    try:
        source.rename(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise storage_error(error, target) from error


def hash_stream(file: BinaryIO) -> str:
    """SHA-256 of an open file from its position to its end, in hex."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a plain value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hash_stream(file)


def sweep(folder: Path) -> int:
    """Remove what killed processes of this host left half-written in a folder's tree.

    Files of processes that still run, here or on another host, stay.

    Returns:
        The number of files removed.
    """
    removed = 0
    for path in folder.rglob(".tmp-*"):
        match = _TEMPORARY.match(path.name)
        if match and match["host"] == _host() and not _alive(int(match["pid"])):
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def storage_error(error: OSError, path: Path) -> StorageError:
    """Say in a user's words why a path could not be written."""
    if error.errno in _FULL:
        return StorageError(
            "The disk is full: nothing was changed, and what was written before is whole.",
            where=str(path),
            mend="free some space and run the same command again; it goes on where it stopped",
        )
    reason = error.strerror or type(error).__name__
    return StorageError(
        f"Could not write a file: {reason}.",
        where=str(path),
        mend="check that the folder exists, is writable and is not on a read-only file system",
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
