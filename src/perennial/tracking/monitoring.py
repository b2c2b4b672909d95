"""A look at new rows, as a tracked run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial.tracking.version import about

if TYPE_CHECKING:
    from perennial.promotion.registry import Version
    from perennial.tracking.base import Tracker

JOB = "monitor"
COLUMNS = ("of", "name", "test", "effect", "statistic", "p", "q", "moved")


def monitored(
    tracker: Tracker, version: Version, *, config: Mapping[str, Any], folder: Path
) -> AbstractContextManager[dict[str, Any]]:
    """A run about the version; it ends with what the mapping got.

    Args:
        tracker: Where to.
        version: What is monitored.
        config: All settings; secrets are masked by the tracker.
        folder: Below which the run's own files lie.

    Returns:
        On entering, a mapping that takes what ``monitor.json`` keeps.
    """

    def end(told: Mapping[str, Any]) -> None:
        tracker.summary(summary(told))
        tracker.table("tables/shifts", COLUMNS, rows(told))
        tracker.tag("alarm" if told["alarm"] else "calm")

    return about(tracker, version, job=JOB, config=config, folder=folder, end=end)


def summary(told: Mapping[str, Any]) -> dict[str, Any]:
    """Final values of a look; what is not known has no key.

    Args:
        told: As ``monitor.json`` keeps it.
    """
    values = {
        "monitor/version": told["version"],
        "monitor/alarm": told["alarm"],
        "monitor/reason": told["reason"],
        "monitor/rows": told["window"]["rows"],
        "monitor/labelled": told["window"]["labelled"],
    }
    if drift := told["drift"]:
        moved = [one for one in drift["shifts"] if one["moved"]]
        values |= {
            "monitor/drift/alarm": drift["alarm"],
            "monitor/drift/moved": len(moved),
            "monitor/drift/overall": drift["overall"],
            "monitor/drift/threshold": drift["threshold"],
            "monitor/drift/largest_effect": max(one["effect"] for one in drift["shifts"]),
        }
    if found := told["performance"]:
        realised, estimates = found["realised"], found["estimated"]["estimates"]
        values |= {
            "monitor/performance/alarm": found["alarm"],
            "monitor/performance/then": realised["then"]["mean"],
            "monitor/performance/scored": found["scored"],
            "monitor/performance/waiting": found["waiting"],
            "monitor/performance/realised": realised["now"] and realised["now"]["mean"],
            "monitor/performance/estimated": estimates[0]["now"] if estimates else None,
        }
    return {key: value for key, value in values.items() if value is not None}


def rows(told: Mapping[str, Any]) -> list[list[Any]]:
    """Cells of the table of tests, `COLUMNS` of each; none where drift was not looked at."""
    shifts = told["drift"]["shifts"] if told["drift"] else []
    return [[one[name] for name in COLUMNS] for one in shifts]
