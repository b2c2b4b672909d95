"""States of a lineage: made once, whole or not at all."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from perennial.backtest.states import DATABASE, Ran, State, States, kept_score
from perennial.errors import ConfigError

RAN = Ran(
    verdict="promoted",
    applied=True,
    serving="m@1",
    device_seconds=1.5,
    train_rows=10,
    replayed_rows=2,
    optimizer_steps=3,
)


def database(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def writing(word: str, ran: Ran = RAN) -> Callable[[str], Ran]:
    """Work that adds a word to a database and a file to its folder."""

    def work(url: str) -> Ran:
        path = database(url)
        with sqlite3.connect(path) as connection:
            connection.execute("create table if not exists words (word text)")
            connection.execute("insert into words values (?)", (word,))
        connection.close()
        file = path.parent / "files" / word
        file.parent.mkdir(exist_ok=True)
        file.write_text(word)
        return ran

    return work


def refused(url: str) -> Ran:
    raise AssertionError("done twice")


def words(state: State) -> list[str]:
    connection = sqlite3.connect(state.folder / DATABASE)
    found = [word for (word,) in connection.execute("select word from words")]
    connection.close()
    assert sorted(path.name for path in (state.folder / "files").iterdir()) == sorted(found)
    return found


def test_a_state_is_made_once_and_goes_on_from_another(tmp_path: Path) -> None:
    states = States(tmp_path)
    with states.locked():
        first = states.reach({"a": 1}, after=None, learned=3, work=writing("one"))
        second = states.reach({"b": 2}, after=first, learned=4, work=writing("two"))
        assert states.reach({"a": 1}, after=None, learned=3, work=refused) == first
        assert states.reach({"b": 2}, after=first, learned=4, work=refused) == second
        other = states.reach({"b": 3}, after=first, learned=5, work=writing("three"))
        third = states.reach({"b": 2}, after=second, learned=6, work=writing("four"))
    assert [words(state) for state in (first, second, other, third)] == [
        ["one"],
        ["one", "two"],
        ["one", "three"],
        ["one", "two", "four"],
    ]
    assert second.ran == RAN
    assert second.url == f"sqlite:///{second.folder / DATABASE}"


def test_what_does_not_serve_has_learned_nothing(tmp_path: Path) -> None:
    states = States(tmp_path)
    with states.locked():
        first = states.reach({"a": 1}, after=None, learned=3, work=writing("one"))
        held = replace(RAN, verdict="rejected", applied=False)
        second = states.reach({"b": 2}, after=first, learned=4, work=writing("two", held))
    assert (first.learned, second.learned) == (3, 3)


def test_work_that_failed_or_was_killed_is_done_anew(tmp_path: Path) -> None:
    states = States(tmp_path)

    def failing(url: str) -> Ran:
        writing("half")(url)
        raise ConfigError("no")

    def killed(url: str) -> Ran:
        writing("half")(url)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    with states.locked():
        first = states.reach({"a": 1}, after=None, learned=3, work=writing("one"))
        with pytest.raises(ConfigError):
            states.reach({"b": 2}, after=first, learned=4, work=failing)
    child = os.fork()
    if not child:
        with States(tmp_path).locked():
            States(tmp_path).reach({"b": 2}, after=first, learned=4, work=killed)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with states.locked():
        second = states.reach({"b": 2}, after=first, learned=4, work=writing("two"))
    assert words(second) == ["one", "two"]
    assert not list(tmp_path.rglob("*.partial"))


def test_a_folder_is_one_processes(tmp_path: Path) -> None:
    states = States(tmp_path)
    with (
        states.locked(),
        pytest.raises(ConfigError, match="Another backtest works in this folder"),
        States(tmp_path).locked(),
    ):
        pass
    with States(tmp_path).locked():
        pass


def test_a_score_is_computed_once(tmp_path: Path) -> None:
    states = States(tmp_path)
    with states.locked():
        state = states.reach({"a": 1}, after=None, learned=3, work=writing("one"))
    assert kept_score(state, ["auc", "w1"], lambda: 0.1 + 0.2) == 0.1 + 0.2
    assert kept_score(state, ["auc", "w1"], lambda: 9.0) == 0.1 + 0.2
    assert kept_score(state, ["auc", "w2"], lambda: 9.0) == 9.0
