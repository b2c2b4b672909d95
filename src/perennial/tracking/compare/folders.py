"""Run folders: found below a folder, read, and told apart from what is torn."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from perennial.errors import ConfigError, first_line
from perennial.nested import leaves
from perennial.paths import from_here
from perennial.tracking.compare.runs import Run, Unread
from perennial.tracking.compare.shape import tame, wrong
from perennial.tracking.compare.values import resolved

RESULT = "result.json"
CONFIG = Path(".hydra") / "config.yaml"
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
    name = from_here(folder)
    try:
        text = (folder / RESULT).read_text(encoding="utf-8")
    except FileNotFoundError:
        return Unread(name, f"no {RESULT}: it was killed, or runs still")
    except (OSError, ValueError) as error:
        return Unread(name, f"{RESULT} cannot be read: {first_line(error)}")
    found = parsed(text)
    return Unread(name, f"{RESULT} {found}") if isinstance(found, str) else Run(name, found)


def parsed(text: str) -> dict[str, Any] | str:
    """A result as it was written, or what is wrong with it, in words that follow its name."""
    try:
        result = json.loads(text)
    except RecursionError:
        return "cannot be read: it is nested too deep"
    except ValueError as error:
        return f"cannot be read: {error}"
    if (odd := wrong(result)) is not None:
        return f"is damaged, or of another release: {odd}"
    checked: dict[str, Any] = result
    return checked


def configuration(folder: Path, *, without: Sequence[str]) -> Mapping[str, Any] | None:
    """The settings as Hydra kept them, by dotted keys; None where they cannot be read.

    Args:
        folder: Of one run.
        without: Top-level settings that change nothing about a cycle.
    """
    path = folder / CONFIG
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    if not isinstance(value, dict) or not tame(value):
        return None
    flat = resolved(leaves({k: v for k, v in value.items() if k not in without}))
    return {key: _plain(one) for key, one in flat.items()}


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


def _plain(value: Any) -> Any:
    """A setting as JSON knows it: YAML has dates and infinities too."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    known = value is None or isinstance(value, str | int)
    return value if known or (isinstance(value, float) and math.isfinite(value)) else str(value)


def is_version_like(argument: str) -> bool:
    """Whether an argument can only name a version: ``digits@3``."""
    return re.fullmatch(r"[^/\\@]+@[^/\\@]+", argument) is not None
