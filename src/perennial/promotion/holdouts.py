"""Which history holdouts are looked at, and how much their rows count."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from perennial.promotion.settings import Retention
from perennial.types import Floats, Strings


def by_age(names: Iterable[str]) -> list[str]:
    """Names of history holdouts, the oldest cycle first; ``new`` is left out.

    >>> by_age(["history/cycle-10", "new", "history/cycle-2", "history/cycle-2"])
    ['history/cycle-2', 'history/cycle-10']
    """
    return sorted(set(names) - {"new"}, key=lambda name: (_number(name), name))


def in_window(names: Iterable[str], retention: Retention) -> list[str]:
    """Those of the history holdouts that the policy looks at, the oldest first."""
    ordered = by_age(names)
    return ordered if retention.window is None else ordered[-retention.window :]


def row_weights(rows: Mapping[str, int], retention: Retention) -> dict[str, float]:
    """Weight of one row of each holdout; all 1 where rows simply count.

    Args:
        rows: Holdout to its number of rows, in the order of `by_age`.
        retention: ``weights=cycles`` gives each holdout the same sum, ``half_life`` halves the
            weight of a row with so many cycles.
    """
    newest = len(rows) - 1
    if retention.half_life is not None:
        return {
            name: 2.0 ** ((age - newest) / retention.half_life) for age, name in enumerate(rows)
        }
    if retention.weights == "cycles":
        mean = sum(rows.values()) / max(len(rows), 1)
        return {name: mean / count if count else 0.0 for name, count in rows.items()}
    return dict.fromkeys(rows, 1.0)


def weight_column(holdout: Strings, retention: Retention) -> Floats | None:
    """Weight of each of N history rows; None where all count alike.

    Args:
        holdout: Name of each row's holdout (N,), all of them in the window.
        retention: The policy's.
    """
    names = by_age(holdout.tolist())
    each = row_weights({name: int((holdout == name).sum()) for name in names}, retention)
    if len(set(each.values())) < 2:
        return None
    weight: Floats = np.zeros(len(holdout))
    for name, value in each.items():
        weight[holdout == name] = value
    return weight


def effective(rows: Mapping[str, int], retention: Retention) -> float:
    """How many equally weighted rows the weighted ones are worth (Kish, 1965).

    Args:
        rows: History holdout to its number of independent rows.
        retention: The policy's window and weights.
    """
    kept = {name: rows[name] for name in in_window(rows, retention)}
    each = row_weights(kept, retention)
    total = sum(each[name] * count for name, count in kept.items())
    squares = sum(each[name] ** 2 * count for name, count in kept.items())
    return total**2 / squares if squares else 0.0


def _number(name: str) -> int:
    found = re.search(r"(\d+)$", name)
    return int(found[1]) if found else -1
