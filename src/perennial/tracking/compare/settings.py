"""Only the settings that differ between runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perennial.tracking.compare.values import NODE

Config = Mapping[str, Any]
ABSENT = None
# told once for a node that is there or not, in place of each of its settings
PRESENT = "yes"


def differing(configs: Sequence[Config]) -> list[dict[str, Any]]:
    """Of each configuration the settings in which any two differ.

    Where one of them lacks a whole part, a method say, that part is one setting, ``yes`` where it
    is there; its own settings are told where they differ between those that have it.

    Args:
        configs: Dotted keys to values.

    Returns:
        For each configuration the same keys, sorted; a key that it lacks is None.
    """
    keys = sorted({key for config in configs for key in config})
    # an empty mapping, where others hold settings, says nothing that these do not
    keys = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
    nodes = [key.removesuffix(f".{NODE}") for key in keys if key.endswith(f".{NODE}")]
    partial = [node for node in nodes if not all(f"{node}.{NODE}" in one for one in configs)]
    found: dict[str, list[Any]] = {}
    for key in keys:
        inside = [node for node in partial if key.startswith(f"{node}.")]
        holders = [one for one in configs if not inside or f"{inside[-1]}.{NODE}" in one]
        values = {_hashable(one.get(key, ABSENT)) for one in holders}
        if len(values) > 1 or (not inside and not all(key in one for one in configs)):
            found[key] = [one.get(key, ABSENT) for one in configs]
    for node in partial:
        found[node] = [PRESENT if f"{node}.{NODE}" in one else ABSENT for one in configs]
    return [{key: found[key][i] for key in sorted(found)} for i in range(len(configs))]


def short(keys: Sequence[str]) -> dict[str, str]:
    """Each key to the shortest of its endings that no other key has; a constructor to its group.

    >>> list(short(["method.replay.seed", "data.seed", "trainer.max_steps"]).values())
    ['replay.seed', 'data.seed', 'max_steps']
    """

    def ending(key: str, length: int) -> str:
        return ".".join(key.split(".")[-length:])

    found = {}
    for key in keys:
        length = 1
        length += key.endswith(NODE)
        while length < key.count(".") + 1 and any(
            other != key and ending(other, length) == ending(key, length) for other in keys
        ):
            length += 1
        found[key] = ending(key, length).removesuffix(f".{NODE}")
    return found


def _hashable(value: Any) -> Any:
    # True and 1 are two values of a setting
    return (type(value).__name__ if isinstance(value, bool) else "", str(value))
