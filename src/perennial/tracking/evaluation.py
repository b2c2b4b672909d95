"""A version that was scored without training, as a tracked run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial.tracking.version import about

if TYPE_CHECKING:
    from perennial.promotion.registry import Version
    from perennial.tracking.base import Tracker

JOB = "evaluate"


def evaluated(
    tracker: Tracker, version: Version, *, config: Mapping[str, Any], folder: Path
) -> AbstractContextManager[dict[str, Mapping[str, float]]]:
    """A run about the version; it ends with the metrics that the mapping got.

    Args:
        tracker: Where to.
        version: What is scored.
        config: All settings; secrets are masked by the tracker.
        folder: Below which the run's own files lie.

    Returns:
        On entering, a mapping that takes part of the rows to its metrics, as
        `perennial.steps.evaluate.evaluate` returns them.
    """

    def end(found: Mapping[str, Mapping[str, float]]) -> None:
        tracker.summary(summary(version.id, found))

    return about(tracker, version, job=JOB, config=config, folder=folder, end=end)


def summary(version: str, metrics: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """What the run ends with.

    >>> summary("digits@1", {"trained on": {"n": 4}})
    {'evaluation/version': 'digits@1', 'evaluation/trained_on/n': 4}
    """
    return {"evaluation/version": version} | {
        f"evaluation/{part.replace(' ', '_')}/{name}": value
        for part, values in metrics.items()
        for name, value in values.items()
    }
