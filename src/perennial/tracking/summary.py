"""What a run is compared by: a result as flat values, under keys that stay.

The keys and their units are listed in ``docs/reference/tracking.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

FORGETTING = ("average_accuracy", "forgetting", "backward_transfer", "forward_transfer")
PARTS = {"plasticity": "new", "retention": "history"}
AGAINST = ("reject", "inconclusive", "not_evaluable")
_OF_CHECK = ("outcome", "estimate", "threshold", "n", "p_value", "power")


def summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """Final values of a decided cycle; what is not known has no key.

    Args:
        result: As ``result.json`` keeps it.
    """
    validation = result["validation"] or {"candidate": {}}
    values = {
        "cycle/id": result["cycle_id"],
        "cycle/config_sha256": result["config_sha256"],
        "trigger/kind": result["trigger"]["kind"],
        "trigger/reason": result["trigger"]["reason"],
        "champion/id": result["champion"]["id"],
        "candidate/id": result["candidate"]["id"],
        "validation/best": validation["candidate"].get("combined"),
        **dict(_decision(result["decision"])),
        **measured(result["metrics"]),
        **dict(_changes(result)),
        **{f"forgetting/{name}": result["forgetting"][name] for name in FORGETTING},
        **_cost(result["cost"]),
    }
    for who, cost in (result["serving"] or {}).items():
        values |= {f"serving/{who}/{name}": value for name, value in cost.items()}
    return {key: value for key, value in values.items() if value is not None}


def _cost(cost: Mapping[str, Any]) -> dict[str, Any]:
    shares = {f"cost/profile/{phase}": share for phase, share in cost["profile"].items()}
    return {f"cost/{name}": value for name, value in cost.items() if name != "profile"} | shares


def _decision(decision: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in ("verdict", "applied", "alpha", "decision_number"):
        yield f"decision/{name}", decision[name]
    yield "decision/trial", decision["charge"]["trial"]
    against = [one["name"] for one in decision["checks"] if one["outcome"] in AGAINST]
    yield "decision/against", ", ".join(against)
    for check in decision["checks"]:
        # one for each value of each column: in the table of checks, or a run has hundreds of keys
        if check["name"].startswith("slice/"):
            continue
        for name in _OF_CHECK:
            yield f"decision/{check['name']}/{name}", check[name]
        for name, bound in zip(("lower", "upper"), check["interval"] or (), strict=False):
            yield f"decision/{check['name']}/{name}", bound


def measured(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics by model, rows and name as flat values, ``metrics/candidate/new/accuracy``."""
    return {
        f"metrics/{who}/{part}/{name}": value
        for who, parts in metrics.items()
        for part, values in parts.items()
        for name, value in values.items()
    }


def _changes(result: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The task's score under names that are the same for every task."""
    metrics, score = result["metrics"], result["task"]["score"]
    for key, part in PARTS.items():
        if part in metrics["candidate"]:
            candidate, champion = (metrics[who][part][score] for who in ("candidate", "champion"))
            yield f"{key}/candidate", candidate
            yield f"{key}/champion", champion
            yield f"{key}/change", candidate - champion
