"""Run folders: found below a folder, read, and told apart from what is torn."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from perennial.errors import ConfigError
from perennial.tracking.compare.runs import Run, Unread, same
from perennial.tracking.compare.values import leaves, resolved

RESULT = "result.json"
CONFIG = Path(".hydra") / "config.yaml"
_NEEDED = (
    "status",
    "created",
    "cycle_id",
    "model_name",
    "champion",
    "candidate",
    "trigger",
    "task",
    "metrics",
    "decision",
    "cost",
    "data",
    "error",
)
_COSTS = ("wall_seconds", "optimizer_steps", "train_rows", "peak_memory_bytes")
# the C loader is twenty times faster, and as safe
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def search(folder: Path) -> Iterator[Path]:
    """Run folders at or below a folder, in order: with a result, or of a cycle that left none."""
    for root, folders, names in os.walk(folder):
        if RESULT in names or ".hydra" in folders:
            yield Path(root)
            folders.clear()
        else:
            folders[:] = sorted(one for one in folders if one[:1] != ".")


def read(folder: Path) -> Run | Unread:
    """A run folder without its configuration, or why there is nothing to compare in it."""
    name = same(folder)
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Unread(name, f"no {RESULT}: it was killed, or runs still")
    except (OSError, ValueError) as error:
        return Unread(name, f"{RESULT} cannot be read: {error}")
    if (odd := _odd(result)) is not None:
        return Unread(name, f"{RESULT} is not one of this version: {odd}")
    return Run(name, result)


def configuration(folder: Path, *, without: Sequence[str]) -> Mapping[str, Any] | None:
    """The settings as Hydra kept them, by dotted keys; None where they cannot be read.

    Args:
        folder: Of one run.
        without: Top-level settings that change nothing about a cycle.
    """
    path = folder / CONFIG
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if not isinstance(value, dict):
        return None
    return resolved(leaves({k: v for k, v in value.items() if k not in without}))


def given(path: Path) -> list[Path]:
    """The run folders that an argument names: a result's file, a run, or a folder of runs.

    Raises:
        ConfigError: There is no such folder, or no run in it.
    """
    if path.is_file() and path.name == RESULT:
        return [path.parent]
    if not path.is_dir():
        raise ConfigError(
            f"There is no run folder {str(path)!r}.",
            where="command line",
            mend="name a folder with runs below it, a result.json, or a version such as digits@2",
        )
    found = list(search(path))
    if not found:
        raise ConfigError(
            f"There is no run in {str(path)!r}.",
            where="command line",
            mend=f"a run is a folder with a {RESULT}; outputs and multirun hold them",
        )
    return found


def _odd(result: Any) -> str | None:
    """The first thing about it that a result does not have."""
    if not isinstance(result, dict):
        return "it is no mapping"
    if missing := [key for key in _NEEDED if key not in result]:
        return f"there is no {missing[0]}"
    for key in ("metrics", "decision", "task", "champion", "candidate", "cost", "error", "data"):
        if not isinstance(result[key], dict | None):
            return f"{key} is no mapping"
    charged = (result["decision"] or {"charge": {}}).get("charge")
    if not isinstance(charged, dict):
        return "its decision was charged nothing"
    if not result["metrics"]:
        return None
    lacking = [key for key in ("task", "decision", "candidate", "cost") if not result[key]]
    return f"there are metrics without a {lacking[0]}" if lacking else _odd_numbers(result)


def _odd_numbers(result: Mapping[str, Any]) -> str | None:
    """Likewise, in what is computed with."""
    candidate = result["metrics"].get("candidate")
    if not isinstance(candidate, dict):
        return "metrics hold no candidate"
    measured = [values for who in result["metrics"].values() if who for values in who.values()]
    if not all(isinstance(values, dict) for values in measured):
        return "metrics are no mappings"
    numbers = [value for values in measured for value in values.values()]
    if not all(isinstance(value, int | float | None) for value in numbers):
        return "a metric is no number"
    if not all(isinstance(result["cost"].get(key), int | float) for key in _COSTS):
        return "a cost is no number"
    return None


def is_version_like(argument: str) -> bool:
    """Whether an argument can only name a version: ``digits@3``."""
    return re.fullmatch(r"[^/\\@]+@[^/\\@]+", argument) is not None
