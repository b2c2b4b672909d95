"""What a tracker is.

The registry is the truth and a tracker its mirror, so no tracker may stop a cycle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


class Tracker(Protocol):
    """Where a cycle tells what it does; one run per cycle."""

    def start(
        self,
        *,
        name: str,
        group: str,
        job_type: str,
        config: Mapping[str, Any],
        folder: Path,
        tags: Sequence[str] = (),
    ) -> None:
        """Open a run; its files lie under ``folder``. Never prompts and never raises for a server.

        Args:
            name: What the run is called.
            group: What it belongs with, such as the lineage.
            job_type: ``retrain``, ``trial`` or ``adopt``.
            config: The resolved configuration; secrets in it are masked.
            folder: Folder for the tracker's own files.
            tags: Words to find the run by.
        """

    def logger(self, prefix: str = "") -> Logger | None:
        """A logger for a Lightning Trainer, or ``None``; metric names get the prefix as it is."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Record final values, such as ``retention/candidate`` or ``decision/verdict``."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Record a table of plain values; one without rows is left out."""

    def tag(self, word: str) -> None:
        """Add a word to find the run by."""

    def use(
        self,
        *,
        name: str,
        kind: str,
        files: Mapping[str, Path],
        aliases: Sequence[str],
        metadata: Mapping[str, Any],
    ) -> None:
        """Say that the run started from an artifact, which is mirrored where it is not yet.

        Arguments are those of `artifact`; a failure is a warning.
        """

    def artifact(
        self,
        *,
        name: str,
        kind: str,
        files: Mapping[str, Path],
        aliases: Sequence[str],
        metadata: Mapping[str, Any],
    ) -> None:
        """Mirror files as one artifact; a failure is a warning.

        Args:
            name: The artifact's name.
            kind: Its type, such as ``"model"``.
            files: Name inside the artifact to local path.
            aliases: Such as ``candidate``, and ``champion`` on promotion.
            metadata: Plain values beside it; secrets are masked.
        """

    def identity(self) -> dict[str, str | None]:
        """``run_id``, ``url`` and ``directory``, each ``None`` where there is none."""

    def finish(self, exit_code: int) -> None:
        """Close the run; calling it again does nothing."""
