"""A sweep's trials on a real PostgreSQL server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from perennial.errors import RegistryError
from perennial.sweeping.storage import alone
from support.postgres import BINARIES
from support.sweeps import kill_and_resume, params
from support.trials import champion, quick

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BINARIES, reason="PostgreSQL server not installed"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def test_twenty_trials_killed_twice_end_as_twenty(url: str) -> None:
    ended = kill_and_resume(url, seed=0)
    assert len(set(params(ended))) == len(ended) == 20
    assert {one.outcome.state for one in ended} == {"finished"}


def test_a_study_is_held_by_one_process_and_told_when_lost(url: str) -> None:
    with alone(url, "mine") as held:
        held()
        with pytest.raises(RegistryError, match="Another process"), alone(url, "mine"):
            pass
        with alone(url, "other"):
            pass
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:  # as a server that restarts
            words = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            connection.execute(sa.text(words))
        with pytest.raises(RegistryError, match="cannot be used") as lost:
            held()
        assert "s3cret" not in str(lost.value)
    with alone(url, "mine"):
        pass


def test_a_search_keeps_its_study_on_a_server(
    url: str,
    verb: Callable[..., tuple[int, str, str]],
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    champion(home)
    quick(monkeypatch)
    given = ["-m", "sweep=optuna", "sweep.trials=4", "sweep.jobs=2", f"sweep.storage={url}"]
    code, _, errors = verb("train", *given, "seed=1,2,3,4,5,6", "tracking=none")
    assert code == 0, errors
    (path,) = tmp_path.glob("multirun/*/sweep.json")
    assert json.loads(path.read_text())["counts"]["finished"] == 4
    assert not [path for path in tmp_path.rglob("*.*") if b"s3cret" in _read(path)]


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
