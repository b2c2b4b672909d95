"""What versions predicted for windows of rows, kept until their labels come: one file a window.

Files are stored first. One transaction then points windows to them, and lists the files that they
replace, which the next sweep or erasure deletes. A process killed before the transaction has
changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from perennial.errors import RegistryError
from perennial.promotion.schema import removals, windows

# version number and window to SHA-256
Hashes = Mapping[tuple[int, str], str]


@dataclass(frozen=True)
class Window:
    """A window of rows that a version has predicted.

    Attributes:
        name: The lineage.
        number: Of the version.
        window: Fingerprint of the rows.
        position: 1, 2, … in the order in which the version's windows were recorded.
        rows: How many are kept.
        sha256: Of the file.
    """

    name: str
    number: int
    window: str
    position: int
    rows: int
    sha256: str
    _fetch: Callable[[str, str], Path] | None = field(default=None, repr=False, compare=False)

    def open(self) -> Path:
        """A local, read-only file, its SHA-256 verified now.

        Raises:
            IntegrityError: The stored file is damaged or gone.
        """
        assert self._fetch is not None
        what = f"window {self.window[:12]} of {self.name}@{self.number}"
        return self._fetch(self.sha256, what)


@dataclass(frozen=True)
class Content:
    """What a window is to hold.

    Attributes:
        content: Of its file.
        rows: How many it keeps.
        replaces: SHA-256 of the file that it was made from; None for a window that is new.
    """

    content: bytes
    rows: int
    replaces: str | None = None


def listed(
    connection: sa.Connection,
    name: str,
    number: int | None,
    fetch: Callable[[str, str], Path] | None = None,
) -> list[Window]:
    """A lineage's windows, or those of one version, in the order in which they were recorded."""
    query = sa.select(windows).where(windows.c.name == name)
    if number is not None:
        query = query.where(windows.c.number == number)
    return [
        Window(row.name, row.number, row.window, row.position, row.rows, row.sha256, fetch)
        for row in connection.execute(query.order_by(windows.c.number, windows.c.position))
    ]


def keep(
    connection: sa.Connection,
    name: str,
    number: int,
    contents: Mapping[str, Content],
    hashes: Mapping[str, str],
) -> None:
    """Point windows of a version to their files.

    Raises:
        RegistryError: Another process recorded, or joined labels to, one of them meanwhile.
    """
    known = {one.window: one for one in listed(connection, name, number)}
    last = max((one.position for one in known.values()), default=0)
    for window, content in contents.items():
        found = known[window].sha256 if window in known else None
        if found == hashes[window]:
            continue
        if found != content.replaces:
            raise RegistryError(
                f"Another process wrote to window {window[:12]} of {name}@{number} meanwhile: "
                "nothing was changed.",
                where=f"{name}@{number}",
                mend="run the same command again",
            )
        values = {"rows": content.rows, "sha256": hashes[window]}
        if found is None:
            last += 1
            key = {"name": name, "number": number, "window": window, "position": last}
            connection.execute(windows.insert().values(**key, **values))
        else:
            connection.execute(windows.update().where(_is(name, number, window)).values(**values))
            remove_later(connection, [found])


def drop(connection: sa.Connection, gone: Collection[Window]) -> int:
    """Forget windows; returns how many there still were."""
    count = 0
    for one in gone:
        done = connection.execute(windows.delete().where(_is(one.name, one.number, one.window)))
        if done.rowcount:
            count += 1
            remove_later(connection, [one.sha256])
    return count


def rewrite(
    connection: sa.Connection,
    name: str,
    before: Hashes,
    after: Mapping[tuple[int, str], str | None],
) -> bool:
    """Point a lineage's windows to files with fewer rows; None drops a window.

    Args:
        connection: Of the erasing transaction.
        name: The lineage.
        before: All its windows, as they were looked at.
        after: Those that change.

    Returns:
        False, with nothing done, where the windows are no longer those that were looked at.
    """
    known = {(one.number, one.window): one for one in listed(connection, name, None)}
    if {key: one.sha256 for key, one in known.items()} != dict(before):
        return False
    for key, sha256 in after.items():
        if sha256 is None:
            drop(connection, [known[key]])
            continue
        connection.execute(windows.update().where(_is(name, *key)).values(sha256=sha256))
        remove_later(connection, [before[key]])
    return True


def remove_later(connection: sa.Connection, digests: Iterable[str]) -> None:
    """List files that nothing needs for what they were, until they are deleted."""
    there = set(connection.scalars(sa.select(removals.c.sha256)))
    if gone := sorted(set(digests) - there):
        connection.execute(removals.insert(), [{"sha256": digest} for digest in gone])


def _is(name: str, number: int, window: str) -> sa.ColumnElement[bool]:
    return sa.and_(windows.c.name == name, windows.c.number == number, windows.c.window == window)
