"""Rows that are forgotten are in no file, in no later cycle, and nowhere said which they were."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perennial import cycle as story
from perennial.data.query import Query
from perennial.data.store import read_rows_file
from perennial.errors import ConfigError, RegistryError
from perennial.monitoring.performance import read
from perennial.promotion import erasure, predictions
from perennial.promotion.registry import Registry
from perennial.promotion.store import LocalStore
from perennial.steps.forget import forget, plan
from perennial.steps.page import redrawn
from perennial.steps.predicted import keep_predictions
from perennial.steps.remember import remembered
from perennial.types import Predictions
from support.animals import COMMON, NAMES, frame, traces
from support.remembered import stored

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{seed}.parquet" for seed in range(3)]
    for seed, path in enumerate(paths):
        frame(700 if not seed else 400, seed=seed).to_parquet(path)
    return [str(path) for path in paths]


@pytest.fixture
def lineage(
    run: Run, home: Path, sources: list[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """Two promoted versions; runs another cycle."""
    decide = story.decide
    monkeypatch.setattr(
        story, "decide", lambda *args, **kw: replace(decide(*args, **kw), verdict="promoted")
    )
    settings = (*COMMON, f"data.history={sources[0]}")
    assert run(*settings, f"data.new={sources[1]}")["status"] == "promoted"
    watch(opened(home), sources[1])
    return lambda *extra: run(*settings, f"data.new={sources[2]}", *extra)


def watch(registry: Registry, source: str) -> None:
    """Record predictions of the champion for a file's rows, and for one row a window of its own."""
    version, table = registry.version("animals@2"), pd.read_parquet(source)
    ids, user = table.rid.to_numpy(str), table.user.to_numpy(str)
    for window, part in (("many", ids), ("one", ids[user == "user-011-"][:1])):
        keep_predictions(
            registry,
            version,
            window=window,
            ids=part,
            found=Predictions(np.zeros(len(part), int), np.ones(len(part)), np.zeros(len(part))),
            time=None,
            now=datetime.now(UTC),
            where="data.new",
        )


def predicted(registry: Registry) -> set[str]:
    return {one for w in registry.windows("animals") for one in read(w.open()).id.tolist()}


def opened(home: Path) -> Registry:
    return Registry(url=f"sqlite:///{home / 'registry.db'}")


def test_forgotten_rows_are_nowhere_and_stay_away(
    lineage: Run, home: Path, sources: list[str]
) -> None:
    registry = opened(home)
    table = pd.concat([pd.read_parquet(path) for path in sources])
    before = registry.version("animals@2")
    kept = stored(before, names=NAMES)
    user = str(kept.cluster[0])
    one = str(read_rows_file(before.open("holdout/cycle-1.arrow"))[0].id[3])
    ids = sorted({*table.rid[table.user == user][:-1].tolist(), one})
    numbers = before.read_text("result.json")
    page = redrawn(registry, before, "report.html").decode()
    assert page == before.read_text("report.html"), "a page is drawn anew as it was drawn"
    registry.export("animals@2")
    assert len(traces(home, [user])) > 5

    asked = Query("where", column="user", value=user)
    dry = plan(registry, "animals", asked, dry=True)
    assert registry.version("animals@2").files == before.files
    made = plan(registry, "animals", asked, dry=False)
    assert (made.known, made.counts) == (dry.known, dry.counts)
    in_two = [frame(700, seed=0), frame(400, seed=1)]
    assert made.known == {one for part in in_two for one in part.rid[part.user == user]}
    assert sum(made.roles.values()) == len(made.known)
    done, deleted, _ = forget(registry, made)
    assert done is not None
    assert (done.number, done.query) == (1, "where")
    assert deleted > 5
    second = plan(registry, "animals", Query("ids", ids=frozenset(ids)), dry=False)
    assert second.known == {one}
    forget(registry, second)
    left_out = set(in_two[1].rid) & {*made.known, one}
    assert predicted(registry) == set(in_two[1].rid) - left_out
    assert made.predictions == (401, 401 - len(made.known & set(in_two[1].rid)))

    assert traces(home, [user, *ids]) == []
    after = registry.version("animals@2")
    for path in after.files:
        after.open(path)
    gone = {*made.known, one}
    left = stored(after, names=NAMES)
    stay = ~np.isin(kept.id, sorted(gone))
    assert 0 < len(left) < len(kept)
    assert left.id.tolist() == kept.id[stay].tolist()
    np.testing.assert_array_equal(left.logits, kept.logits[stay])
    np.testing.assert_array_equal(left.features["x1"], kept.features["x1"][stay])
    assert after.read_text("result.json") == numbers, "what was decided stands"
    report = predictions.read(after.open(predictions.ROWS), after.open(predictions.FACTS))
    held, _ = read_rows_file(after.open("holdout/cycle-1.arrow"))
    assert not np.isin(report.row_id, sorted(gone)).any()
    assert set(held.id.tolist()) <= set(report.row_id.tolist())
    assert not np.isin(held.id, sorted(gone)).any()
    assert "<html" in after.read_text("report.html")
    recorded = registry.erasures("animals")
    assert [one.query for one in recorded] == ["where", "ids"]
    assert "user-" not in str(recorded)

    # the same sources are read again, and a third one that was never met
    result = lineage()
    assert (result["error"], result["status"]) == (None, "promoted")
    third = registry.version("animals@3")
    never = {*ids, *made.known}
    assert len(never & set(pd.read_parquet(sources[2]).rid)) > 2
    for path in third.files:
        if path.startswith(("rows/", "holdout/")):
            assert not never & set(read_rows_file(third.open(path))[0].id.tolist()), path
    for kind in ("train", "validation"):
        memory = remembered(third, kind, NAMES)
        assert memory is not None
        assert not never & set(memory.rows.id.tolist())
    last = table.rid[table.user == user].iloc[-1]
    assert traces(home, [last]), "it was not named, and is a row as any other"


