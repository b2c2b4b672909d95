"""What a command with ``-m`` alone says at its end: the best of its jobs, and their exit code."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import OmegaConf


def tell(jobs: Sequence[JobReturn]) -> None:
    """Print the best job by validation rows, and exit as the worst one did.

    Raises:
        SystemExit: A job failed; verdicts of trials are no failure.
    """
    codes, trials = [], []
    for job in jobs:
        folder = Path(str(OmegaConf.select(job.hydra_cfg, "hydra.runtime.output_dir")))
        if not (folder / "result.json").exists():
            codes.append(0 if _is_dry(job) else 1)
            continue
        result = json.loads((folder / "result.json").read_text())
        codes.append(int(result["exit_code"]) if result["status"] == "failed" else 0)
        if (score := _combined(result)) is not None:
            trials.append((score, str(result["candidate"]["id"]), shlex.join(job.overrides or [])))
    if trials:
        score, candidate, chosen = max(trials, key=lambda one: one[0])
        print(  # noqa: T201
            f"\nBest of {len(trials)} trials on validation rows: {candidate} ({score:.4f}).\n"
            f"To let the gate decide on it: {command()} {chosen}"
        )
    if code := max(codes, default=0):
        raise SystemExit(code)


def command() -> str:
    """How the present command is called for one run."""
    return "python train.py" if sys.argv[0].endswith("train.py") else "perennial train"


def _combined(result: dict[str, Any]) -> float | None:
    if not result["candidate"]:  # skipped ones that were decided before have theirs
        return None
    found = result["validation"] or {"candidate": {}}
    score = found["candidate"].get("combined")
    return None if score is None else float(score)


def _is_dry(job: JobReturn) -> bool:
    return "debug=dry" in (job.overrides or [])
