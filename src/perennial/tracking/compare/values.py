"""Nested values by dotted keys, and the key that was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from perennial.errors import ConfigError
from perennial.nested import leaves
from perennial.tracking.compare.runs import Run

_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
NODE = "_target_"


def resolved(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with references to others in their place; what names no setting stays.

    >>> resolved({"a": 1, "b": "${a}", "c": "${oc.env:HOME}"})
    {'a': 1, 'b': 1, 'c': '${oc.env:HOME}'}
    """

    def value(of: Any, depth: int = 0) -> Any:
        found = _REFERENCE.fullmatch(of) if isinstance(of, str) else None
        if found is None or found[1] not in flat or depth > 8:
            return of
        return value(flat[found[1]], depth + 1)

    return {key: value(inner) for key, inner in flat.items()}


def of_run(run: Run) -> dict[str, Any]:
    """Everything of a run that can be asked for or sorted by, by dotted keys."""
    flat = {k: v for k, v in leaves(run.result).items() if not isinstance(v, list)}
    flat |= {f"config.{key}": value for key, value in (run.config or {}).items()}
    return flat | {
        "run": run.name,
        "verdict": run.verdict,
        "trial": run.remark == "trial",
        "version": run.candidate,
    }


def meant(key: str, known: Iterable[str]) -> str:
    """The known key that is asked for, whole or by its end: ``new_fraction``.

    Raises:
        ConfigError: There is none, or there are several.
    """
    names = sorted(set(known))
    if key in names:
        return key
    ending = [name for name in names if name.endswith(f".{key}")]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise ConfigError(
            f"{key!r} may be any of {', '.join(ending[:6])}.",
            where="command line",
            mend=f"write more of it, such as {ending[0]}",
        )
    last = {name.rsplit(".", 1)[-1]: name for name in names}
    close = difflib.get_close_matches(key, names, n=3, cutoff=0.6) or [
        last[one] for one in difflib.get_close_matches(key.rsplit(".", 1)[-1], list(last), n=3)
    ]
    raise ConfigError(
        f"No run has {key!r}.",
        where="command line",
        mend=f"did you mean {' or '.join(close)}?" if close else "see the keys in --json",
    )
