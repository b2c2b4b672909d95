"""The checkpoint that founds a lineage, wherever ``checkpoint=`` says it lies."""

from __future__ import annotations

import tempfile
from pathlib import Path

from perennial.errors import CheckpointError
from perennial.models.checkpoint import BASE, WEIGHTS, Checkpoint, read_state, version_weights
from perennial.models.hub import fetch_hub
from perennial.promotion.registry import Registry
from perennial.tracking.artifacts import fetch_artifact

SCHEMES = ("hf://", "wandb://", "registry://")


def open_checkpoint(reference: str, registry: Registry) -> Checkpoint:
    """Read a path, ``hf://org/name[@revision]``, ``wandb://…`` or ``registry://name@alias``.

    Args:
        reference: What ``checkpoint=`` says.
        registry: Where ``registry://`` looks.

    Raises:
        CheckpointError: It is not there, damaged, of an unknown kind, or would execute code.
        RegistryError: The registry has no such version.
    """
    if reference.startswith("hf://"):
        return read_state(fetch_hub(reference))
    if reference.startswith("registry://"):
        version = registry.version(reference.removeprefix("registry://"))
        hashes = [version.files[name] for name in (BASE, WEIGHTS) if name in version.files]
        return Checkpoint(
            weights=version_weights(version), kind="registry", sha256="-".join(hashes)
        )
    if reference.startswith("wandb://"):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            read = read_state(fetch_artifact(reference, folder=Path(folder)))
            # safetensors are mapped, and their file goes with the folder
            weights = {name: value.clone() for name, value in read.weights.items()}
            return Checkpoint(weights=weights, kind=read.kind, sha256=read.sha256)
    return read_state(Path(reference))


def check_checkpoint(reference: str | None) -> None:
    """Refuse a ``checkpoint=`` that cannot be there, before any work.

    Raises:
        CheckpointError: Names the path.
    """
    if reference is None or reference.startswith(SCHEMES):
        return
    if "://" in reference:
        raise CheckpointError(
            "This names no place that checkpoints are read from.",
            where=f"checkpoint={reference}",
            mend=f"give a path, or one of {', '.join(SCHEMES)}",
        )
    if not Path(reference).exists():
        raise CheckpointError(
            "The checkpoint does not exist.",
            where=f"checkpoint={reference}",
            mend="check the path; it is taken relative to the folder the command runs in",
        )