class Stop(BaseException):
    """A kill."""


def test_killed_anywhere_the_same_command_finishes(
    lineage: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = "user-011-"
    query = Query("where", column="user", value=user)
    points = (
        (Registry, "stage"), (erasure, "record"), (erasure, "clear"), (LocalStore, "remove"),
        (Registry, "finish_erasures"),
    )  # fmt: skip
    reference = tmp_path / "reference"
    shutil.copytree(home, reference)
    registry = opened(reference)
    forget(registry, plan(registry, "animals", query, dry=False))
    expected = registry.version("animals@2").files
    table = frame(400, seed=1)
    theirs = set(table.rid[table.user == user])
    stops = 0
    for owner, name in points:
        own = getattr(owner, name)
        for late in (False, True):
            for at in (1, 4):
                calls = [0]

                def stopped(
                    *args: Any, own: Any = own, calls: list[int] = calls, at: int = at,
                    late: bool = late, **kw: Any,
                ) -> Any:  # fmt: skip
                    calls[0] += 1
                    result = own(*args, **kw) if late or calls[0] != at else None
                    if calls[0] == at:
                        raise Stop
                    return result

                copy = tmp_path / f"{name}-{late}-{at}"
                shutil.copytree(home, copy)
                registry = opened(copy)
                monkeypatch.setattr(owner, name, stopped)
                try:
                    forget(registry, plan(registry, "animals", query, dry=False))
                except Stop:
                    stops += 1
                monkeypatch.setattr(owner, name, own)
                for version in registry.versions("animals"):  # whole at any instant
                    whole = registry.version(version.id)
                    for path in whole.files:
                        whole.open(path)
                predicted(registry)
                forget(registry, plan(registry, "animals", query, dry=False))
                assert registry.version("animals@2").files == expected
                assert traces(copy, [user]) == []
                assert not predicted(registry) & theirs
                assert [one.window for one in registry.windows("animals")] == ["many"]
                assert len(registry.erasures("animals")) == 1
                shutil.rmtree(copy)
    assert stops >= 14


def test_what_cannot_be_forgotten_is_said(
    lineage: Run, home: Path, verb: Callable[..., tuple[int, str, str]], sources: list[str]
) -> None:
    registry = opened(home)
    first = registry.version("animals@2")
    held = read_rows_file(first.open("holdout/cycle-2.arrow"))[0]
    value = held.features["x0"][0]
    named = plan(
        registry, "animals", Query("where", column="x0", value=repr(float(value))), dry=True
    )
    assert held.id[0] in named.known
    assert named.unseen > 100, "of most rows only ids are kept"
    everything = Query("ids", ids=frozenset(held.id.tolist()))
    made = plan(registry, "animals", everything, dry=True)
    assert made.holdouts == {"cycle-2": (len(held), 0)}
    assert "holdout/cycle-2.arrow" not in made.after[2]
    by_label = plan(registry, "animals", Query("where", column="animal", value="eel"), dry=True)
    assert len(by_label.known) > 200
    for query, error, words in (
        (Query("where", column="usr", value="1"), ConfigError, "did you mean 'user'"),
        (Query("where", column="x0", value="red"), ConfigError, "holds numbers, and 'red'"),
    ):
        with pytest.raises(error, match=words):
            plan(registry, "animals", query, dry=True)
    for arguments, words in (
        (("animals", "user=7"), "'user' names no rows"),
        (("animals", "ids=1", "where=user=2"), "in several ways"),
        (("animals", "where=user"), "no COLUMN=VALUE"),
        (("animals", "ids="), "There is no id"),
        (("animals", "ids-file=none.txt"), "cannot be read"),
        (("animal", "ids=1"), "there are: animals"),
    ):
        code, _, told = verb("forget", *arguments)
        assert (code, words in told) == (1, True), told
    code, printed, _ = verb("forget", "animals", f"ids={held.id[0]},never-met", "--dry-run")
    assert code == 0
    assert "2 ids named, 1 of them known here" in printed
    assert f"holdout of cycle-2: {len(held)} rows, {len(held) - 1} from now on" in printed
    assert registry.version("animals@2").files == first.files

    # a cycle that read rows before they were forgotten does not commit them
    early = registry.forgotten("animals").erasures
    (home.parent / "ids.txt").write_bytes(
        f"\ufeff{held.id[0]}\r\n\r\nnever-met\r\n".encode()  # as Windows writes it
    )
    code, printed, _ = verb("forget", "animals", "ids-file=ids.txt")
    assert (code, "recorded as erasure 1 of animals" in printed) == (0, True)
    with pytest.raises(RegistryError, match="were forgotten while this ran"):
        registry.commit(
            name="animals", files={}, manifest={}, decision=None, verdict="rejected",
            cycle_id="late", expected_champion=2, promote=False, new_holdout=None, erasures=early,
        )  # fmt: skip
    with registry.working("busy", name="animals"):
        code, _, told = verb("forget", "animals", "ids=another")
        assert (code, "Another process is at this very cycle" in told) == (1, True)
    code, printed, _ = verb("forget", "animals", "ids=another")
    assert "Unfinished cycles removed: 1" in printed
    assert "by ids-file: ids 2, rows 1, versions 1" in verb("forget", "animals")[1]
