"""Score a version on any rows, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console

from perennial.data.source import check_schema
from perennial.notation import level
from perennial.promotion.registry import Registry
from perennial.reporting.console import print_table
from perennial.steps.collect import Data
from perennial.steps.judge import aggregate
from perennial.steps.lineage import learned_rows
from perennial.steps.loaded import loaded
from perennial.tasks.base import Task
from perennial.training.settings import Training


def evaluate(
    *,
    registry: Registry,
    ref: str,
    data: Data,
    allow: Sequence[str],
    task: Task,
    accelerator: str,
    console: Console,
) -> dict[str, dict[str, float]]:
    """Print and return metrics of a version over ``data.new``, by what it has met of the rows.

    Args:
        registry: Where the version lives.
        ref: ``name@champion``, ``name@3``.
        data: ``data.new`` is scored.
        allow: Import paths of the user's own classes that may be built.
        task: Scores.
        accelerator: ``auto``, ``cpu`` or ``cuda``.
        console: Where the table goes.

    Returns:
        ``all``, and where there are any ``trained on`` and ``never trained on``, to metrics.

    Raises:
        RegistryError: The version's class is not allowed, or has changed, or its manifest is
            malformed.
        DataError: The rows do not fit the version's schema.
    """
    version = registry.version(ref)
    learner, data = loaded(
        version,
        data=data,
        task=task,
        allow=allow,
        device=Training(accelerator=accelerator).device(),
    )
    known = tuple(version.manifest["label_names"])
    schema = dict(version.manifest["schema"])
    source = data.read(data.new, name="new", label_names=known, schema=schema, holds_out=False)
    names = source.label_names
    check_schema(schema, source.schema, "the version", "new")
    predictions = learner.predict(source.rows, classes=len(names))
    learned = learned_rows(version)
    trained = np.isin(source.rows.id, learned.id[learned.role != "holdout"])
    masks = {"all": np.ones(len(trained), dtype=bool)}
    if trained.any():
        masks |= {"never trained on": ~trained, "trained on": trained}
    result = {
        name: aggregate(predictions, source.rows.label, mask, task, len(names))
        for name, mask in masks.items()
        if mask.any()
    }
    print_table(
        table(result, title=f"{version.id} on data.new", unit=task.score_unit),
        align="l" + "r" * len(result["all"]),
        console=console,
    )
    return result


def table(
    result: Mapping[str, Mapping[str, float]], *, title: str, unit: str = "points"
) -> list[list[str]]:
    """Cells of metrics by part of the rows, the header first: rows, then each metric.

    Args:
        result: As `evaluate` returns it.
        title: Heads the first column.
        unit: ``points`` shows metrics but the loss in percent.
    """
    metrics = [name for name in result["all"] if name != "n"]
    header = [title, "rows", *(name.replace("_", " ") for name in metrics)]
    return [
        header,
        *(
            [
                part,
                f"{int(values['n']):,}",
                *(_number(name, values[name], unit) for name in metrics),
            ]
            for part, values in result.items()
        ),
    ]


def _number(name: str, value: float, unit: str) -> str:
    return f"{value:.4f}" if name in ("loss", "perplexity") else level(value, unit)
