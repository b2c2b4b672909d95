"""What is told, and that trouble is one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from perennial.errors import NotificationError
from perennial.steps.notify import message, notify

RESULT: dict[str, Any] = {
    "status": "rejected",
    "exit_code": 20,
    "model_name": "digits",
    "champion": {"id": "digits@1"},
    "candidate": {"id": "digits@2"},
    "metrics": {"champion": {}},
    "trigger": {"kind": "manual", "due": True, "reason": "by hand", "evidence": {}},
    "decision": {
        "verdict": "rejected",
        "applied": False,
        "checks": [
            {
                "name": "retention",
                "outcome": "reject",
                "estimate": -0.1,
                "unit": "points",
                "n": 3,
                "interval": [-0.2, -0.05],
                "threshold": -0.02,
                "side": "above",
            }
        ],
        "charge": {"trial": False},
    },
    "report": "run/report.html",
    "tracking": {"run_id": "r", "url": None, "directory": "wandb/r"},
    "cycle_id": "c",
    "created": "2026-11-25",
    "error": None,
}
FAILED = {
    **RESULT,
    "status": "failed",
    "exit_code": 30,
    "champion": None,
    "candidate": None,
    "metrics": None,
    "decision": None,
    "report": None,
    "error": {"what": "Rows are missing in postgresql://a:s3cret@b.", "where": "d", "mend": None},
}


class Listener:
    def __init__(self, *on: str, error: Exception | None = None, says: str | None = None) -> None:
        self.when = frozenset(on)
        self.says = says
        self.error = error
        self.got: list[Mapping[str, Any]] = []

    def send(self, message: Mapping[str, Any]) -> str | None:
        self.got.append(message)
        if self.error:
            raise self.error
        return self.says


def told(listener: Any, result: dict[str, Any] = RESULT) -> list[str]:
    said: list[str] = []
    notify(listener, result, say=said.append)
    return said


def test_the_message_of_a_verdict() -> None:
    found = message(RESULT)
    sentence = "digits@1 serves on; digits@2 failed retention (-10.0 points on history)"
    assert found == {
        "text": f"digits, rejected: {sentence}",
        "status": "rejected",
        "exit_code": 20,
        "model": "digits",
        "champion": "digits@1",
        "candidate": "digits@2",
        "applied": False,
        "verdict": "rejected",
        "sentence": sentence,
        "checks": RESULT["decision"]["checks"],
        "report": "run/report.html",
        "run": "wandb/r",
        "cycle_id": "c",
        "created": "2026-11-25",
        "error": None,
    }


def test_the_message_of_a_failure_says_what_happened_without_secrets() -> None:
    found = message(FAILED)
    assert found["text"] == (
        "digits, bad data: Rows are missing in postgresql://a:***@b. Registry and champion are as "
        "they were"
    )
    assert "s3cret" not in str(found)
    assert (found["candidate"], found["checks"], found["exit_code"]) == (None, [], 30)


def test_who_does_not_listen_is_not_told() -> None:
    listener = Listener("promoted", "failed")
    assert told(listener) == []
    assert listener.got == []
    assert told(listener, FAILED) == ["Notification: listener was told"]
    assert [one["status"] for one in listener.got] == ["failed"]


def test_what_a_notifier_says_is_shown_behind_its_name_without_secrets() -> None:
    says = "\n".join([*map(str, range(30)), "password=s3cret", "x" * 300])
    first, *lines = told(Listener("rejected", says=says))
    assert first == "Notification: listener was told"
    assert lines[-2:] == ["  listener: password=***", f"  listener: {'x' * 200}"]
    assert len(lines) == 20


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (NotificationError("b said password=s3cret"), "Notification: b said password=***"),
        (KeyError("s3cret"), "Notification: KeyError in Listener."),
    ],
)
def test_trouble_is_one_line(error: Exception, line: str) -> None:
    assert told(Listener("rejected", error=error)) == [line]


def test_a_notifier_that_is_none_is_said() -> None:
    assert told(object()) == ["Notification: AttributeError in object."]
