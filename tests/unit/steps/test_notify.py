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
    "trigger": {"kind": "manual", "reason": "by hand"},
    "decision": {
        "verdict": "rejected",
        "applied": False,
        "checks": [
            {"name": "retention", "outcome": "reject", "estimate": -0.1, "unit": "points", "n": 3}
        ],
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
    def __init__(self, *on: str, error: Exception | None = None) -> None:
        self.when = frozenset(on)
        self.error = error
        self.got: list[Mapping[str, Any]] = []

    def send(self, message: Mapping[str, Any]) -> None:
        self.got.append(message)
        if self.error:
            raise self.error


def told(listener: Any, result: dict[str, Any] = RESULT) -> list[str]:
    said: list[str] = []
    notify(listener, result, say=said.append)
    return said


def test_the_message_of_a_verdict() -> None:
    found = message(RESULT)
    sentence = "digits@1 serves on; digits@2 failed retention (-10.0 points on history)"
    assert found == {
        "text": f"digits: rejected. {sentence[0].upper()}{sentence[1:]}",
        "status": "rejected",
        "exit_code": 20,
        "model": "digits",
        "champion": "digits@1",
        "candidate": "digits@2",
        "applied": False,
        "verdict": sentence,
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
        "digits: failed. Rows are missing in postgresql://a:***@b. Registry and champion are as "
        "they were"
    )
    assert "s3cret" not in str(found)
    assert (found["candidate"], found["checks"], found["exit_code"]) == (None, [], 30)


def test_who_does_not_listen_is_not_told() -> None:
    listener = Listener("promoted", "failed")
    assert told(listener) == []
    assert listener.got == []
    assert told(listener, FAILED) == []
    assert [one["status"] for one in listener.got] == ["failed"]


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
