"""A version that was scored without training, as a tracked run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial.tracking.mirror import mirrored

if TYPE_CHECKING:
    from perennial.promotion.registry import Version
    from perennial.tracking.base import Tracker

JOB = "evaluate"


@contextmanager
def evaluated(
    tracker: Tracker, version: Version, *, config: Mapping[str, Any], folder: Path
) -> Iterator[dict[str, Mapping[str, float]]]:
    """A run whose input is the version; it ends with the metrics that the yielded mapping got.

    Args:
        tracker: Where to.
        version: What is scored.
        config: All settings; secrets are masked by the tracker.
        folder: Below which the run's own files lie.

    Yields:
        Takes part of the rows to its metrics, as `perennial.steps.evaluate.evaluate` returns them.
    """
    tracker.start(
        name=f"{version.id}-{JOB}",
        group=version.name,
        job_type=JOB,
        config=config,
        folder=folder,
        tags=[JOB],
    )
    found: dict[str, Mapping[str, float]] = {}
    try:
        yield found
        tracker.summary(summary(version.id, found))
        tracker.use(**mirrored(version))
    finally:
        tracker.finish(int(not found))


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
