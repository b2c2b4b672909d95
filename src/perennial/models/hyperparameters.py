"""The arguments that a LightningModule saved beside its weights; plain values, never code."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DEEPEST = 8
_MOST = 10_000  # values of one argument: a pickle may refer to one list a thousand times over
_LONGEST = 10_000


def saved_arguments(content: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Arguments by name, and the names of those that are no plain values.

    Plain are texts, finite numbers, true, false and None, and lists and mappings of them. A module
    that saved one argument as a whole (``save_hyperparameters(config)``) has that argument.

    Args:
        content: Of a Lightning checkpoint, read without running anything.
    """
    saved = dict.get(dict(content), "hyper_parameters", {})
    if not isinstance(saved, dict):
        return {}, ("hyper_parameters",)
    name = dict.get(dict(content), "hparams_name")
    if isinstance(name, str) and name != "kwargs":
        saved = {name: saved}
    known: dict[str, Any] = {}
    odd = []
    for key, value in dict.items(saved):
        if not isinstance(key, str):
            continue
        try:
            known[key] = _Plain().of(value)
        except ValueError:
            odd.append(key)
    return known, tuple(odd)


@dataclass
class _Plain:
    """Copies a value where it is plain, within bounds."""

    left: int = _MOST

    def of(self, value: Any, depth: int = 0) -> Any:
        self.left -= 1
        if depth > _DEEPEST or self.left < 0:
            raise ValueError("nested too deep, or too much")
        if value is None or type(value) is bool:
            return value
        if type(value) is int and abs(value) < 2**63:
            return value
        if type(value) is float and math.isfinite(value):
            return value
        if type(value) is str and len(value) <= _LONGEST:
            return value
        if type(value) in (list, tuple):
            return [self.of(one, depth + 1) for one in value]
        if isinstance(value, dict):
            # not value.items(): a pickle may have put attributes over an OrderedDict's methods
            items = list(dict.items(value))
            if all(type(key) is str for key, _ in items):
                return {key: self.of(one, depth + 1) for key, one in items}
        raise ValueError("no plain value")


def taken_by(constructor: Any) -> frozenset[str]:
    """Names of a constructor's arguments; none where it does not tell them."""
    try:
        parameters = inspect.signature(constructor).parameters.values()
    except (TypeError, ValueError):
        return frozenset()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(one.name for one in parameters if one.kind in named)
