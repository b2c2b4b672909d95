"""What a lineage is after a sequence of cycles: a registry of its own for each such state.

A state is known by its path: what founded it, and which windows were learned when, under which
settings. Policies that have decided alike so far are in the same state, and what leads to it is
run once. A state's folder gets its name when it is whole; one that was interrupted is made anew.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from perennial import files
from perennial.errors import ConfigError

DATABASE = "registry.db"
_RECORD, _PARTIAL, _SCORES = "state.json", ".partial", "scores"


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a founding or a cycle came to.

    Attributes:
        verdict: ``bootstrap`` of a founding, else the gate's; ``failed`` where its rows could not
            be used, which no state comes of.
        applied: Whether the version that it made serves.
        serving: The version that serves after it.
        device_seconds: In training.
        train_rows: Rows trained on, replayed ones included, with repetition.
        replayed_rows: Of these, replayed.
        optimizer_steps: Steps taken.
        reason: Why it failed.
    """

    verdict: str
    applied: bool
    serving: str
    device_seconds: float = 0.0
    train_rows: int = 0
    replayed_rows: int = 0
    optimizer_steps: int = 0
    reason: str | None = None


@dataclass(frozen=True)
class State:
    """A lineage after a sequence of cycles.

    Attributes:
        id: Of the sequence.
        folder: Where its registry lies.
        learned: The last window whose rows the serving version has learned; the one before the
            timeline's first for what was founded and never retrained.
        ran: What led here from the state before.
    """

    id: str
    folder: Path
    learned: int
    ran: Ran

    @property
    def serving(self) -> str:
        """The version that serves."""
        return self.ran.serving

    @property
    def url(self) -> str:
        """Of its registry."""
        return _url(self.folder)


class States:
    """The states of one backtest folder.

    Args:
        folder: Theirs, and nobody else's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "states"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, so that one process works in it.

        Raises:
            ConfigError: Another one does.
            StorageError: The folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock")
            lock.acquire(timeout=0)
        except Timeout as error:
            raise ConfigError(
                "Another backtest works in this folder.",
                where=f"folder={self.folder.parent}",
                mend="wait for it, or give this one a folder of its own",
            ) from error
        except OSError as error:
            raise files.storage_error(error, self.folder) from error
        try:
            yield
        finally:
            lock.release()

    def reach(
        self,
        identity: Mapping[str, Any],
        *,
        after: State | None,
        learned: int,
        work: Callable[[str], Ran],
    ) -> State:
        """The state that some work leads to; the work is done where nobody has done it.

        Args:
            identity: Plain values that say what the work is.
            after: The state that it starts from; None for an empty registry.
            learned: The last window that is learned where the version comes to serve.
            work: Does it in the registry at a URL.

        Raises:
            StorageError: The folder cannot be written.
        """
        known = files.digest([after.id if after else None, identity])[:32]
        folder = self.folder / known
        if (folder / _RECORD).is_file():
            return self._read(known)
        partial = self.folder / f"{known}{_PARTIAL}"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            if after is not None:
                _copy(after.folder, partial)
        except OSError as error:
            raise files.storage_error(error, partial) from error
        ran = work(_url(partial))
        reached = learned if ran.applied else after.learned if after else learned
        files.write_json(partial / _RECORD, {"learned": reached, "ran": asdict(ran)})
        files.rename(partial, folder)
        return self._read(known)

    def _read(self, known: str) -> State:
        folder = self.folder / known
        record = json.loads((folder / _RECORD).read_text())
        return State(known, folder, record["learned"], Ran(**record["ran"]))


def kept_score(state: State, key: Any, score: Callable[[], float]) -> float:
    """A score of the version that serves in a state, computed once.

    Args:
        state: The state.
        key: Plain values that say what is scored, and by what.
        score: Computes it.
    """
    path = state.folder / _SCORES / f"{files.digest(key)[:32]}.json"
    if path.is_file():
        return float(json.loads(path.read_text())["score"])
    path.parent.mkdir(exist_ok=True)
    value = score()
    files.write_json(path, {"score": value})
    return value


def _url(folder: Path) -> str:
    return f"sqlite:///{folder.absolute() / DATABASE}"


def _copy(source: Path, target: Path) -> None:
    """A registry beside another one; files, which never change, are linked where they can be."""
    shutil.copy2(source / DATABASE, target / DATABASE)
    shutil.copytree(source / "files", target / "files", copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
