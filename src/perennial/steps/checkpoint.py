"""The checkpoint that founds a lineage, wherever ``checkpoint=`` says it lies."""

from __future__ import annotations

import importlib
import inspect
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from perennial.errors import CheckpointError, shortened
from perennial.models.checkpoint import BASE, WEIGHTS, Checkpoint, read_state, version_weights
from perennial.models.hub import fetch_hub
from perennial.models.hyperparameters import taken_by
from perennial.promotion.registry import Registry
from perennial.steps.learner import Constructor
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
            return replace(read, weights=weights)
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


def with_hyperparameters(
    model: Constructor, checkpoint: Checkpoint, *, where: str, say: Callable[[str], None]
) -> Constructor:
    """A user's LightningModule with the arguments that its checkpoint saved.

    As ``load_from_checkpoint`` takes them, where its constructor knows them by name and the
    configuration does not give them.

    Args:
        model: Any constructor; one of something else stays as it is.
        checkpoint: As read.
        where: The checkpoint, for what is said.
        say: Told what is taken, and where the configuration differs.
    """
    if not (checkpoint.hyperparameters or checkpoint.odd):
        return model
    module, _, name = model.target.rpartition(".")
    constructor = getattr(importlib.import_module(module), name)
    if not (inspect.isclass(constructor) and issubclass(constructor, pl.LightningModule)):
        return model
    names = taken_by(constructor)
    saved = {key: value for key, value in checkpoint.hyperparameters.items() if key in names}
    given = model.arguments
    carried = {key: value for key, value in saved.items() if key not in given}
    told = [_listed(carried)] if carried else []
    told += [
        f"{key}={_short(given[key])} as configured, where it says {_short(value)}"
        for key, value in saved.items()
        if key in given and given[key] != value
    ]
    asked = {*names, "hyper_parameters"} - set(given)
    if odd := [key for key in checkpoint.odd if key in asked]:
        told.append(f"{', '.join(odd)} not taken, no plain value")
    if told:
        say(f"from {where}: {'; '.join(told)}")
    return replace(model, carried=carried)


def _listed(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{key}={_short(value)}" for key, value in arguments.items())


def _short(value: Any) -> str:
    return shortened(str(value))
