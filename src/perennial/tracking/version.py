"""A run about one version, which is its input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial.tracking.mirror import mirrored

if TYPE_CHECKING:
    from perennial.promotion.registry import Version
    from perennial.tracking.base import Tracker


@contextmanager
def about(
    tracker: Tracker,
    version: Version,
    *,
    job: str,
    config: Mapping[str, Any],
    folder: Path,
    end: Callable[[Mapping[str, Any]], None],
) -> Iterator[dict[str, Any]]:
    """A run whose input is the version; it has failed where the yielded mapping got nothing.

    Args:
        tracker: Where to.
        version: What the run is about.
        job: Its job type, and its tag.
        config: All settings; secrets are masked by the tracker.
        folder: Below which the run's own files lie.
        end: Tells the tracker what the mapping got.
    """
    tracker.start(
        name=f"{version.id}-{job}",
        group=version.name,
        job_type=job,
        config=config,
        folder=folder,
        tags=[job],
    )
    told: dict[str, Any] = {}
    try:
        yield told
        end(told)
        tracker.use(**mirrored(version))
    finally:
        tracker.finish(int(not told))
