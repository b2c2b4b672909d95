"""What a lineage has met, and on which side the rows that are tied to it have to lie.

A row is tied to another by its id, by its content and by its cluster. What was held out once never
trains, in any form; what was trained on never becomes a clean holdout.

Shapes: N rows, M rows met before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perennial.data.rows import Rows
from perennial.data.split import components
from perennial.errors import DataError
from perennial.types import Booleans, Strings

ROLES = ("train", "validation", "holdout")


@dataclass(frozen=True)
class Learned:
    """Rows that a lineage has met, over all its cycles.

    Attributes:
        id: Row ids (M,).
        content: Content hashes (M,).
        cluster: Split keys (M,), as the source gave them.
        role: ``train``, ``validation`` or ``holdout`` (M,).
        parted: Rows (M,) whose cluster lies on both sides within its own cycle, as a declared or a
            time split may have it. Such a cluster ties nothing.
    """

    id: Strings
    content: Strings
    cluster: Strings
    role: Strings
    parted: Booleans

    @classmethod
    def of(cls, rows: Rows, role: Strings) -> Learned:
        """The rows of one cycle (M,) with their roles."""
        both = np.intersect1d(rows.cluster[role == "holdout"], rows.cluster[role != "holdout"])
        return cls(rows.id, rows.content, rows.cluster, role, np.isin(rows.cluster, both))

    @classmethod
    def joined(cls, parts: Sequence[Learned]) -> Learned:
        """Rows of several cycles; none for no parts."""
        if not parts:
            none = np.empty(0, dtype=np.str_)
            return cls(none, none, none, none, np.empty(0, dtype=bool))
        columns = ("id", "content", "cluster", "role", "parted")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))

    def only(self, mask: Booleans) -> Learned:
        """The rows of a mask (M,)."""
        return Learned(
            self.id[mask],
            self.content[mask],
            self.cluster[mask],
            self.role[mask],
            self.parted[mask],
        )

    @property
    def held(self) -> Learned:
        """Those that were held out."""
        return self.only(self.role == "holdout")

    @property
    def trained(self) -> Learned:
        """Those that were trained or validated on."""
        return self.only(self.role != "holdout")


@dataclass(frozen=True)
class Ties:
    """What, besides its id, ties a row to another.

    Attributes:
        by_content: Whether equal contents do.
        by_cluster: Whether a common cluster does.
        through_copies: Whether a copy ties whole clusters to each other.
    """

    by_content: bool
    by_cluster: bool
    through_copies: bool

    @classmethod
    def of(cls, *, duplicates: str, grouped: bool) -> Ties:
        """Under a policy for duplicates, with or without a group column.

        Without one a row's cluster is its content, so ``allow`` then leaves the id alone.
        """
        copies = duplicates != "allow"
        return cls(copies, copies or grouped, duplicates == "group")


def tied(rows: Rows, learned: Learned, ties: Ties) -> Booleans:
    """Which rows (N,) are tied to any of the learned ones, by id, content or cluster."""
    return np.isin(rows.id, learned.id) | _copies(rows, learned, ties)


def changed_ids(rows: Rows, learned: Learned) -> Booleans:
    """Which rows (N,) carry the id of a learned row whose content was another."""
    if np.array_equal(rows.id, rows.content):  # no id column: an id is the content
        return np.zeros(len(rows), dtype=bool)
    pairs = np.char.add(np.char.add(learned.id, "\0"), learned.content)
    own = np.char.add(np.char.add(rows.id, "\0"), rows.content)
    return np.isin(rows.id, learned.id) & ~np.isin(own, pairs)


def refuse_changed_ids(rows: Rows, learned: Learned, *, name: str, column: str | None) -> None:
    """Refuse ids that stand for other rows than before.

    Args:
        rows: N rows.
        learned: What the ids stood for.
        name: The source's name, for the message.
        column: The id column.

    Raises:
        DataError: Some do; names the column, the first one and their number.
    """
    changed = changed_ids(rows, learned)
    if changed.any():
        first = int(np.argmax(changed))
        raise DataError(
            f"{int(changed.sum())} of {len(rows)} ids stand for other rows than before: "
            f"{str(rows.id[first])!r} (row {first}) was met with another content.",
            where=f"data.{name}, data.id_column={column}",
            mend="give each row an id of its own over all sources and cycles (a number that starts "
            "anew with each file is none); rows that were corrected need new ids",
        )


def settle(rows: Rows, role: Strings, learned: Learned, *, ties: Ties, declared: bool) -> Strings:
    """Roles (N,) after what the lineage knows; empty where a row has to be left out.

    Rows tied to held-out ones are held out, rows tied to trained ones are trained (or validated on,
    where those were); rows tied to both are left out. A role that the source itself gives is not
    turned into another: against what is known, the row is left out.

    Args:
        rows: N rows.
        role: Their roles by this source alone (N,).
        learned: What was met before.
        ties: What ties rows.
        declared: Whether the source gives roles itself, by a split or a time column.
    """
    if not len(learned.id):
        return role
    key = _keys(rows, learned, ties)
    near = {
        kind: _anywhere(_copies(rows, learned.only(learned.role == kind), ties), key)
        for kind in ROLES
    }
    held, trained = near["holdout"], near["train"] | near["validation"]
    known = np.where(near["train"], "train", "validation")
    known = np.where(held, "holdout", np.where(trained, known, role))
    if declared:
        against = (held & (role != "holdout")) | (trained & (role == "holdout"))
        known = np.where(against, "", role)
    return np.where(held & trained, "", known)


def _copies(rows: Rows, learned: Learned, ties: Ties) -> Booleans:
    mask = np.zeros(len(rows), dtype=bool)
    if ties.by_content:
        mask |= np.isin(rows.content, learned.content)
    if ties.by_cluster:
        mask |= np.isin(rows.cluster, learned.cluster[~learned.parted])
    return mask


def _keys(rows: Rows, learned: Learned, ties: Ties) -> Strings:
    """What rows (N,) share a side: their cluster, joined through copies."""
    parted = np.isin(rows.cluster, learned.cluster[learned.parted])
    cluster = np.where(parted, rows.content, rows.cluster)
    return components(cluster, rows.content) if ties.through_copies else cluster


def _anywhere(mask: Booleans, key: Strings) -> Booleans:
    """Whether the mask (N,) is set for any row with the same key."""
    _, inverse = np.unique(key, return_inverse=True)
    found: Booleans = np.bincount(inverse[mask], minlength=len(key))[inverse] > 0
    return found
