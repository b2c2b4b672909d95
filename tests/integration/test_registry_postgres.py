"""The registry, and queries as sources, on a real PostgreSQL server."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from perennial.data.opening import open_source
from perennial.errors import ChampionChangedError, DataError, RegistryError
from perennial.promotion.multiplicity import Charge, charge, decisions_on
from perennial.promotion.registry import Registry, Version
from support.postgres import BINARIES

pytestmark = pytest.mark.skipif(not BINARIES, reason="PostgreSQL server not installed")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / "home"))
    return str(tmp_path / "files")


def commit(registry: Registry, cycle_id: str, expected: int | None, **changes: Any) -> Version:
    settings: dict[str, Any] = {
        "name": "digits",
        "files": {"model.safetensors": cycle_id.encode()},
        "manifest": {"seed": 0, "names": ["één"]},
        "decision": {"verdict": "promoted"},
        "verdict": "promoted",
        "cycle_id": cycle_id,
        "expected_champion": expected,
        "promote": True,
        "new_holdout": "h",
    }
    return registry.commit(**(settings | changes))


def test_trials_and_repeated_decisions(url: str, files: str) -> None:
    registry = Registry(url=url, files=files)
    commit(registry, "c1", None, new_holdout=None)
    for number, objective in enumerate((0.5, 0.9)):
        commit(registry, f"t{number}", 1, promote=False, trial=True, objective=objective)
    champion, rows = registry.version("digits@1"), np.array(["a"])
    earlier = decisions_on(registry, champion, new_holdout="h", row_id=rows)
    assert [(one.trial, one.objective) for one in earlier] == [(True, 0.5), (True, 0.9)]
    assert charge(earlier, cycle_id="t1") == Charge(1, trials=2, best=True)

    def known() -> int:
        return len(registry.cycles("digits"))

    again = registry.decide_again(
        earlier[1], decision={"a": 1}, verdict="promoted", files={}, decisions=known()
    )
    assert registry.aliases("digits") == {"champion": 3, "previous": 1, "candidate": 3}
    assert registry.cycles("digits")[1:] == [*earlier, again]
    with pytest.raises(RegistryError, match="serves already"):
        registry.decide_again(again, decision={}, verdict="promoted", files={}, decisions=known())
    with pytest.raises(ChampionChangedError):
        registry.decide_again(
            earlier[0], decision={}, verdict="promoted", files={}, decisions=known()
        )


def race(
    url: str, files: str, cycle_id: str, expected: int | None, barrier: Any, results: Any
) -> None:
    registry = Registry(url=url, files=files)
    barrier.wait()
    try:
        results.put(commit(registry, cycle_id, expected, promote=expected != 0).id)
    except ChampionChangedError:
        results.put("changed")
    except RegistryError as error:
        results.put(str(error))


def run_race(url: str, files: str, expected: int | None) -> list[str]:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    runs = [
        context.Process(target=race, args=(url, files, name, expected, barrier, results))
        for name in ("a", "b", "c")
    ]
    for run in runs:
        run.start()
    found = sorted(results.get(timeout=60) for _ in runs)
    for run in runs:
        run.join()
        run.close()
    results.close()
    results.join_thread()
    return found


def test_commit_promote_and_roll_back(url: str, files: str, tmp_path: Path) -> None:
    registry = Registry(url=url, files=files)
    assert registry.champion("digits") is None
    assert registry.sweep() == 0
    first = commit(registry, "c1", None, checkpoint_sha256="ab")
    commit(registry, "c2", 1)
    commit(registry, "c3", 2, promote=False)
    assert registry.version("digits@previous") == Registry(url=url, files=files).version("digits@1")
    assert first.read_text("model.safetensors") == "c1"
    assert first.manifest == {"seed": 0, "names": ["één"]}
    assert registry.adopted_checkpoint("digits") == "ab"
    assert registry.apply("c3").applied
    assert registry.aliases("digits") == {"champion": 3, "previous": 2, "candidate": 3}
    with pytest.raises(ChampionChangedError):
        commit(registry, "c4", 2)
    with pytest.raises(ChampionChangedError):
        commit(registry, "c4", None)
    assert len(registry.versions()) == 3
    assert registry.rollback("digits", to=1) == first
    assert registry.export("digits@1") == tmp_path / "home" / "versions" / "digits" / "1"
    assert registry.scratch(tmp_path / "scratch").cycles("digits") == registry.cycles("digits")
    assert registry.sweep() == 0


@pytest.mark.parametrize("expected", [None, 1])
def test_of_racing_processes_one_promotes(url: str, files: str, expected: int | None) -> None:
    """Without a champion the three also race to create the tables."""
    registry = Registry(url=url, files=files)
    if expected is not None:
        commit(registry, "c1", None)
    number = (expected or 0) + 1
    assert run_race(url, files, expected) == ["changed", "changed", f"digits@{number}"]
    assert registry.aliases("digits")["champion"] == number
    assert len(registry.versions()) == number


def test_racing_commits_that_do_not_promote_all_succeed(url: str, files: str) -> None:
    assert run_race(url, files, 0) == ["digits@1", "digits@2", "digits@3"]


def test_errors_name_the_server_without_the_password(url: str, files: str) -> None:
    registry = Registry(url=url.replace("s3cret", "wr0ng"), files=files)
    with pytest.raises(RegistryError, match="cannot be reached") as caught:
        registry.champion("digits")
    assert "wr0ng" not in str(caught.value)


def test_a_newer_schema_is_refused(url: str, files: str) -> None:
    registry = Registry(url=url, files=files)
    commit(registry, "c1", None)
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.text("UPDATE meta SET schema_version = 99"))
    with pytest.raises(RegistryError, match="upgrade perennial"):
        commit(registry, "c2", 1)


@pytest.mark.parametrize(
    "query",
    [
        "drop table visits",
        "select * into others from visits",
        "with gone as (delete from visits returning *) select * from gone",
        "select 1; commit; drop table visits",
        "select $x$'$x$; commit; drop table visits; select '1'",
        r"select E'\', '; commit; drop table visits; --'",
    ],
)
def test_a_query_only_reads(url: str, query: str) -> None:
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.text("create table visits as select 1.5 as a, 'cat' as label"))
    with pytest.raises(DataError, match=r"one statement that reads|read-only transaction"):
        open_source({"sql": query, "url": url}, name="new")
    spec = {"sql": "select a::int as a, label, 'b%s:c' as b from visits", "url": url}
    assert open_source(spec, name="new").to_dict() == {"a": [2], "label": ["cat"], "b": ["b%s:c"]}
