"""Where versions live: immutable, content-addressed, and promoted in one transaction.

Files are uploaded first; one SQL transaction then commits version, decision and alias, and
compares the champion that the caller expects with the one that serves. A process killed between
the two leaves files that no version refers to, which `Registry.sweep` removes a day later.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml
from filelock import FileLock, Timeout

from perennial import clock, paths
from perennial import files as durable
from perennial.data.forgotten import Forgotten
from perennial.errors import ConfigError, IntegrityError, NumberTakenError, RegistryError
from perennial.locks import TakenError
from perennial.promotion import erasure, schema
from perennial.promotion import looks as monitored
from perennial.promotion import windows as predicted
from perennial.promotion.records import (
    CycleRecord,
    Version,
    alias_of,
    changed,
    newest_cycle,
    newest_decision,
    promote_to,
    refuse_another_decision,
    set_alias,
    suggest,
    to_record,
)
from perennial.promotion.schema import aliases, cycles, version_files, versions
from perennial.promotion.store import (
    LayeredStore,
    LocalStore,
    Store,
    check_name,
    check_paths,
    open_store,
)

__all__ = ["DECISIONS", "MANIFEST_FILE", "CycleRecord", "Registry", "Version"]

MANIFEST_FILE = "version.yaml"
# folder of the files that later decisions on a version add to it
DECISIONS = "decisions"
# in a work folder: whose rows lie there
_LINEAGE = "lineage"

# the C loader is twenty times faster, and as safe
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_ORPHAN_SECONDS = 24 * 3600.0


class Registry:
    """Versions, their files, aliases and decisions.

    Args:
        url: SQLAlchemy URL: an SQLite file, or PostgreSQL for a team.
        files: Folder or fsspec URL of the files; None for ``files`` beside an SQLite file.
        read_only: Refuse everything that would change the registry.

    Raises:
        ConfigError: The URL cannot be used, or ``files`` is needed and missing.
    """

    def __init__(self, *, url: str, files: str | None = None, read_only: bool = False) -> None:
        self._database = schema.Database(url=url)
        self.read_only = read_only
        if self._database.sqlite_file is not None:
            self._base = self._database.sqlite_file.parent
        else:
            self._base = paths.home()
            if files is None:
                raise ConfigError(
                    "A registry on a database server needs a place for its files.",
                    where="registry.files",
                    mend="registry.files=s3://bucket/folder, or a path that all machines mount",
                )
        # The default folder lies beside its database, and cannot be another's.
        self._needs_claim = files is not None
        self._store: Store = open_store(
            files or str(self._base / "files"), cache=self._base / "cache"
        )

    def champion(self, name: str) -> Version | None:
        """The version that serves, or None; raises IntegrityError where its record was changed."""
        check_name(name, setting="model_name")
        with self._database.read() as connection:
            number = None if connection is None else alias_of(connection, name, "champion")
            if connection is None or number is None:
                return None
            version = self._versions(connection, name, number)[0]
        return self._verified(version)

    def version(self, ref: str) -> Version:
        """A version by ``name@champion``, ``name@previous`` or ``name@3``.

        Raises:
            RegistryError: There is none; the message lists what exists.
            IntegrityError: Its record in the database is not the one that was stored.
        """
        name, _, which = ref.partition("@")
        if not name or not which:
            raise RegistryError(
                f"{ref!r} does not name a version.", where=ref, mend="write name@champion or name@3"
            )
        with self._database.read() as connection:
            found: list[Version] = []
            if connection is not None:
                is_number = which.isascii() and which.isdigit()
                number = int(which) if is_number else alias_of(connection, name, which)
                found = [] if number is None else self._versions(connection, name, number)
        if not found:
            raise self._unknown(name, which, ref)
        return self._verified(found[0])

    def versions(self, name: str | None = None) -> list[Version]:
        """All versions, or those of one lineage, by name and number."""
        with self._database.read() as connection:
            return [] if connection is None else self._versions(connection, name)

    def lineages(self) -> list[str]:
        """Names of all lineages, sorted."""
        with self._database.read() as connection:
            if connection is None:
                return []
            query = sa.select(versions.c.name).distinct().order_by(versions.c.name)
            return list(connection.scalars(query))

    def aliases(self, name: str) -> dict[str, int]:
        """A lineage's aliases: ``champion``, ``previous``, ``candidate`` to version number."""
        with self._database.read() as connection:
            if connection is None:
                return {}
            query = sa.select(aliases.c.alias, aliases.c.version).where(aliases.c.name == name)
            return {row.alias: row.version for row in connection.execute(query)}

    def next_number(self, name: str) -> int:
        """The number that the lineage's next version gets, if no other run is faster."""
        with self._database.read() as connection:
            return 1 if connection is None else _next_number(connection, name)

    def commit(
        self,
        *,
        name: str,
        files: Mapping[str, Path | bytes],
        manifest: Mapping[str, Any],
        decision: Mapping[str, Any] | None,
        verdict: str,
        cycle_id: str,
        expected_champion: int | None,
        promote: bool,
        new_holdout: str | None,
        checkpoint_sha256: str | None = None,
        number: int | None = None,
        trial: bool = False,
        objective: float | None = None,
        device_seconds: float | None = None,
        decisions: int | None = None,
        erasures: int | None = None,
    ) -> Version:
        """Record a candidate and its decision, and promote it if asked.

        Args:
            name: The lineage.
            files: Path inside the version to a local file or bytes.
            manifest: Plain JSON values; stored as ``version.yaml`` with the files' hashes too.
            decision: The gate's decision as plain JSON values.
            verdict: ``promoted``, ``rejected``, ``inconclusive``.
            cycle_id: The cycle's identity.
            expected_champion: Champion that the candidate was compared with; None for none.
            promote: Move the champion's alias to the new version.
            new_holdout: SHA-256 of the new holdout that was decided on.
            checkpoint_sha256: The adopted checkpoint's, for a lineage's first version.
            number: The number that the files speak of, from `next_number`; None takes any.
            trial: Whether it is a trial of a sweep.
            objective: The candidate's best score on validation rows.
            device_seconds: What training took.
            decisions: How many decisions of the lineage there were when this one was charged for
                them; None does not ask.
            erasures: How many times rows of the lineage had been forgotten when its rows were read;
                None does not ask.

        Raises:
            ChampionChangedError: Another run promoted meanwhile; nothing was changed.
            NumberTakenError: Another run took the number, or decided; nothing was changed.
            RegistryError: A path or a value cannot be stored, or the database failed.
        """
        self._refuse_if_read_only()
        check_name(name, setting="model_name")
        check_name(cycle_id, setting="cycle_id")
        check_paths(files, where=f"{name}: files")
        later = any(path.startswith(f"{DECISIONS}/") for path in files)
        if MANIFEST_FILE in files or "files" in manifest or later:
            raise RegistryError(
                f"{MANIFEST_FILE}, its entry 'files' and what lies under {DECISIONS}/ are written "
                "by the registry itself.",
                where=name,
                mend="leave them out",
            )
        plain, decided = _to_json(manifest, "manifest"), _to_json(decision, "decision")
        if self._needs_claim:
            self._store.claim(self._database.identity())
            self._needs_claim = False
        hashes = {path: self._store.put(content) for path, content in sorted(files.items())}
        hashes[MANIFEST_FILE] = self._store.put(_yaml(json.loads(plain) | {"files": dict(hashes)}))
        with self._database.write() as connection:
            if erasures is not None:
                erasure.refuse_erased(connection, name, erasures)
            following = _next_number(connection, name)
            if number not in (None, following) or decisions not in (None, _count(connection, name)):
                raise NumberTakenError(
                    f"Another run committed or decided meanwhile: {name}@{number} is not the next.",
                    where=name,
                    mend="run the same command again",
                )
            number = following
            now = _now()
            connection.execute(
                versions.insert().values(
                    name=name,
                    number=number,
                    parent=expected_champion,
                    created=now,
                    cycle_id=cycle_id,
                    checkpoint_sha256=checkpoint_sha256,
                    manifest=plain,
                )
            )
            _insert_files(connection, name, number, hashes)
            connection.execute(
                cycles.insert().values(
                    cycle_id=cycle_id,
                    name=name,
                    champion=expected_champion,
                    candidate=number,
                    verdict=verdict,
                    applied=promote,
                    decision=None if decision is None else decided,
                    new_holdout=new_holdout,
                    decided_at=now,
                    number=1,
                    trial=trial,
                    objective=objective,
                    device_seconds=device_seconds,
                )
            )
            set_alias(connection, name, "candidate", number)
            if promote:
                promote_to(connection, name, number, expected=expected_champion, now=now)
            self._refuse_if_swept(hashes)
            return self._versions(connection, name, number)[0]

    def cycle(self, cycle_id: str) -> CycleRecord | None:
        """The newest decision under a cycle's id, or None."""
        with self._database.read() as connection:
            return None if connection is None else newest_cycle(connection, cycle_id)

    def decision(self, name: str, candidate: int) -> CycleRecord | None:
        """The newest decision on a version, or None."""
        with self._database.read() as connection:
            return None if connection is None else newest_decision(connection, name, candidate)

    def cycles(self, name: str) -> list[CycleRecord]:
        """A lineage's decisions, oldest first."""
        with self._database.read() as connection:
            if connection is None:
                return []
            query = sa.select(cycles).where(cycles.c.name == name)
            ordered = query.order_by(cycles.c.candidate, cycles.c.number)
            return [to_record(row) for row in connection.execute(ordered)]

    def apply(self, cycle_id: str) -> CycleRecord:
        """Promote the candidate of a cycle whose verdict was ``promoted`` but not applied.

        Raises:
            ChampionChangedError: The champion is no longer the one it was compared with.
            RegistryError: There is no such cycle, or its verdict was another.
        """
        self._refuse_if_read_only()
        with self._database.write() as connection:
            record = newest_cycle(connection, cycle_id)
            if record is None or record.verdict != "promoted":
                verdict = "was never decided" if record is None else f"was {record.verdict}"
                raise RegistryError(
                    f"Cycle {cycle_id} {verdict}: there is nothing to promote.",
                    where=self._database.shown,
                    mend="list decisions: perennial registry list",
                )
            if record.applied:
                champion = alias_of(connection, record.name, "champion")
                if champion != record.candidate:  # rolled back, or outdated by a later one
                    raise changed(record.name, record.candidate, champion)
                return record
            promote_to(
                connection, record.name, record.candidate, expected=record.champion, now=_now()
            )
            connection.execute(
                cycles.update()
                .where(
                    cycles.c.name == record.name,
                    cycles.c.cycle_id == cycle_id,
                    cycles.c.candidate == record.candidate,
                    cycles.c.number == record.number,
                )
                .values(applied=True)
            )
            found = newest_cycle(connection, cycle_id)
            assert found is not None
            return found

    def require_promotable(self, record: CycleRecord) -> None:
        """Refuse what `decide_again` would refuse, before any work."""
        self._refuse_if_read_only()
        with self._database.read() as connection:
            assert connection is not None
            refuse_another_decision(connection, record)

    def decide_again(
        self,
        record: CycleRecord,
        *,
        decision: Mapping[str, Any],
        verdict: str,
        files: Mapping[str, bytes],
        decisions: int,
        erasures: int | None = None,
    ) -> CycleRecord:
        """Record another decision on a stored candidate, and promote it if it says so.

        Args:
            record: The candidate's last decision.
            decision: The gate's new one as plain JSON values.
            verdict: ``promoted``, ``rejected``, ``inconclusive``.
            files: What the decision adds to the version's files, under ``decisions/<number>/``,
                where number is one more than the record's.
            decisions: How many decisions of the lineage this one was charged for.
            erasures: How many times rows of the lineage had been forgotten when this one was taken;
                None does not ask.

        Raises:
            ChampionChangedError: The champion is no longer the one it was compared with.
            RegistryError: The candidate has served already, or another was decided meanwhile.
        """
        self._refuse_if_read_only()
        decided, promoted = _to_json(decision, "decision"), verdict == "promoted"
        check_paths(files, where=f"{record.version}: files")
        assert all(path.startswith(f"{DECISIONS}/{record.number + 1}/") for path in files)
        hashes = {path: self._store.put(content) for path, content in sorted(files.items())}
        with self._database.write() as connection:
            refuse_another_decision(connection, record)
            if erasures is not None:
                erasure.refuse_erased(connection, record.name, erasures)
            if decisions != _count(connection, record.name):
                raise RegistryError(
                    f"Another run decided on {record.name} meanwhile, which changes what this "
                    "decision is charged.",
                    where=record.name,
                    mend="run the same command again",
                )
            again = replace(
                record,
                number=record.number + 1,
                verdict=verdict,
                applied=promoted,
                decision=json.loads(decided),
                decided_at=_now(),
                trial=False,
            )
            connection.execute(cycles.insert().values({**asdict(again), "decision": decided}))
            _insert_files(connection, record.name, record.candidate, hashes)
            if promoted:
                promote_to(
                    connection,
                    record.name,
                    record.candidate,
                    expected=record.champion,
                    now=again.decided_at,
                )
            self._refuse_if_swept(hashes)
        return again

    def rollback(self, name: str, *, to: int | None = None) -> Version:
        """Let an earlier version serve again; the champion becomes ``previous``.

        Args:
            name: The lineage.
            to: Version number; None for the previous champion.

        Raises:
            RegistryError: There is no champion, no previous one, or no such version.
        """
        self._refuse_if_read_only()
        if to is None and "previous" not in self.aliases(name) and name in self.lineages():
            raise RegistryError(
                f"{name} has had one champion only: there is nothing to roll back to.",
                where=name,
                mend=f"name a version: perennial registry rollback {name} --to NUMBER",
            )
        target = self.version(f"{name}@{'previous' if to is None else to}")
        if target.promoted is None:
            raise RegistryError(
                f"{target.id} never served: a rollback goes to a version that did.",
                where=name,
                mend="perennial registry list shows which ones did; a candidate is promoted by its "
                "own command, with promote=true",
            )
        with self._database.write() as connection:
            champion = alias_of(connection, name, "champion")
            if to is None and alias_of(connection, name, "previous") != target.number:
                raise changed(name, target.number, champion)
            if champion != target.number:
                promote_to(connection, name, target.number, expected=champion, now=_now())
            return self._versions(connection, name, target.number)[0]

    def forgotten(self, name: str) -> Forgotten:
        """What a lineage was told to forget, as salted hashes."""
        with self._database.read() as connection:
            return Forgotten() if connection is None else erasure.forgotten_by(connection, name)

    def erasures(self, name: str) -> list[erasure.Erasure]:
        """Records of what a lineage was told to forget, oldest first."""
        with self._database.read() as connection:
            return [] if connection is None else erasure.records(connection, name)

    def stage(self, content: Path | bytes) -> str:
        """Store a file that `erase` will point to; returns its SHA-256."""
        self._refuse_if_read_only()
        return self._store.put(content)

    def erase(
        self,
        name: str,
        *,
        ids: Collection[str],
        query: str,
        counts: Mapping[str, Any],
        before: Mapping[int, Mapping[str, str]],
        after: Mapping[int, Mapping[str, str]],
        recorded: predicted.Hashes,
        reduced: Mapping[tuple[int, str], str | None],
    ) -> erasure.Erasure:
        """Let versions go on without some of their rows, and never meet these again.

        Args:
            name: The lineage.
            ids: Row ids to forget; only salted hashes of them are kept.
            query: By what kind of query they were named.
            counts: Plain numbers for the record.
            before: Version number to its files, path to SHA-256, as they were looked at.
            after: The same without the rows; each file was staged.
            recorded: The lineage's recorded windows, as they were looked at.
            reduced: Those that change, to files without the rows, staged too; None where none is
                left.

        Raises:
            RegistryError: Versions or windows are no longer those that were looked at.
        """
        self._refuse_if_read_only()
        numbers = {version.number: version for version in self.versions(name)}
        named: dict[int, dict[str, str]] = {}
        for number, files in after.items():
            named[number] = dict(files)
            if named[number] != dict(before[number]) and number in numbers:
                hashes = _of_manifest(files)
                manifest = numbers[number].manifest | {"files": hashes}
                named[number][MANIFEST_FILE] = self._store.put(_yaml(manifest))
        with self._database.write() as connection:
            done = erasure.record(
                connection,
                name,
                ids=ids,
                query=query,
                counts=counts,
                before=before,
                after=named,
                recorded=recorded,
                reduced=reduced,
                now=_now(),
            )
            used = {path: sha for one in named.values() for path, sha in one.items()}
            of_windows = {window: sha for (_, window), sha in reduced.items() if sha is not None}
            self._refuse_if_swept(used | of_windows)
        return done

    def finish_erasures(self) -> int:
        """Delete files that were replaced and that nothing refers to; returns how many."""
        self._refuse_if_read_only()
        with self._database.read() as connection:
            if connection is None:
                return 0
        # under the writers' lock: a commit checks its files under the same lock
        with self._database.write() as connection:
            gone = erasure.unused(connection)
            for digest in gone:
                self._store.remove(digest)
            erasure.clear(connection)
        return len(gone)

    def windows(self, name: str, number: int | None = None) -> list[predicted.Window]:
        """Windows whose predictions were recorded, of a lineage or of one version, oldest first."""
        with self._database.read() as connection:
            if connection is None:
                return []
            return predicted.listed(
                connection, name, number, lambda digest, what: self._store.fetch(digest, what=what)
            )

    def keep_windows(
        self, version: Version, contents: Mapping[str, predicted.Content], *, erasures: int
    ) -> None:
        """Record what a version predicted for windows of rows, or labels that came: all or nothing.

        Args:
            version: That predicted.
            contents: Fingerprint of each window's rows to what it is to hold; what it holds already
                changes nothing.
            erasures: How many times rows of the lineage had been forgotten when these were read.

        Raises:
            RegistryError: Another process wrote to one of them, or rows were forgotten, meanwhile.
        """
        self._refuse_if_read_only()
        hashes = {window: self._store.put(one.content) for window, one in contents.items()}
        with self._database.write() as connection:
            erasure.refuse_erased(connection, version.name, erasures)
            predicted.keep(connection, version.name, version.number, contents, hashes)
            self._refuse_if_swept(hashes)

    def drop_windows(self, gone: Collection[predicted.Window]) -> int:
        """Keep windows no longer; a sweep deletes their files. Returns how many there were."""
        self._refuse_if_read_only()
        if not gone:
            return 0
        with self._database.write() as connection:
            return predicted.drop(connection, gone)

    def looks(self, version: Version) -> list[monitored.Look]:
        """What monitoring found in windows of a version, in the order in which they were met."""
        with self._database.read() as connection:
            if connection is None:
                return []
            return monitored.listed(connection, version.name, version.number)

    def keep_look(
        self, version: Version, window: str, *, looked_at: datetime, found: Mapping[str, Any]
    ) -> monitored.Look:
        """Record what monitoring found in a window; one that is recorded keeps place and time.

        Args:
            version: The window was held against it.
            window: Fingerprint of its rows.
            looked_at: When, aware.
            found: Plain JSON values, aggregates alone.
        """
        self._refuse_if_read_only()
        told = _to_json(found, "found")
        with self._database.write() as connection:
            return monitored.keep(connection, version.name, version.number, window, looked_at, told)

    def remove_copies(self, name: str) -> int:
        """Remove a lineage's exported folders and unfinished work; returns how much work there was.

        Raises:
            RegistryError: A cycle of the lineage is running here.
        """
        self._refuse_if_read_only()
        check_name(name, setting="model_name")
        folders = [
            marker.parent
            for marker in sorted((self._base / "cycles").glob(f"*/{_LINEAGE}"))
            if marker.read_text() == name
        ]
        for folder in folders:
            with self.working(folder.name):
                pass  # refuses where a process is at it
        for folder in (*folders, self._base / "versions" / name):
            with suppress(FileNotFoundError):
                shutil.rmtree(folder)
        return len(folders)

    def adopted_checkpoint(self, name: str) -> str | None:
        """SHA-256 of the checkpoint that founded a lineage, or None."""
        with self._database.read() as connection:
            if connection is None:
                return None
            query = (
                sa.select(versions.c.checkpoint_sha256)
                .where(versions.c.name == name)
                .order_by(versions.c.number)
                .limit(1)
            )
            found: str | None = connection.scalar(query)
            return found

    def export(self, ref: str, folder: Path | None = None) -> Path:
        """A folder with a version's files under their human names, each one verified.

        Args:
            ref: ``name@champion``, ``name@3``, …
            folder: Target; None for ``versions/<name>/<number>`` beside the registry.

        Raises:
            IntegrityError: A stored file is damaged or gone.
        """
        version = self.version(ref)
        check_paths(version.files, where=version.id)
        target = folder or self._base / "versions" / version.name / str(version.number)
        for path, digest in version.files.items():
            _place(version.open(path), target / path, digest)
        return target

    def work_folder(self, cycle_id: str) -> Path:
        """Local folder of a cycle's unfinished work; the caller creates it."""
        return self._base / "cycles" / check_name(cycle_id, setting="cycle_id")

    @contextmanager
    def working(self, cycle_id: str, *, name: str | None = None) -> Iterator[None]:
        """Hold a cycle's work folder, so that no second process works in it; freed when killed.

        Args:
            cycle_id: The cycle's identity.
            name: The lineage whose rows will lie there; None for one that has worked there before.

        Raises:
            RegistryError: Another process is at it.
        """
        folder = self.work_folder(cycle_id)
        lock = FileLock(folder / "lock", timeout=0)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            if name is not None:
                (folder / _LINEAGE).write_text(name)
        except Timeout:
            raise RegistryError(
                "Another process is at this very cycle.",
                where=str(folder),
                mend="wait until it has ended; the same command then tells what it decided",
            ) from None
        except OSError as error:
            raise durable.storage_error(error, folder) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def watching(self, name: str) -> Iterator[None]:
        """Hold a lineage for the one process that follows its source; freed when killed.

        Raises:
            RegistryError: Another process follows it.
        """
        self._refuse_if_read_only()
        check_name(name, setting="model_name")
        try:
            with self._database.alone(f"watch-{name}"):
                yield
        except TakenError:
            raise RegistryError(
                "Another process watches this lineage.",
                where=name,
                mend="leave it to that one, or stop it first",
            ) from None

    def untold(self, name: str) -> list[CycleRecord]:
        """Decided cycles whose work folder is still there, and which no process is at."""
        found = []
        for folder in sorted((self._base / "cycles").glob("*")):
            record = self.cycle(folder.name)
            if record is None or record.name != name or record.new_holdout is None:
                continue
            with suppress(RegistryError), self.working(folder.name):
                found.append(record)
        return found

    def remove_work_folder(self, cycle_id: str) -> None:
        """Remove a cycle's work, once it was committed."""
        folder = self.work_folder(cycle_id)
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise durable.storage_error(error, folder) from error

    def sweep(self) -> int:
        """Remove what killed processes left: half-written files, and day-old unused blobs."""
        removed = self.finish_erasures()
        folders = [self._base / part for part in ("cycles", "versions", "cache", "files")]
        if isinstance(self._store, LocalStore) and self._store.root not in folders:
            folders.append(self._store.root)
        removed += sum(durable.sweep(folder) for folder in folders if folder.is_dir())
        with self._database.read() as connection:
            if connection is None:
                return removed
        # Under the writers' lock: a commit checks its blobs under the same lock.
        with self._database.write() as connection:
            tables = (version_files, schema.windows)
            used = {sha for one in tables for sha in connection.scalars(sa.select(one.c.sha256))}
            return removed + self._store.remove_unless(
                used, older_than=time.time() - _ORPHAN_SECONDS
            )

    def scratch(self, folder: Path) -> Registry:
        """A throw-away registry that starts as a copy and never writes to this one.

        Args:
            folder: Its own folder; files that it lacks are read from this registry.
        """
        copy = Registry(url=f"sqlite:///{folder.absolute() / 'registry.db'}")
        copy._store = LayeredStore(copy._store, self._store)
        with self._database.read() as source, copy._database.write() as target:
            if target.scalar(sa.select(sa.func.count()).select_from(versions)):
                raise RegistryError(
                    "The folder already holds a registry.",
                    where=str(folder),
                    mend="name an empty folder",
                )
            for table in schema.metadata.sorted_tables if source is not None else []:
                assert source is not None
                rows = [dict(row) for row in source.execute(sa.select(table)).mappings()]
                if rows and table is not schema.meta:
                    target.execute(table.insert(), rows)
        return copy

    def _versions(
        self, connection: sa.Connection, name: str | None = None, number: int | None = None
    ) -> list[Version]:
        query, of_files = sa.select(versions), sa.select(version_files)
        if name is not None:
            query = query.where(versions.c.name == name)
            of_files = of_files.where(version_files.c.name == name)
        if number is not None:
            query = query.where(versions.c.number == number)
            of_files = of_files.where(version_files.c.number == number)
        hashes: dict[tuple[str, int], dict[str, str]] = {}
        for row in connection.execute(of_files.order_by(version_files.c.path)):
            hashes.setdefault((row.name, row.number), {})[row.path] = row.sha256
        return [
            Version(
                id=f"{row.name}@{row.number}",
                name=row.name,
                number=row.number,
                parent=row.parent,
                created=row.created,
                manifest=json.loads(row.manifest),
                files=hashes.get((row.name, row.number), {}),
                promoted=row.promoted,
                _fetch=lambda digest, what: self._store.fetch(digest, what=what),
            )
            for row in connection.execute(query.order_by(versions.c.name, versions.c.number))
        ]

    def _verified(self, version: Version) -> Version:
        """The version, whose record in the database agrees with its hashed file."""
        stored = yaml.load(version.read_text(MANIFEST_FILE), Loader=_LOADER)  # noqa: S506
        if stored != {**version.manifest, "files": _of_manifest(version.files)}:
            raise IntegrityError(
                f"The database's record of {version.id} is not the one that was stored.",
                where=self._database.shown,
                mend="restore the registry from a backup",
            )
        return version

    def _unknown(self, name: str, which: str, ref: str) -> RegistryError:
        lineages = self.lineages()
        if name not in lineages:
            return RegistryError(
                f"The registry has no model named {name!r}.",
                where=self._database.shown,
                mend=suggest(name, lineages),
            )
        known = [*sorted(self.aliases(name)), *(str(v.number) for v in self.versions(name))]
        return RegistryError(
            f"{name} has no version {which!r}.", where=ref, mend=suggest(which, known)
        )

    def _refuse_if_read_only(self) -> None:
        if self.read_only:
            raise RegistryError(
                "This registry was opened for reading only.",
                where=self._database.shown,
                mend="open it without read_only=true",
            )

    def _refuse_if_swept(self, hashes: Mapping[str, str]) -> None:
        gone = [path for path, digest in hashes.items() if not self._store.has(digest)]
        if gone:
            raise RegistryError(
                f"Files were removed while they were committed: {', '.join(gone)}.",
                where=self._store.shown,
                mend="run the same command again",
            )


