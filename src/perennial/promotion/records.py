"""What the registry hands out, and its rows: versions, aliases, decisions."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from perennial.errors import ChampionChangedError, RegistryError
from perennial.promotion.schema import aliases, cycles, versions


@dataclass(frozen=True)
class Version:
    """An immutable trained model with everything needed to go on from it.

    Attributes:
        id: ``name@number``.
        name: The lineage.
        number: 1, 2, …, in the order of commits.
        parent: Number of the champion it was trained from; None for the first.
        created: When it was committed, ISO 8601 in UTC.
        manifest: What the cycle recorded: plain JSON values.
        files: Path inside the version to SHA-256.
        promoted: When it first became champion; None if it never did.
    """

    id: str
    name: str
    number: int
    parent: int | None
    created: str
    manifest: dict[str, Any]
    files: dict[str, str]
    promoted: str | None = None
    _fetch: Callable[[str, str], Path] | None = field(default=None, repr=False, compare=False)

    def open(self, path: str) -> Path:
        """A local, read-only file of this version, its SHA-256 verified now.

        Raises:
            IntegrityError: The stored file is damaged or gone.
            RegistryError: The version has no such file.
        """
        if path not in self.files:
            raise RegistryError(
                f"Version {self.id} has no file {path!r}.",
                where=self.id,
                mend=suggest(path, sorted(self.files)),
            )
        assert self._fetch is not None
        return self._fetch(self.files[path], f"{path} of {self.id}")

    def read_text(self, path: str) -> str:
        """A file's text (UTF-8), verified; raises as `open` does."""
        return self.open(path).read_text(encoding="utf-8")


@dataclass(frozen=True)
class CycleRecord:
    """One decision on a cycle's candidate.

    Attributes:
        cycle_id: The cycle's identity.
        name: The lineage.
        champion: Number of the champion it was decided against; None where there was none.
        candidate: Number of the version it trained.
        verdict: ``promoted``, ``rejected``, ``inconclusive``.
        applied: Whether the champion's alias was moved to the candidate.
        decision: The gate's decision as plain values; None where no gate was asked.
        new_holdout: SHA-256 of the new holdout that was decided on; None where there was none.
        decided_at: ISO 8601 in UTC.
        number: 1 for the cycle's own decision, 2, … for those on its stored predictions.
        trial: Whether it was a trial of a sweep, which is no decision of its own.
        objective: The candidate's best score on validation rows, where it was scored.
        device_seconds: What training took; None for what trained nothing.
    """

    cycle_id: str
    name: str
    champion: int | None
    candidate: int
    verdict: str
    applied: bool
    decision: dict[str, Any] | None
    new_holdout: str | None
    decided_at: str
    number: int = 1
    trial: bool = False
    objective: float | None = None
    device_seconds: float | None = None

    @property
    def version(self) -> str:
        """The candidate's id, ``name@number``."""
        return f"{self.name}@{self.candidate}"


def alias_of(connection: sa.Connection, name: str, alias: str) -> int | None:
    """The version number an alias points to, or None."""
    number: int | None = connection.scalar(
        sa.select(aliases.c.version).where(aliases.c.name == name, aliases.c.alias == alias)
    )
    return number


def set_alias(connection: sa.Connection, name: str, alias: str, number: int) -> None:
    """Point an alias to a version."""
    row = sa.and_(aliases.c.name == name, aliases.c.alias == alias)
    if not connection.execute(aliases.update().where(row).values(version=number)).rowcount:
        connection.execute(aliases.insert().values(name=name, alias=alias, version=number))


def promote_to(
    connection: sa.Connection, name: str, number: int, *, expected: int | None, now: str
) -> None:
    """Make a version champion if the expected one serves; else ChampionChangedError."""
    if expected is None:
        if (champion := alias_of(connection, name, "champion")) is not None:
            raise changed(name, None, champion)
        connection.execute(aliases.insert().values(name=name, alias="champion", version=number))
    else:
        moved = connection.execute(
            aliases.update()
            .where(
                aliases.c.name == name,
                aliases.c.alias == "champion",
                aliases.c.version == expected,
            )
            .values(version=number)
        )
        if moved.rowcount != 1:
            raise changed(name, expected, alias_of(connection, name, "champion"))
        set_alias(connection, name, "previous", expected)
    connection.execute(
        versions.update()
        .where(versions.c.name == name, versions.c.number == number, versions.c.promoted.is_(None))
        .values(promoted=now)
    )


def changed(name: str, expected: int | None, found: int | None) -> ChampionChangedError:
    """The error of a lost race."""
    before = "no champion" if expected is None else f"{name}@{expected}"
    after = "none" if found is None else f"{name}@{found}"
    return ChampionChangedError(
        f"Another run changed the champion meanwhile: expected {before}, found {after}.",
        where=name,
        mend="run the same command again: it retrains from the present champion",
    )


def newest_cycle(connection: sa.Connection, cycle_id: str) -> CycleRecord | None:
    """The newest decision under a cycle's id, or None."""
    query = sa.select(cycles).where(cycles.c.cycle_id == cycle_id)
    newest = query.order_by(cycles.c.candidate.desc(), cycles.c.number.desc()).limit(1)
    row = connection.execute(newest).first()
    return None if row is None else to_record(row)


def newest_decision(connection: sa.Connection, name: str, candidate: int) -> CycleRecord | None:
    """The newest decision on a version, or None."""
    query = sa.select(cycles).where(cycles.c.name == name, cycles.c.candidate == candidate)
    row = connection.execute(query.order_by(cycles.c.number.desc()).limit(1)).first()
    return None if row is None else to_record(row)


def refuse_another_decision(connection: sa.Connection, record: CycleRecord) -> None:
    """Refuse where what a candidate's last decision rested on is no longer so.

    Raises:
        ChampionChangedError: The champion is no longer the one it was compared with.
        RegistryError: The candidate has served already, or was decided again meanwhile.
    """
    champion = alias_of(connection, record.name, "champion")
    served = sa.select(versions.c.promoted).where(
        versions.c.name == record.name, versions.c.number == record.candidate
    )
    if connection.scalar(served) is not None:
        serves = champion == record.candidate
        raise RegistryError(
            f"{record.version} {'serves already' if serves else 'has served before'}: there is "
            "nothing to promote.",
            where=record.version,
            mend="decide without promote=true to see what another policy says"
            if serves
            else f"perennial registry rollback {record.name} --to {record.candidate}",
        )
    if champion != record.champion:
        raise changed(record.name, record.champion, champion)
    if newest_decision(connection, record.name, record.candidate) != record:
        raise RegistryError(
            f"Another decision on {record.version} was recorded meanwhile.",
            where=record.version,
            mend="run the same command again; it is charged for that decision",
        )


def to_record(row: sa.Row[Any]) -> CycleRecord:
    """A row of ``cycles`` as a record."""
    return CycleRecord(
        cycle_id=row.cycle_id,
        name=row.name,
        champion=row.champion,
        candidate=row.candidate,
        verdict=row.verdict,
        applied=row.applied,
        decision=None if row.decision is None else json.loads(row.decision),
        new_holdout=row.new_holdout,
        decided_at=row.decided_at,
        number=row.number,
        trial=row.trial,
        objective=row.objective,
        device_seconds=row.device_seconds,
    )


def suggest(wanted: str, known: list[str]) -> str:
    """Name the close match and what exists."""
    if not known:
        return "it is empty yet: perennial train trains a first version"
    close = difflib.get_close_matches(wanted, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    return f"{hint}there are: {shown}"
