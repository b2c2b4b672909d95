"""Which decisions of a lineage are cycles to a trigger."""

from __future__ import annotations

from typing import Any

from perennial.config import RUN_KEYS
from perennial.promotion.records import CycleRecord
from perennial.steps.due import past


def record(candidate: int, day: int, **more: Any) -> CycleRecord:
    given = {"verdict": "rejected", "applied": False, "champion": 1, "device_seconds": 3.0, **more}
    return CycleRecord(
        cycle_id=f"c{candidate}",
        name="m",
        candidate=candidate,
        decision=None,
        new_holdout=None,
        decided_at=f"2026-11-{day:02}T12:00:00.000+00:00",
        **given,
    )


def test_what_founded_a_lineage_and_its_trials_are_no_cycles() -> None:
    founding = record(1, 1, champion=None, verdict="bootstrap", applied=True)
    assert past([founding, record(2, 2, trial=True)]) == []
    assert [one.decided_at.day for one in past([founding, record(2, 2), record(3, 5)])] == [2, 5]


def test_a_candidate_that_is_decided_again_is_one_cycle() -> None:
    again = record(2, 9, number=2, verdict="promoted", applied=True, device_seconds=None)
    (one,) = past([record(2, 2), again])
    assert (one.decided_at.day, one.verdict, one.applied) == (2, "promoted", True)
    assert one.device_seconds == 3.0


def test_a_trial_that_was_chosen_is_a_cycle_from_its_own_decision_on() -> None:
    (one,) = past([record(2, 2, trial=True), record(2, 9, number=2, verdict="promoted")])
    assert one.decided_at.day == 9


def test_a_trigger_is_no_part_of_a_cycle() -> None:
    assert "trigger" in RUN_KEYS
