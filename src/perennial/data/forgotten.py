"""Rows that a lineage was told to forget: known by salted hashes of their ids alone.

Shapes: N rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from perennial.types import Booleans, Strings

if TYPE_CHECKING:
    from perennial.data.source import SourceRows


@dataclass(frozen=True)
class Forgotten:
    """What a lineage forgot.

    Attributes:
        salt: Of the lineage's hashes, 32 hex digits; empty where nothing was ever forgotten.
        hashes: Of the forgotten ids, 32 hex digits each.
        erasures: How many times something was.
    """

    salt: str = ""
    hashes: frozenset[str] = frozenset()
    erasures: int = 0

    def mask(self, ids: Strings) -> Booleans:
        """Which rows (N,) are forgotten."""
        if not self.hashes:
            return np.zeros(len(ids), dtype=bool)
        found = [one in self.hashes for one in hashed(ids.tolist(), self.salt)]
        return np.array(found, dtype=bool)


def hashed(ids: Iterable[str], salt: str) -> list[str]:
    """Hashes of row ids, keyed by a lineage's salt: without it, none can be compared with an id."""
    key = bytes.fromhex(salt)
    return [hashlib.blake2b(one.encode(), key=key, digest_size=16).hexdigest() for one in ids]


def without_forgotten(
    source: SourceRows, forgotten: Forgotten, name: str
) -> tuple[SourceRows, str]:
    """A source without forgotten rows, and a line that says how many there were, or nothing."""
    gone = forgotten.mask(source.rows.id)
    if not gone.any():
        return source, ""
    kept = replace(
        source,
        rows=source.rows.take(~gone),
        declared_role=None if source.declared_role is None else source.declared_role[~gone],
        time=None if source.time is None else source.time[~gone],
    )
    return kept, f"{name}: {int(gone.sum())} rows left out, forgotten on request"
