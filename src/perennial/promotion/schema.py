"""The registry's SQL tables, and transactions on them that hold on SQLite and PostgreSQL alike.

Every writing transaction takes one lock (``BEGIN IMMEDIATE`` on SQLite, the row of ``meta`` on
PostgreSQL), so that writers come one after another; they are short, because files are uploaded
before.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from perennial import files
from perennial.errors import ConfigError, RegistryError, StorageError
from perennial.locks import held_file, held_session

SCHEMA_VERSION = 1

_BUSY_SECONDS = 30
_SCHEMA_LOCK = 0x7065726E  # "pern": any constant that all Perennial processes share

metadata = sa.MetaData()

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("registry_id", sa.Text, nullable=False),
)
versions = sa.Table(
    "versions",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("parent", sa.Integer),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("cycle_id", sa.Text, nullable=False),
    sa.Column("checkpoint_sha256", sa.Text),
    sa.Column("promoted", sa.Text),
    sa.Column("manifest", sa.Text, nullable=False),
)
version_files = sa.Table(
    "files",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("sha256", sa.Text, nullable=False, index=True),
    sa.ForeignKeyConstraint(["name", "number"], ["versions.name", "versions.number"]),
)
aliases = sa.Table(
    "aliases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.ForeignKeyConstraint(["name", "version"], ["versions.name", "versions.number"]),
)
# A forced cycle is decided again under the same id, and a stored candidate under another policy or
# charge; each decision keeps its own row.
cycles = sa.Table(
    "cycles",
    metadata,
    sa.Column("cycle_id", sa.Text, primary_key=True),
    sa.Column("candidate", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("champion", sa.Integer),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("applied", sa.Boolean, nullable=False),
    sa.Column("decision", sa.Text),
    sa.Column("new_holdout", sa.Text),
    sa.Column("decided_at", sa.Text, nullable=False),
    sa.Column("trial", sa.Boolean, nullable=False),
    sa.Column("objective", sa.Float),
    sa.Column("device_seconds", sa.Float),
    sa.ForeignKeyConstraint(["name", "candidate"], ["versions.name", "versions.number"]),
)
# What versions predicted for windows of rows, until their labels come: one file a window.
windows = sa.Table(
    "windows",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("window", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False, index=True),
    sa.ForeignKeyConstraint(["name", "number"], ["versions.name", "versions.number"]),
)
# What `perennial monitor` found in each window of rows: JSON of aggregates, no row's own values.
looks = sa.Table(
    "looks",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("window", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("looked_at", sa.Text, nullable=False),
    sa.Column("found", sa.Text, nullable=False),
    sa.ForeignKeyConstraint(["name", "number"], ["versions.name", "versions.number"]),
)
# Tombstones: which ids a lineage forgot, as salted hashes; its erasures, without what was erased;
# and the files that they or labels replaced, until these are deleted.
forgotten = sa.Table(
    "forgotten",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("hash", sa.Text, primary_key=True),
)
erasures = sa.Table(
    "erasures",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("forgotten_at", sa.Text, nullable=False),
    sa.Column("query", sa.Text, nullable=False),
    sa.Column("counts", sa.Text, nullable=False),
    sa.Column("salt", sa.Text, nullable=False),
)
removals = sa.Table("removals", metadata, sa.Column("sha256", sa.Text, primary_key=True))


class Database:
    """Connections to one registry database; nothing is created before the first write.

    Args:
        url: SQLAlchemy URL of an SQLite file or a PostgreSQL database.

    Raises:
        ConfigError: The URL is malformed, names another kind of database, or lacks its driver.
    """

    def __init__(self, *, url: str) -> None:
        self.url = _parse(url)
        self.shown = self.url.render_as_string(hide_password=True)
        self.sqlite_file: Path | None = None
        # One connection per transaction: none is carried over a fork into another rank.
        options: dict[str, Any] = {"poolclass": sa.NullPool}
        if self.url.get_backend_name() == "sqlite":
            self.sqlite_file = Path(str(self.url.database)).expanduser().absolute()
            self.url = self.url.set(database=str(self.sqlite_file))
            options["connect_args"] = {"timeout": _BUSY_SECONDS}
        else:
            options["connect_args"] = {"connect_timeout": 10}
        try:
            self._engine = sa.create_engine(self.url, **options)
        except ImportError as error:
            raise ConfigError(
                f"The driver of this database is not installed: {error}.",
                where=f"registry.url={self.shown}",
                mend="pip install 'perennial[postgres]'",
            ) from None
        except (exc.ArgumentError, TypeError) as error:
            raise ConfigError(
                f"The registry's URL cannot be used: {self._scrub(error)}.",
                where=f"registry.url={self.shown}",
                mend="write postgresql+psycopg://user@host/database or sqlite:///path/registry.db",
            ) from None
        if self.sqlite_file is not None:
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)

    @contextmanager
    def read(self) -> Iterator[sa.Connection | None]:
        """A reading transaction, or None where no registry was created yet."""
        if self.sqlite_file is not None and not self.sqlite_file.exists():
            yield None
            return
        with self._translated(), self._engine.begin() as connection:
            if not sa.inspect(connection).has_table("meta"):
                yield None
                return
            self._check(connection, lock=False)
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A writing transaction that no other writer overlaps; creates the schema if need be."""
        if self.sqlite_file is not None:
            try:
                self.sqlite_file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise files.storage_error(error, self.sqlite_file) from error
        engine = self._engine.execution_options(perennial_write=True)
        with self._translated(), engine.begin() as connection:
            if not sa.inspect(connection).has_table("meta"):
                self._create(connection)
            self._check(connection, lock=True)
            yield connection

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Hold a lock by this name, among all that use this database.

        Raises:
            TakenError: Another process holds it.
        """
        with ExitStack() as stack:
            if self.sqlite_file is None:
                own = self._engine.execution_options(isolation_level="AUTOCOMMIT")
                with self._translated():
                    stack.enter_context(held_session(own, name))
            else:
                path = self.sqlite_file.with_name(f"{self.sqlite_file.name}.{name}.lock")
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(held_file(path))
                except OSError as error:
                    raise files.storage_error(error, path) from error
            yield

    def identity(self) -> str:
        """The registry's own id, given when its tables are created."""
        with self.write() as connection:
            return str(connection.scalar(sa.select(meta.c.registry_id)))

    def _create(self, connection: sa.Connection) -> None:
        if self.sqlite_file is None:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
            if sa.inspect(connection).has_table("meta"):
                return  # another process created it while this one waited for the lock
        metadata.create_all(connection)
        connection.execute(
            meta.insert().values(
                id=1, schema_version=SCHEMA_VERSION, registry_id=secrets.token_hex(16)
            )
        )

    def _check(self, connection: sa.Connection, *, lock: bool) -> None:
        query = sa.select(meta.c.schema_version)
        found: int | None = connection.scalar(query.with_for_update() if lock else query)
        if found is not None and found > SCHEMA_VERSION:
            raise RegistryError(
                f"The registry was written by a newer Perennial: its schema is version {found}, "
                f"this release knows up to {SCHEMA_VERSION}.",
                where=self.shown,
                mend="upgrade perennial: pip install --upgrade perennial",
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except exc.SQLAlchemyError as error:
            raise self._explain(error) from None

    def _explain(self, error: exc.SQLAlchemyError) -> RegistryError | StorageError:
        reason = self._scrub(getattr(error, "orig", None) or error)
        if self.sqlite_file is None:
            if isinstance(error, exc.OperationalError):
                return RegistryError(
                    f"The registry's database cannot be reached: {reason}.",
                    where=self.shown,
                    mend="check registry.url, the server, the password (PGPASSWORD) and network",
                )
            return RegistryError(f"The registry's database failed: {reason}.", where=self.shown)
        if "is full" in reason:
            return StorageError(
                "The disk is full: the registry is as it was before.",
                where=str(self.sqlite_file),
                mend="free some space and run the same command again",
            )
        if "locked" in reason:
            return RegistryError(
                f"Another process has held the registry for {_BUSY_SECONDS} seconds.",
                where=str(self.sqlite_file),
                mend="wait for it, then run the same command again",
            )
        if "not a database" in reason or "malformed" in reason or "no such" in reason:
            return RegistryError(
                f"The registry's file is damaged or is no Perennial registry: {reason}.",
                where=str(self.sqlite_file),
                mend="restore it from a backup, or point registry.url at another file",
            )
        return RegistryError(
            f"The registry's file cannot be used: {reason}.",
            where=str(self.sqlite_file),
            mend="check that the file and its folder exist and are readable and writable",
        )

    def _scrub(self, error: BaseException) -> str:
        text = " ".join(str(error).split()).rstrip(".")
        return text.replace(str(self.url.password), "***") if self.url.password else text


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError):
        # The URL itself stays out of the message: malformed, its password cannot be masked.
        raise ConfigError(
            "The registry's URL is malformed.",
            where="registry.url",
            mend="write postgresql+psycopg://user@host/database or sqlite:///path/registry.db",
        ) from None
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    shown = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise ConfigError(
            f"A registry cannot live in {parsed.get_backend_name()!r}.",
            where=f"registry.url={shown}",
            mend="use sqlite:///… or postgresql+psycopg://…",
        )
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise ConfigError(
            "A registry in memory would be forgotten when the process ends.",
            where=f"registry.url={shown}",
            mend="name a file: sqlite:///path/registry.db",
        )
    return parsed


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver's own implicit BEGIN is deferred, and would take the write lock too late.
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("perennial_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
