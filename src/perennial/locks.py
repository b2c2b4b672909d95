"""Locks that go with the process which holds them, however it ends."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    import sqlalchemy as sa


class TakenError(Exception):
    """Another process holds the lock."""


@contextmanager
def held_file(path: Path) -> Iterator[None]:
    """Hold a file's lock, among the processes of machines that share its file system.

    Raises:
        TakenError: Another process holds it.
        OSError: The file cannot be made.
    """
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TakenError from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def held_session(engine: sa.Engine, name: str) -> Iterator[Callable[[], None]]:
    """Hold an advisory lock of a session in PostgreSQL, among all that use its database.

    Args:
        engine: Its connections commit each statement on their own.
        name: Of the lock; 64 bits of its SHA-256 are the key.

    Yields:
        A check that the session is still there, which raises SQLAlchemyError where it is not.

    Raises:
        TakenError: Another session holds it.
        SQLAlchemyError: The database cannot be reached.
    """
    import sqlalchemy as sa

    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
    with engine.connect() as connection:
        if not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(key))):
            raise TakenError
        yield lambda: connection.scalar(sa.select(1))
