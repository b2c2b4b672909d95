"""What a decision is charged for those before it, on a real registry."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perennial.promotion import multiplicity
from perennial.promotion.multiplicity import Charge, charge, decisions_on
from perennial.promotion.predictions import ROWS
from perennial.promotion.records import CycleRecord
from perennial.promotion.registry import Registry, Version


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(url=f"sqlite:///{tmp_path / 'home' / 'registry.db'}")


def rows(*numbers: int) -> np.ndarray:
    return np.array([f"row-{number}" for number in numbers])


def predictions(new: np.ndarray) -> bytes:
    old = rows(*range(500, 520))
    table = {
        "row_id": [*new.tolist(), *old.tolist()],
        "holdout": ["new"] * len(new) + ["history/cycle-1"] * len(old),
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(table), buffer)
    return buffer.getvalue()


def commit(
    registry: Registry, cycle_id: str, holdout: str | None, new: np.ndarray, **changes: Any
) -> Version:
    settings: dict[str, Any] = {
        "name": "digits",
        "files": {ROWS: predictions(new)},
        "manifest": {"seed": 0},
        "decision": {"verdict": "rejected"},
        "verdict": "rejected",
        "cycle_id": cycle_id,
        "expected_champion": 1,
        "promote": False,
        "new_holdout": holdout,
    }
    return registry.commit(**(settings | changes))


def found(registry: Registry) -> Version:
    return commit(registry, "founding", None, rows(), expected_champion=None, promote=True)


def ids(records: list[CycleRecord]) -> list[str]:
    return [record.cycle_id for record in records]


def asked(registry: Registry, holdout: str, *numbers: int) -> list[str]:
    champion = registry.champion("digits")
    assert champion is not None
    new = rows(*numbers)
    return ids(decisions_on(registry, champion, new_holdout=holdout, row_id=new))


def test_a_missing_registry_has_no_decisions(registry: Registry) -> None:
    champion = Version("digits@1", "digits", 1, None, "", {}, {})
    assert decisions_on(registry, champion, new_holdout="h", row_id=rows(1)) == []


def test_more_than_half_of_the_present_rows_make_it_the_same_holdout(registry: Registry) -> None:
    found(registry)
    commit(registry, "a", "h1", rows(*range(10)))
    commit(registry, "other", "h2", rows(*range(100, 110)))
    assert asked(registry, "h1", *range(10)) == ["a"]
    assert asked(registry, "h3", *range(11)) == ["a"]  # one more row is no new occasion
    assert asked(registry, "h3", *range(19)) == ["a"]
    assert asked(registry, "h3", *range(20)) == []  # half, and not more
    assert asked(registry, "h3", 0, 1, 2) == ["a"]  # nor is leaving rows out
    assert asked(registry, "h3", *range(500, 520)) == []  # of their history, not of their new rows
    assert asked(registry, "h3", *range(8), *range(100, 107)) == ["a"]


def test_repetitions_count_and_each_holdout_is_read_once(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(registry)
    for cycle_id in ("a", "a", "b"):
        commit(registry, cycle_id, "h1", rows(*range(10)))
    commit(registry, "same", "h2", rows(*range(12)))
    commit(registry, "fraud", "h2", rows(*range(12)), name="fraud", expected_champion=None)
    read: list[str] = []
    original = pq.read_table

    def counted(path: Path, **options: Any) -> Any:
        read.append(path.name)
        return original(path, **options)

    monkeypatch.setattr(multiplicity.pq, "read_table", counted)
    assert asked(registry, "h2", *range(12)) == ["a", "a", "b", "same"]
    assert len(read) == 1


def test_rows_are_compared_since_the_champion_and_hashes_always(registry: Registry) -> None:
    found(registry)
    commit(registry, "before", "h1", rows(*range(10)))
    commit(registry, "promoted", "h2", rows(*range(50, 60)), promote=True, verdict="promoted")
    assert asked(registry, "h3", *range(11)) == []
    assert asked(registry, "h1", *range(10)) == ["before"]
    registry.rollback("digits")
    assert asked(registry, "h3", *range(11)) == ["before"]


@pytest.mark.parametrize("damage", ["gone", "damaged", "no parquet", "absent"])
def test_unreadable_predictions_count_by_their_hash_alone(
    registry: Registry, tmp_path: Path, damage: str
) -> None:
    found(registry)
    given: dict[str, Any] = {
        "absent": {"files": {"a": b"a"}},
        "no parquet": {"files": {ROWS: b"x"}},
    }
    version = commit(registry, "a", "h1", rows(*range(10)), **given.get(damage, {}))
    if damage not in given:
        path = version.open(ROWS)
        path.unlink()
        if damage == "damaged":
            path.write_bytes(b"flipped")
    assert asked(registry, "h2", *range(11)) == []
    assert asked(registry, "h1", *range(10)) == ["a"]
    # another decision on the same rows still tells them
    commit(registry, "b", "h1", rows(*range(9, -1, -1)), files={
        ROWS: predictions(rows(*range(9, -1, -1)))})  # fmt: skip
    assert asked(registry, "h2", *range(11)) == ["a", "b"]


def record(cycle_id: str, *, trial: bool = False, objective: float | None = None) -> CycleRecord:
    return CycleRecord(
        cycle_id, "m", 1, 2, "rejected", False, None, "h", "", 1, trial, objective
    )  # fmt: skip


def test_decisions_count_and_trials_do_not() -> None:
    assert charge([], cycle_id="a") == Charge(1)
    assert charge([record("a"), record("a")], cycle_id="a") == Charge(3)
    trials = [record(f"t{n}", trial=True, objective=n / 10) for n in range(3)]
    assert charge(trials, cycle_id="new", trial=True) == Charge(1, trial=True, trials=4)
    assert charge([record("a"), *trials], cycle_id="t1", trial=True) == Charge(2, True, 4)
    # a setting that no trial had may be one of theirs in all but name
    assert charge([*trials, record("a")], cycle_id="new") == Charge(5, trials=3)


def test_the_best_trial_counts_once_and_any_other_as_the_last_of_all() -> None:
    scores = [0.5, 0.9, 0.7, 0.9]
    trials = [record(f"t{n}", trial=True, objective=score) for n, score in enumerate(scores)]
    for before in range(3):
        earlier = [*(record(f"d{n}") for n in range(before)), *trials]
        charged = [charge(earlier, cycle_id=f"t{n}") for n in range(4)]
        assert charged[1] == Charge(before + 1, trials=4, best=True)
        for other in (0, 2, 3):  # of two equal ones the first is the best
            assert charged[other] == Charge(before + 4, trials=4)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_trials_does_not_matter_where_scores_differ(order: tuple[int, ...]) -> None:
    trials = [record(f"t{n}", trial=True, objective=float(n)) for n in order]
    assert charge(trials, cycle_id="t2").best
    assert charge(trials, cycle_id="t0").decision_number == 3


def test_without_validation_no_trial_is_the_best() -> None:
    assert charge([record("t", trial=True)], cycle_id="t") == Charge(1, trials=1)
    two = [record("t", trial=True), record("u", trial=True)]
    assert charge(two, cycle_id="t") == Charge(2, trials=2)
    two[1] = record("u", trial=True, objective=0.1)
    assert charge(two, cycle_id="u") == Charge(1, trials=2, best=True)
