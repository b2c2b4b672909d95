"""From a composed configuration to plain values: unknown keys and wrong types are refused here."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from perennial.errors import ConfigError
from perennial.paths import CONF_DIR

# settings that change nothing about a cycle itself
RUN_KEYS = (
    *("registry", "tracking", "notify", "promote", "force", "exit_zero", "dry", "debug"),
    *("sweep", "trial", "trigger", "backtest"),
)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like a misspelt one, by the whole path or by its last part."""
    names = list(known)
    if found := difflib.get_close_matches(word, names, n=1, cutoff=0.6):
        return found[0]
    last = word.rsplit(".", 1)[-1]
    by_last = {name.rsplit(".", 1)[-1]: name for name in names}
    found = difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.6)
    return by_last[found[0]] if found else None


def locate(target: str, *, where: str) -> Any:
    """Import what a dotted path names.

    Raises:
        ConfigError: Nothing is there; names the part that is missing.
    """
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{target!r} could not be imported: {error}.",
            where=f"{where}._target_",
            mend=_meant(target)
            + "check the import path, and that its module lies in this folder or is installed",
        ) from error


def _meant(target: str) -> str:
    """What a path that leads nowhere may be meant to be; empty where nothing is like it."""
    parts = target.split(".")
    found: Any = None
    for place, part in enumerate(parts):
        names = _names_in(found, last=place == len(parts) - 1)
        if part not in names:
            close = difflib.get_close_matches(part, names, n=1, cutoff=0.6)
            right = ".".join([*parts[:place], *close, *parts[place + 1 :]])
            return f"did you mean {right}? If not, " if close else ""
        try:
            found = importlib.import_module(".".join(parts[: place + 1]))
        except Exception:  # a class, or a module that fails by itself, which the message tells
            return ""
    return ""


def _names_in(module: Any, *, last: bool) -> list[str]:
    """Modules of the present folder, or what a module holds: modules, and at the end classes."""
    if module is None:
        installed = {name for name in sys.modules if "." not in name}
        return sorted({one.name for one in pkgutil.iter_modules([str(Path.cwd())])} | installed)
    inner = [one.name for one in pkgutil.iter_modules(getattr(module, "__path__", []))]
    own = [name for name, value in vars(module).items() if callable(value)] if last else []
    return [*inner, *own]


def check_node(
    node: Mapping[str, Any], *, where: str, constructor: Callable[..., Any] | None = None
) -> None:
    """Check a node's keys and plain types against a constructor.

    Args:
        node: The settings.
        where: Their path, for messages.
        constructor: What takes them; None for what the node's ``_target_`` names.

    Raises:
        ConfigError: The node is no mapping, a key is not taken, or a value is of another type.
    """
    if not isinstance(node, Mapping) or (constructor is None and "_target_" not in node):
        raise ConfigError(
            f"{where} is {node!r}; it takes settings under a _target_.",
            where=where,
            mend=f"see {where} in --cfg job",
        )
    constructor = constructor or locate(str(node["_target_"]), where=where)
    try:
        parameters = inspect.signature(constructor).parameters
        hints = typing.get_type_hints(
            constructor.__init__ if inspect.isclass(constructor) else constructor
        )
    except (TypeError, ValueError, NameError):
        return
    free = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key, value in node.items():
        if key.startswith("_"):
            continue
        if key not in parameters:
            if free:
                continue
            close = nearest(key, parameters)
            raise ConfigError(
                f"{where}.{key} is not a setting of {node.get('_target_', where)}.",
                where=f"{where}.{key}",
                mend=f"did you mean {where}.{close}?" if close else "take it out",
            )
        if key in hints and not accepts(hints[key], value):
            raise ConfigError(
                f"{where}.{key} is {value!r}; it takes {_words(hints[key])}.",
                where=f"{where}.{key}",
                mend=f"see its comment in {CONF_DIR / where.partition('.')[0]}",
            )


def accepts(hint: Any, value: Any) -> bool:
    """Whether a plain value fits a type hint; only plain types are judged."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(accepts(option, value) for option in typing.get_args(hint))
    if hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool):
        return isinstance(value, hint)
    if getattr(hint, "__module__", "").startswith("torch"):
        return isinstance(value, hint)
    return value is not None or hint is Any


def check_patterns(patterns: Any, *, where: str) -> None:
    """Check a list of patterns of names.

    Raises:
        ConfigError: It is no list of texts.
    """
    right = isinstance(patterns, list) and all(isinstance(one, str) for one in patterns)
    if patterns is not None and not right:
        raise ConfigError(
            f"{where} is {patterns!r}; it takes a list of patterns of names.",
            where=where,
            mend=f"write {where}=['encoder.*']",
        )


def check_types(config: Mapping[str, Any]) -> None:
    """Check the top-level settings, which no constructor's signature describes.

    Raises:
        ConfigError: A value of another type, or out of range.
    """
    kinds: dict[str, tuple[type, ...]] = {
        "model_name": (str,),
        "history": (str,),
        "checkpoint": (str, types.NoneType),
        "trial": (str, types.NoneType),
        **dict.fromkeys(("promote", "force", "exit_zero", "dry"), (bool,)),
    }
    for key, allowed in kinds.items():
        if key in config and not isinstance(config[key], allowed):
            raise ConfigError(
                f"{key} is {config[key]!r}; it takes {' or '.join(map(_words, allowed))}.",
                where=key,
                mend="write true or false" if bool in allowed else f"quote it: {key}='\"...\"'",
            )
    seed = config.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ConfigError(
            f"seed is {seed!r}; it takes a whole number from 0 to {2**32 - 1}.",
            where="seed",
            mend="write seed=0",
        )


def _words(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_words(option) for option in typing.get_args(hint))
    if hint is types.NoneType:
        return "null"
    return names.get(hint) or f"a {getattr(hint, '__name__', hint)}"
