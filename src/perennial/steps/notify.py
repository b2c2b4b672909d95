"""Send what a cycle came to; the registry has moved before, and trouble here is one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from perennial.errors import PerennialError
from perennial.masking import mask_text, plain
from perennial.notification import Notifier
from perennial.reporting import verdict
from perennial.reporting.result import json_safe

# lines, and characters of a line, of what a notifier answers
SAID, WIDE = 20, 200


def notify(notifier: Notifier, result: Mapping[str, Any], *, say: Callable[[str], None]) -> None:
    """Tell a notifier that listens to the result's status.

    Args:
        notifier: Whom to tell.
        result: As ``result.json`` keeps it, with the paths of this run.
        say: Shows whether it could be told, and what it says itself.
    """
    send(notifier, str(result["status"]), lambda: message(result), say=say)


def send(
    notifier: Notifier,
    status: str,
    told: Callable[[], Mapping[str, Any]],
    *,
    say: Callable[[str], None],
) -> None:
    """Tell a notifier that listens to a status; trouble with it is one line, and no error.

    Args:
        notifier: Whom to tell.
        status: One of `perennial.notification.STATUSES`.
        told: Makes the message.
        say: As `notify` has it.
    """
    try:
        if status in notifier.when:
            said = notifier.send(told()) or ""
            name = type(notifier).__name__.lower()
            say(f"Notification: {name} was told")
            for line in mask_text(said).splitlines()[-SAID:]:
                say(f"  {name}: {line[:WIDE]}")
    except PerennialError as error:
        say(f"Notification: {mask_text(error.what)}")
    except Exception as error:  # a notifier of the user's own must not unsay a verdict
        say(f"Notification: {type(error).__name__} in {type(notifier).__name__}.")


def message(result: Mapping[str, Any]) -> dict[str, Any]:
    """What a notifier is told: plain JSON values, secrets masked.

    Args:
        result: As ``result.json`` keeps it.

    Returns:
        ``text`` (one line for a person), ``status``, ``exit_code``, ``model``, ``champion`` and
        ``candidate`` (ids, or None), ``applied``, ``verdict`` (the gate's word, or None),
        ``sentence`` (why, and who serves), ``checks``, ``report``
        (a path, or None), ``run`` (the tracked run's address or folder), ``cycle_id``, ``created``
        and ``error``.
    """
    decision, tracking = result["decision"] or {}, result["tracking"]
    told = verdict.sentence(result)
    if result["error"]:
        told = f"{result['error']['what']} {told[0].upper()}{told[1:]}"
    value = {
        "text": f"{result['model_name']}, {verdict.title(result)}: {told}",
        "status": result["status"],
        "exit_code": result["exit_code"],
        "model": result["model_name"],
        "champion": (result["champion"] or {}).get("id"),
        "candidate": (result["candidate"] or {}).get("id"),
        "applied": bool(decision.get("applied")),
        "verdict": decision.get("verdict"),
        "sentence": told,
        "checks": decision.get("checks", []),
        "report": result["report"],
        "run": tracking["url"] or tracking["directory"],
        "cycle_id": result["cycle_id"],
        "created": result["created"],
        "error": result["error"],
    }
    safe: dict[str, Any] = json_safe(plain(value))
    return safe


def message_of_look(told: Mapping[str, Any]) -> dict[str, Any]:
    """What a notifier is told of a look at new rows, under the keys of `message`.

    Args:
        told: As ``monitor.json`` keeps it.
    """
    error = told["error"]
    reason = error["what"] if error else told["reason"]
    value = {
        "text": f"{told['model_name']}, {told['status']}: {reason}",
        "status": told["status"],
        "exit_code": told["exit_code"],
        "model": told["model_name"],
        "champion": told["version"],
        "candidate": None,
        "applied": False,
        "verdict": None,
        "sentence": reason,
        "checks": [],
        "report": told["page"],
        "run": told["tracking"]["url"] or told["tracking"]["directory"],
        "cycle_id": None,
        "created": told["created"],
        "error": error,
    }
    safe: dict[str, Any] = json_safe(plain(value))
    return safe
