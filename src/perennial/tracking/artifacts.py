"""Checkpoints that lie in W&B as artifacts."""

from __future__ import annotations

import os
import re
from pathlib import Path

from perennial.errors import CheckpointError, first_line

_REFERENCE = re.compile(r"wandb://(?P<name>[\w.-]+/[\w.-]+/[\w.-]+)(:(?P<alias>[\w.-]+))?")


def fetch_artifact(reference: str, *, folder: Path) -> Path:
    """Download an artifact; returns the folder with its files.

    Args:
        reference: ``wandb://entity/project/name:alias``; without an alias, ``latest``.
        folder: Where it is put.

    Raises:
        CheckpointError: No such reference, no login, or W&B is out of reach.
    """
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise CheckpointError(
            "This names no artifact of W&B.",
            where=f"checkpoint={reference}",
            mend="write wandb://entity/project/name:alias",
        )
    name = f"{found['name']}:{found['alias'] or 'latest'}"
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        raise CheckpointError(
            f"W&B is {os.environ['WANDB_MODE']}, so that {name} cannot be fetched.",
            where=f"checkpoint={reference}",
            mend="unset WANDB_MODE, or download the artifact and give its path",
        )
    try:
        import wandb

        path = wandb.Api(timeout=30).artifact(name).download(root=str(folder))
    except Exception as error:
        # of a client of the network: whatever it raises is the reason
        reason = first_line(error)
        raise CheckpointError(
            f"{name} could not be had from W&B ({type(error).__name__}: {reason})",
            where=f"checkpoint={reference}",
            mend="check the name, `wandb login` and the network, or download the artifact with "
            f"`wandb artifact get {name}` and give its path",
        ) from error
    return Path(path)
