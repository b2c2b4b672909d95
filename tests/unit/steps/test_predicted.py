"""Predictions in the registry: repeated, killed at any write, forgotten, outgrown."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from perennial import files
from perennial.errors import ConfigError, DataError, EvaluationError
from perennial.monitoring.performance import Joined
from perennial.promotion import predictions
from perennial.promotion.registry import Registry, Version
from perennial.promotion.windows import Window
from perennial.steps.predicted import (
    drop_outgrown,
    held_out_of,
    join_labels,
    keep_predictions,
    outgrown,
    recorded_of,
)
from perennial.types import Predictions
from support.reports import make_report

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def opened(folder: Path) -> Registry:
    return Registry(url=f"sqlite:///{folder}/registry.db")


def commit(
    registry: Registry, expected: int | None = None, *, ids: str | None = "rid", **extra: bytes
) -> Version:
    return registry.commit(
        name="a",
        files={"model": b"weights", **extra},
        manifest={
            "lineage": {"data.id_column": ids}, "task": {"kind": "class"}, "of": str(expected),
        },
        decision=None,
        verdict="promoted",
        cycle_id=f"a-{expected}",
        expected_champion=expected,
        promote=True,
        new_holdout=None,
    )  # fmt: skip


def found(rows: int = 40) -> Predictions:
    sure = np.linspace(0.5, 1, rows)
    return Predictions(
        prediction=np.arange(rows) % 2,
        score=(np.arange(rows) % 3 > 0).astype(float),
        loss=np.zeros(rows),
        probabilities=np.stack([sure, 1 - sure], axis=1),
    )


def names(prefix: str, rows: int = 40) -> Any:
    return np.array([f"{prefix}{row}" for row in range(rows)])


def keep(registry: Registry, version: Version, window: str, **changes: Any) -> bool:
    settings: dict[str, Any] = {
        "ids": names(window), "found": found(), "time": None, "now": NOW, "where": "data.new",
    }  # fmt: skip
    return keep_predictions(registry, version, window=window, **(settings | changes))


def label(registry: Registry, version: Version, *windows: str, **changes: Any) -> Joined:
    settings: dict[str, Any] = {
        "ids": np.concatenate([names(window) for window in windows]),
        "score": np.tile(found().score, len(windows)),
        "now": NOW + DAY,
        "where": "labels",
    }
    return join_labels(registry, version, **(settings | changes))


def test_predictions_wait_for_their_labels_and_repeating_changes_nothing(tmp_path: Path) -> None:
    registry = opened(tmp_path)
    version = commit(registry)
    assert keep(registry, version, "w")
    assert not keep(registry, version, "w", now=NOW + DAY)
    assert keep(registry, version, "v", now=NOW + DAY, labelled=True)
    assert [record.is_scored.sum() for record in recorded_of(registry, version)] == [0, 40]
    before = registry.windows("a")
    assert label(registry, version, "w").scored == 40
    after = registry.windows("a")
    assert [one.sha256 == other.sha256 for one, other in zip(before, after, strict=True)] == [
        False,
        True,
    ]
    assert label(registry, version, "w").again == 40
    assert registry.windows("a") == after
    record = recorded_of(registry, version)[0]
    np.testing.assert_array_equal(record.score, found().score)
    np.testing.assert_allclose(record.confidence, np.linspace(0.5, 1, 40))


def test_bad_windows_and_labels_are_said_and_nothing_is_kept(tmp_path: Path) -> None:
    registry = opened(tmp_path)
    version = commit(registry)
    with pytest.raises(DataError, match="row ids of the window are there more than once"):
        keep(registry, version, "w", ids=np.repeat("x", 40))
    assert registry.windows("a") == []
    keep(registry, version, "w")
    with pytest.raises(DataError, match="The clock reads"):
        keep(registry, version, "v", now=NOW - DAY)
    with pytest.raises(DataError, match="40 of 80 labels"):
        label(registry, version, "w", "never")
    assert not recorded_of(registry, version)[0].is_scored.any()
    nameless = commit(opened(tmp_path / "b"), ids=None)
    with pytest.raises(ConfigError, match="a has no id column"):
        keep(opened(tmp_path / "b"), nameless, "w")
    assert keep(opened(tmp_path / "b"), nameless, "w", labelled=True)


def test_only_versions_that_may_serve_keep_windows_and_those_a_bound(tmp_path: Path) -> None:
    registry = opened(tmp_path)
    first = commit(registry)
    keep(registry, first, "a")
    second = commit(registry, 1)
    keep(registry, second, "b")
    assert drop_outgrown(registry, "a") == 0, "a rollback goes to the first"
    third = commit(registry, 2)
    for day, window in enumerate("cdef"):
        keep(registry, third, window, now=NOW + day * DAY)
    assert drop_outgrown(registry, "a", rows=100) == 3
    assert [(one.number, one.window) for one in registry.windows("a")] == [
        (2, "b"), (3, "e"), (3, "f"),
    ]  # fmt: skip
    large = Window("a", 3, "w", 1, 10**9, "")
    bounds = {"most_rows": 1, "most": 1}
    assert outgrown([large], {3}, **bounds) == [], "the newest stays, however large"
    assert outgrown([large, large], {3}, **bounds) == [large]
    small = replace(large, rows=1)
    found = outgrown([small, large, small], {3}, most_rows=10, most=9)
    assert found == [large, small], "a stream has no holes"
    assert drop_outgrown(registry, "a", windows=1) == 1
    assert [one.window for one in registry.windows("a")] == ["b", "f"]


def test_a_version_knows_how_it_did_when_it_was_decided_on(tmp_path: Path) -> None:
    registry = opened(tmp_path)
    made = make_report((20, 2, 100), (0, 0, 50))
    sure = np.random.default_rng(0).dirichlet((1, 1), 150)
    made = replace(made, candidate=replace(made.candidate, probabilities=sure))
    version = commit(registry, **predictions.write(made))
    held_out = held_out_of(version)
    assert held_out is not None
    np.testing.assert_array_equal(held_out.score, made.candidate.score[made.is_new])
    assert held_out.confidence is not None
    np.testing.assert_allclose(held_out.confidence, sure[:100].max(axis=1))
    assert held_out.classes == len(made.label_names)
    assert held_out_of(commit(opened(tmp_path / "b"))) is None
    gone = replace(made, holdout=np.full(150, "history/a"), row_id=np.arange(150).astype(str))
    empty = commit(opened(tmp_path / "c"), **predictions.write(gone))
    with pytest.raises(EvaluationError, match="No row is left of the holdout"):
        held_out_of(empty)


class Stop(BaseException):
    """A kill."""


@contextmanager
def stopping(at: int) -> Iterator[list[int]]:
    """Stops at the n-th write, sync, rename, statement or commit; yields how many there were."""
    count = [0]

    def hit(*_: Any, **__: Any) -> None:
        count[0] += 1
        if count[0] == at:
            raise Stop

    hooks = ("before_cursor_execute", "commit")
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((os, "replace"), (os, "fsync"), (files, "write")):
            own = getattr(owner, name)
            patch.setattr(owner, name, lambda *args, own=own, **kw: (hit(), own(*args, **kw))[1])
        for hook in hooks:
            event.listen(Engine, hook, hit)
        try:
            yield count
        finally:
            for hook in hooks:
                event.remove(Engine, hook, hit)


@pytest.mark.slow
def test_killed_at_any_write_what_is_kept_is_whole(tmp_path: Path) -> None:
    def state(registry: Registry, version: Version) -> list[int]:
        return [int(record.is_scored.sum()) for record in recorded_of(registry, version)]

    stops = 0
    made = opened(tmp_path / "made")
    version = commit(made)
    for day, window in enumerate(("w", "v")):
        keep(made, version, window, now=NOW + day * DAY)
    for at in range(1, 60):
        shutil.copytree(tmp_path / "made", tmp_path / str(at))
        registry = opened(tmp_path / str(at))
        with stopping(at) as count:
            try:
                label(registry, version, "w", "v", now=NOW + 2 * DAY)
                keep(registry, version, "u", now=NOW + 3 * DAY)
            except Stop:
                stops += 1
        assert state(registry, version) in ([0, 0], [40, 40], [40, 40, 0]), at
        label(registry, version, "w", "v", now=NOW + 2 * DAY)
        keep(registry, version, "u", now=NOW + 3 * DAY)
        assert state(registry, version) == [40, 40, 0]
        registry.sweep()
        assert state(registry, version) == [40, 40, 0]
        if count[0] < at:
            break
    assert stops > 15