def _of_manifest(files: Mapping[str, str]) -> dict[str, str]:
    """The files that a version's manifest names: those of its own cycle."""
    return {
        path: digest
        for path, digest in files.items()
        if path != MANIFEST_FILE and not path.startswith(f"{DECISIONS}/")
    }


def _next_number(connection: sa.Connection, name: str) -> int:
    highest = sa.select(sa.func.max(versions.c.number)).where(versions.c.name == name)
    return int(connection.scalar(highest) or 0) + 1


def _count(connection: sa.Connection, name: str) -> int:
    """Decisions and trials of a lineage: what a charge was computed from."""
    query = sa.select(sa.func.count()).select_from(cycles).where(cycles.c.name == name)
    return int(connection.scalar(query) or 0)


def _insert_files(
    connection: sa.Connection, name: str, number: int, hashes: Mapping[str, str]
) -> None:
    rows = [
        {"name": name, "number": number, "path": path, "sha256": digest}
        for path, digest in hashes.items()
    ]
    if rows:
        connection.execute(version_files.insert(), rows)


def _place(source: Path, target: Path, digest: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            if target.samefile(source) or durable.hash_file(target) == digest:
                return
            target.unlink()
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another file system, or one without hard links: a copy serves as well
    except OSError as error:
        raise durable.storage_error(error, target) from error
    with open(source, "rb") as file:
        written = durable.write(target, lambda out: shutil.copyfileobj(file, out, 1 << 20))
    if written != digest:
        raise IntegrityError("A stored file changed while it was copied.", where=str(source))


def _to_json(value: Mapping[str, Any] | None, what: str) -> str:
    try:
        return json.dumps(None if value is None else dict(value), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RegistryError(
            f"The {what} cannot be stored: {error}.",
            where=what,
            mend="use plain values: text, finite numbers, true/false, null, lists and mappings",
        ) from None


def _yaml(value: dict[str, Any]) -> bytes:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text.encode()


def _now() -> str:
    return clock.now().isoformat(timespec="milliseconds")
