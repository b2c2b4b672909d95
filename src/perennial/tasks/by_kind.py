"""The task of each kind of target: how a version that is loaded reads its model's outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perennial.errors import PerennialError, RegistryError, first_line
from perennial.tasks.base import Task
from perennial.tasks.classification import Classification
from perennial.tasks.language import CausalLanguage
from perennial.tasks.multilabel import MultiLabel
from perennial.tasks.ranking import Ranking
from perennial.tasks.regression import Regression
from perennial.tasks.tokens import TokenClassification

_TASKS: dict[str, Any] = {
    "class": Classification,
    "classes": MultiLabel,
    "number": Regression,
    "tokens": TokenClassification,
    "item": Ranking,
    "none": CausalLanguage,
}


def task_of(kind: str, arguments: Mapping[str, Any], *, ref: str) -> Task:
    """The project's own task of a kind, whatever class a version was trained by.

    Args:
        kind: One of `perennial.types.TARGET_KINDS`.
        arguments: Of its constructor, as a version's manifest keeps them.
        ref: The version, for messages.

    Raises:
        RegistryError: The task takes other arguments.
    """
    try:
        task: Task = _TASKS[kind](**arguments)
    except (TypeError, ValueError, PerennialError) as error:
        raise RegistryError(
            f"The task of {ref} cannot be built with its arguments: {first_line(error)}",
            where=ref,
            mend="use the code that the version was trained with",
        ) from error
    return task
