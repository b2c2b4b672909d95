"""Erasure in the registry: versions without rows, tombstones, and a record that says no more.

New files are stored first. One transaction then points every version to them, keeps tombstones and
the record, and lists the old files; they are deleted last, and from the list. A process killed
before the transaction has changed nothing; killed after it, the next erasure or sweep deletes what
is listed.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from perennial.data.forgotten import Forgotten, hashed
from perennial.errors import RegistryError
from perennial.promotion import windows
from perennial.promotion.schema import erasures, forgotten, removals, version_files
from perennial.promotion.schema import windows as window_files

Files = Mapping[int, Mapping[str, str]]
_BATCH = 500


@dataclass(frozen=True)
class Erasure:
    """A record of rows that were forgotten.

    Attributes:
        number: 1, 2, … within the lineage.
        at: ISO 8601 in UTC.
        query: By what they were named: ``ids``, ``ids-file`` or ``where``; not which.
        counts: Rows by where they were, plain numbers.
    """

    number: int
    at: str
    query: str
    counts: Mapping[str, Any]


def forgotten_by(connection: sa.Connection, name: str) -> Forgotten:
    """What a lineage forgot."""
    of_lineage = sa.select(erasures.c.salt).where(erasures.c.name == name)
    salts = list(connection.scalars(of_lineage))
    if not salts:
        return Forgotten()
    found = connection.scalars(sa.select(forgotten.c.hash).where(forgotten.c.name == name))
    return Forgotten(salts[0], frozenset(found), len(salts))


def records(connection: sa.Connection, name: str) -> list[Erasure]:
    """A lineage's erasures, oldest first."""
    query = sa.select(erasures).where(erasures.c.name == name).order_by(erasures.c.number)
    return [
        Erasure(row.number, row.forgotten_at, row.query, json.loads(row.counts))
        for row in connection.execute(query)
    ]


def refuse_erased(connection: sa.Connection, name: str, known: int) -> None:
    """Refuse to commit what was made of rows that were forgotten meanwhile.

    Args:
        connection: Of the committing transaction.
        name: The lineage.
        known: How many erasures there were when the rows were read.
    """
    query = sa.select(sa.func.count()).select_from(erasures).where(erasures.c.name == name)
    if int(connection.scalar(query) or 0) != known:
        raise RegistryError(
            f"Rows of {name} were forgotten while this ran, and may be in what it made: nothing "
            "was kept.",
            where=name,
            mend="run the same command again; it reads without them",
        )


def record(
    connection: sa.Connection,
    name: str,
    *,
    ids: Collection[str],
    query: str,
    counts: Mapping[str, Any],
    before: Files,
    after: Files,
    recorded: windows.Hashes,
    reduced: Mapping[tuple[int, str], str | None],
    now: str,
) -> Erasure:
    """Point a lineage's versions to files without the rows; see `Registry.erase`.

    Raises:
        RegistryError: The lineage's versions are no longer those that were looked at.
    """
    as_seen = _files_of(connection, name) == {number: dict(one) for number, one in before.items()}
    if not as_seen or not windows.rewrite(connection, name, recorded, reduced):
        raise RegistryError(
            f"Another run committed to {name} meanwhile: nothing was forgotten.",
            where=name,
            mend="run the same command again",
        )
    known = forgotten_by(connection, name)
    salt = known.salt or secrets.token_hex(16)
    fresh = sorted(set(hashed(ids, salt)) - known.hashes)
    if fresh:
        connection.execute(forgotten.insert(), [{"name": name, "hash": one} for one in fresh])
    done = Erasure(known.erasures + 1, now, query, counts)
    connection.execute(
        erasures.insert().values(
            name=name,
            number=done.number,
            forgotten_at=now,
            query=query,
            counts=json.dumps(dict(counts)),
            salt=salt,
        )
    )
    old = {digest for number in after for digest in before[number].values()}
    new = {digest for one in after.values() for digest in one.values()}
    for number, files in after.items():
        _replace(connection, name, number, before[number], files)
    windows.remove_later(connection, old - new)
    return done


def unused(connection: sa.Connection) -> list[str]:
    """Files that were replaced and that no version and no window of any lineage refers to."""
    listed = sa.select(removals.c.sha256)
    for table in (version_files, window_files):
        listed = listed.where(~removals.c.sha256.in_(sa.select(table.c.sha256)))
    return list(connection.scalars(listed))


def clear(connection: sa.Connection) -> None:
    """Empty the list, once its files were deleted."""
    connection.execute(removals.delete())


def _files_of(connection: sa.Connection, name: str) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    for row in connection.execute(sa.select(version_files).where(version_files.c.name == name)):
        found.setdefault(row.number, {})[row.path] = row.sha256
    return found


def _replace(
    connection: sa.Connection,
    name: str,
    number: int,
    before: Mapping[str, str],
    after: Mapping[str, str],
) -> None:
    changed = [path for path, digest in before.items() if after.get(path) != digest]
    own = sa.and_(version_files.c.name == name, version_files.c.number == number)
    for start in range(0, len(changed), _BATCH):
        some = changed[start : start + _BATCH]
        connection.execute(version_files.delete().where(own, version_files.c.path.in_(some)))
    added = [
        {"name": name, "number": number, "path": path, "sha256": digest}
        for path, digest in after.items()
        if before.get(path) != digest
    ]
    if added:
        connection.execute(version_files.insert(), added)
