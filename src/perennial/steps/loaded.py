"""A stored version, built and ready to run on rows that are read as it takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from perennial.data.preprocess import check_same, restored
from perennial.errors import ConfigError
from perennial.models.checkpoint import version_weights
from perennial.models.rebuild import rebuild
from perennial.promotion.manifest import check_manifest
from perennial.promotion.registry import Version
from perennial.steps.candidate import view
from perennial.steps.collect import Data
from perennial.steps.learner import Constructor, Learner, build_learner
from perennial.steps.settings import Cycle
from perennial.tasks.base import Task


def loaded(
    version: Version, *, data: Data, task: Task, allow: Sequence[str], device: torch.device
) -> tuple[Learner, Data]:
    """Its model with its weights, and the settings of the rows with its preprocessing.

    Args:
        version: The one to run.
        data: As configured.
        task: Scores.
        allow: Import paths of the user's own classes that may be built.
        device: Where the model lies.

    Raises:
        RegistryError: The version's class is not allowed, or has changed, or its manifest is
            malformed.
        ConfigError: It is of another kind of task, or preprocesses otherwise.
    """
    check_manifest(version)
    data = data.for_task(task)
    _refuse_another_kind(version, task)
    stored = restored(
        version.manifest["preprocess"],
        lambda path: version.open(path).read_bytes(),
        allow=allow,
        ref=version.id,
    )
    if data.preprocess is not None:
        check_same(data.preprocess, stored, ref=version.id, where="data.preprocess")
    kept = replace(data, preprocess=stored).for_task(task)
    constructor = version.manifest["model"]

    def build() -> Any:
        return rebuild(
            constructor,
            weights=version_weights(version),
            allow=allow,
            ref=version.id,
            how="allow=[{target}]",
        )

    learner = build_learner(
        model=Constructor(
            target=constructor["target"], arguments=constructor["arguments"], build=build
        ),
        task=task,
        optimizer=_no_optimizer,
        device=device,
        form=data.form,
        label=data.label,
        preprocess=stored,
    )
    return learner, kept


def configured(cycle: Cycle, version: Version) -> Learner:
    """A version's weights in the model that a cycle's configuration builds.

    Args:
        cycle: Of the version's lineage.
        version: The one to run.
    """
    learner = cycle.learner(version)
    learner.load(learner.view(view(version)).weights)
    return learner


def _refuse_another_kind(version: Version, task: Task) -> None:
    kind = version.manifest["task"]["kind"]
    if kind != task.target_kind:
        raise ConfigError(
            f"{version.id} was trained for targets of the kind {kind!r}, and "
            f"{type(task).__name__} takes {task.target_kind!r}.",
            where="task",
            mend="choose the task that the version was trained with",
        )


def _no_optimizer(*_: Any, **__: Any) -> Any:
    raise AssertionError("a version that is looked at does not train")
