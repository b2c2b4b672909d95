"""Forgetting that is killed at any instant: the registry is whole, and the same command finishes.

Each case is a fork that kills itself with SIGKILL at one of its own writes, syncs, renames and
database calls, or is killed from outside after a random time.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from perennial import cycle as story
from perennial.data.store import read_rows_file
from perennial.promotion.registry import Registry
from perennial.steps import forget, page, rewrite  # noqa: F401
from perennial.steps.rewrite import is_rows
from perennial.verbs.forget import forget_verb
from support.animals import COMMON, frame, traces
from support.killed import Points, wait
from support.postgres import BINARIES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
USER = "user-011-"


@dataclass
class Place:
    """A registry that can be put back as it was.

    Attributes:
        home: Of its files.
        url: Of its database.
        reset: Puts both back.
    """

    home: Path
    url: str
    reset: Callable[[], None]

    @property
    def registry(self) -> Registry:
        return Registry(url=self.url, files=str(self.home / "files"))

    def words(self) -> str:
        """All that the database holds."""
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            found = sa.MetaData()
            found.reflect(connection)
            return str([connection.execute(sa.select(one)).all() for one in found.sorted_tables])


def in_fork(place: Place, kill_at: int | None = None) -> int:
    """Start ``perennial forget``; returns its process id."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        points = Points(kill_at)
        points.install()
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 1)
            os.dup2(null.fileno(), 2)
        where = ("--url", place.url, "--files", str(place.home / "files"))
        forget_verb(["animals", f"where=user={USER}", *where])
        (place.home.parent / "count").write_text(str(points.count))
        code = 0
    finally:
        os._exit(code)


@pytest.fixture(params=["sqlite", "postgres"])
def place(
    request: pytest.FixtureRequest,
    run: Callable[..., dict[str, Any]],
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Place]:
    """Two promoted versions."""
    if request.param == "postgres" and not BINARIES:
        pytest.skip("PostgreSQL server not installed")
    server = request.getfixturevalue("url") if request.param == "postgres" else None
    url = server or f"sqlite:///{home / 'registry.db'}"
    decide = story.decide
    monkeypatch.setattr(
        story, "decide", lambda *args, **kw: replace(decide(*args, **kw), verdict="promoted")
    )
    sources = [tmp_path / f"{seed}.parquet" for seed in range(2)]
    for seed, path in enumerate(sources):
        frame(700 if not seed else 400, seed=seed).to_parquet(path)
    done = run(
        *COMMON, f"data.history={sources[0]}", f"data.new={sources[1]}", f"registry.url={url}",
        f"registry.files={home / 'files'}",
    )  # fmt: skip
    assert done["status"] == "promoted"
    whole = tmp_path / "whole"
    shutil.copytree(home, whole)
    if server is None:
        yield Place(home, url, lambda: _put_back(home, whole))
        return
    admin = sa.create_engine(
        sa.engine.make_url(server).set(database="template1"),
        isolation_level="AUTOCOMMIT",
        poolclass=sa.NullPool,
    )

    def reset() -> None:
        _put_back(home, whole)
        with admin.connect() as connection:
            connection.execute(sa.text("DROP DATABASE IF EXISTS work WITH (FORCE)"))
            connection.execute(sa.text("CREATE DATABASE work TEMPLATE postgres"))

    own = sa.engine.make_url(server).set(database="work")
    yield Place(home, own.render_as_string(hide_password=False), reset)


def _put_back(home: Path, whole: Path) -> None:
    shutil.rmtree(home)
    shutil.copytree(whole, home)


def check_whole(place: Place) -> None:
    """Every version's files are there, and what their hashes say."""
    versions = place.registry.versions("animals")
    assert [one.number for one in versions] == [1, 2]
    assert place.registry.aliases("animals")["champion"] == 2
    for version in versions:
        for path in version.files:
            version.open(path)


def check_gone(place: Place, expected: dict[int, dict[str, str]]) -> None:
    """The rows are nowhere, all others are there, and it is recorded once."""
    check_whole(place)
    found = {one.number: dict(one.files) for one in place.registry.versions("animals")}
    assert found == expected
    assert traces(place.home, [USER]) == []
    assert USER not in place.words()
    assert [one.query for one in place.registry.erasures("animals")] == ["where"]
    assert list(place.home.rglob(".tmp-*")) == []


def finish(place: Place, expected: dict[int, dict[str, str]]) -> None:
    """After a kill: whole now, and done after the same command."""
    check_whole(place)
    assert wait(in_fork(place)) == 0
    check_gone(place, expected)


def test_killed_anywhere_the_same_command_finishes(place: Place) -> None:
    place.reset()
    assert USER in place.words() or traces(place.home, [USER])
    kept = {
        one.number: len(rows_of(place, one.number)) for one in place.registry.versions("animals")
    }
    started = time.monotonic()
    assert wait(in_fork(place)) == 0
    duration = time.monotonic() - started
    expected = {one.number: dict(one.files) for one in place.registry.versions("animals")}
    check_gone(place, expected)
    for number, before in kept.items():
        left = rows_of(place, number)
        assert 0 < len(left) < before
    points = int((place.home.parent / "count").read_text())
    assert points > 50
    generator = random.Random(0)
    for point in sorted(generator.sample(range(1, points + 1), 8)):
        place.reset()
        assert wait(in_fork(place, kill_at=point)) is None, point
        finish(place, expected)
    for _ in range(3):
        place.reset()
        child = in_fork(place)
        time.sleep(generator.uniform(0, 1) * duration)
        os.kill(child, signal.SIGKILL)
        wait(child)
        finish(place, expected)


def rows_of(place: Place, number: int) -> set[str]:
    """Ids of all rows that a version's files keep."""
    version = place.registry.version(f"animals@{number}")
    found: set[str] = set()
    for path in version.files:
        if is_rows(path):
            found |= set(read_rows_file(version.open(path))[0].id.tolist())
    return found
