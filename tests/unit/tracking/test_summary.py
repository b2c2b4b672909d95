from __future__ import annotations

from typing import Any

import pytest

from perennial.promotion.gate import decide
from perennial.tracking.summary import measured, summary
from support.reports import BETTER, KEPT, bare, make_report


def result(**more: Any) -> dict[str, Any]:
    decision = decide(make_report(BETTER, KEPT), bare(), decision_number=2).to_dict()
    return {
        "cycle_id": "c",
        "config_sha256": "s",
        "trigger": {"kind": "schedule", "due": True, "reason": "a week is over", "evidence": {}},
        "champion": {"id": "m@1"},
        "candidate": {"id": "m@2"},
        "task": {"score": "accuracy"},
        "metrics": {
            "champion": {"new": {"accuracy": 0.5, "n": 10}, "history": {"accuracy": 0.9, "n": 8}},
            "candidate": {"new": {"accuracy": 0.8, "n": 10}, "history": {"accuracy": 0.7, "n": 8}},
        },
        "decision": {**decision, "applied": False, "charge": {"trial": True}},
        "forgetting": {
            "average_accuracy": 0.75,
            "forgetting": 0.2,
            "backward_transfer": None,
            "forward_transfer": None,
            "matrix": [[1]],
        },
        "cost": {"wall_seconds": 3.0, "energy": None, "profile": {"data": 0.25}},
        "serving": None,
        "validation": None,
        **more,
    }


def test_scores_have_one_name_for_every_task() -> None:
    found = summary(result())
    assert found["plasticity/change"] == pytest.approx(0.3)
    assert found["retention/change"] == pytest.approx(-0.2)
    assert (found["retention/champion"], found["retention/candidate"]) == (0.9, 0.7)
    assert found["metrics/candidate/history/accuracy"] == 0.7
    assert found["decision/trial"] is True
    assert (found["trigger/kind"], found["trigger/reason"]) == ("schedule", "a week is over")
    assert found["decision/decision_number"] == 2
    assert found["cost/profile/data"] == 0.25
    assert "cost/profile" not in found


def test_what_is_not_known_has_no_key() -> None:
    found = summary(result())
    assert None not in found.values()
    assert not {"validation/best", "forgetting/backward_transfer", "cost/energy"} & set(found)
    assert summary(result(validation={"candidate": {"combined": 0.0}}))["validation/best"] == 0.0
    alone = result()
    for who in ("champion", "candidate"):
        del alone["metrics"][who]["history"]
    assert not [key for key in summary(alone) if key.startswith("retention/")]


def test_checks_have_outcome_and_bounds_and_slices_stay_in_their_table() -> None:
    given = result()
    improvement = next(c for c in given["decision"]["checks"] if c["name"] == "improvement")
    found = summary(given)
    assert found["decision/improvement/outcome"] == improvement["outcome"] == "pass"
    assert [
        found["decision/improvement/lower"],
        found["decision/improvement/upper"],
    ] == improvement["interval"]
    assert found["decision/against"] == ""
    given["decision"]["checks"].append(
        {**improvement, "name": "slice/new/class=7", "outcome": "reject"}
    )
    found = summary(given)
    assert found["decision/against"] == "slice/new/class=7"
    assert not [key for key in found if "class=7" in key]


def test_metrics_are_flat() -> None:
    assert measured({"champion": {"history/cycle-1": {"loss": 0.5}}}) == {
        "metrics/champion/history/cycle-1/loss": 0.5
    }
