"""A lineage: every version of it that ever served, and what they met.

New are the rows that none of them has learned. After a rollback the present champion lacks the
cycles of those that served after it; their rows are history all the same: they are replayed, their
memories join the next version's, and their holdouts go on testing. That a version was worse than
its forerunner says nothing against the rows it learned; rows that are wrong leave by correcting
their source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from perennial.data.forgotten import Forgotten
from perennial.data.learned import Learned, Ties, tied
from perennial.data.rows import Rows
from perennial.data.store import read_rows_file
from perennial.errors import ConfigError
from perennial.promotion.manifest import check_manifest
from perennial.promotion.registry import Registry, Version
from perennial.types import Booleans


@dataclass(frozen=True)
class Lineage:
    """What the versions that ever served have met.

    Attributes:
        champion: The version that serves.
        former: Other versions that served and met what the champion's line has not.
        cycles: Name of each cycle to the version that keeps its rows and holdout, and their name
            there. Names are unique; their last part is a running number.
        forgotten: What it was told to forget.
    """

    champion: Version
    former: tuple[Version, ...]
    cycles: Mapping[str, tuple[Version, str]]
    forgotten: Forgotten = field(default_factory=Forgotten)

    @cached_property
    def learned(self) -> Learned:
        """Every row that was met, with its role."""
        return Learned.joined([_met(version, stem) for version, stem in self.cycles.values()])

    def learned_in(
        self, kind: str, names: Sequence[str], *, held: Learned, ties: Ties
    ) -> dict[str, Rows]:
        """Rows without features that each cycle learned, by its name.

        A row that two cycles learned beside each other is the first one's.

        Args:
            kind: ``train`` or ``validation``.
            names: Class names that labels count among; rows of others are left out.
            held: Every held-out row; what is tied to one is left out, as it is not replayed.
            ties: What ties rows to these.
        """
        found: dict[str, Rows] = {}
        for name, (version, stem) in self.cycles.items():
            rows, extra = read_rows_file(version.open(f"rows/{stem}.arrow"))
            own = version.manifest["label_names"]
            rows, _ = relabelled(rows.take(extra["role"] == kind), own, names)
            rows = rows.take(~tied(rows, held, ties))
            for earlier in found.values():
                rows = rows.take(~np.isin(rows.id, earlier.id))
            found[name] = rows
        return found

    def holdouts(self, names: Sequence[str]) -> dict[str, tuple[Rows, Booleans]]:
        """The frozen holdouts: ``history/<cycle>`` to rows and ``seen_by_champion``.

        Args:
            names: Class names, the champion's and after them those of new classes; rows of others,
                which a version after the champion had learned, are left out.
        """
        own = learned_rows(self.champion).trained
        found = {}
        for name, (version, stem) in self.cycles.items():
            if (held := _holdout(version, stem)) is None:
                continue
            rows, seen = held
            if version is not self.champion:
                # decided beside each other, two cycles may have trained and held out one row
                seen = seen | np.isin(rows.id, own.id)
                rows, known = relabelled(rows, version.manifest["label_names"], names)
                seen = seen[known]
            found[f"history/{name}"] = (rows, seen)
        return found

    @property
    def sources(self) -> dict[str, Any]:
        """Name of each cycle to the source of its rows, where that can be read again."""
        found = {}
        for name, (version, stem) in self.cycles.items():
            path = version.manifest["sources"].get(stem)
            if path is not None:
                found[name] = path
        return found

    def numbers_in(self, version: Version) -> dict[int, int]:
        """A version's own numbers of the cycles it has met, and the lineage's."""
        own = {version.files[f"rows/{stem}.arrow"]: number_of(stem) for stem in _stems(version)}
        return {
            own[sha256]: number_of(name)
            for name, (keeper, stem) in self.cycles.items()
            if (sha256 := keeper.files[f"rows/{stem}.arrow"]) in own
        }

    @property
    def next_number(self) -> int:
        """A number that no cycle of the lineage has."""
        return 1 + max((number_of(name) for name in self.cycles), default=0)

    def files(self) -> dict[str, Path]:
        """What the next version keeps as it is: all rows, and the champion's own holdouts."""
        return {
            f"{kind}/{name}.arrow": version.open(f"{kind}/{stem}.arrow")
            for name, (version, stem) in self.cycles.items()
            for kind in ("rows", "holdout")
            if f"{kind}/{stem}.arrow" in version.files
            and (kind == "rows" or version is self.champion)
        }


def lineage_of(registry: Registry, champion: Version) -> Lineage:
    """The lineage of a champion, from all versions that ever were champion.

    Raises:
        RegistryError: A version's manifest is malformed.
    """
    forgotten = registry.forgotten(champion.name)
    served = [
        version
        for version in registry.versions(champion.name)
        if version.promoted is not None and version.number != champion.number
    ]
    cycles: dict[str, tuple[Version, str]] = {}
    known: set[str] = set()
    former: list[Version] = []
    for version in (champion, *served):
        check_manifest(version)
        for stem in sorted(_stems(version), key=number_of):
            rows = version.files[f"rows/{stem}.arrow"]
            if rows in known:
                continue
            known.add(rows)
            name = stem
            if name in cycles:  # decided beside each other, two cycles took one name
                name = f"cycle-{1 + max(number_of(other) for other in cycles)}"
            cycles[name] = (version, stem)
            if version is not champion and version not in former:
                former.append(version)
    return Lineage(champion, tuple(former), cycles, forgotten)


def learned_rows(version: Version) -> Learned:
    """Everything that the cycles that led to a version have met."""
    return Learned.joined([_met(version, stem) for stem in sorted(_stems(version), key=number_of)])


def holdouts(version: Version) -> dict[str, Rows]:
    """A version's frozen holdouts by the names of their cycles, in the order of these."""
    stems = sorted(_stems(version), key=number_of)
    found = {stem: _holdout(version, stem) for stem in stems}
    return {stem: held[0] for stem, held in found.items() if held is not None}


def relabelled(rows: Rows, own: Sequence[str], names: Sequence[str]) -> tuple[Rows, Booleans]:
    """Rows whose labels count among other class names; those of classes without a name leave.

    Only a lineage whose rows are of one class each may get other names.

    Args:
        rows: N rows.
        own: Class names in the order of their labels.
        names: Class names wanted.

    Returns:
        The rows, and which of the given ones they are (N,).
    """
    if tuple(own) == tuple(names):
        return rows, np.ones(len(rows), dtype=bool)
    known = {name: position for position, name in enumerate(names)}
    label = np.array([known.get(name, -1) for name in own], dtype=np.int64)[rows.label]
    return replace(rows, label=label).take(label >= 0), label >= 0


def number_of(name: str) -> int:
    """The running number in a cycle's name."""
    return int(name.rpartition("-")[2])


def refuse_another_identity(
    champion: Version, *, identity: Mapping[str, Any], labels: Sequence[str] | None
) -> None:
    """Refuse settings under which the lineage's rows or classes would not be what they were.

    Args:
        champion: Carries what the lineage was founded with.
        identity: Present settings that tell rows apart; see `perennial.steps.collect.Data`.
        labels: The present ``task.labels``, or None.

    Raises:
        ConfigError: Names the first one that differs, and what the lineage was founded with.
    """
    founded: dict[str, Any] = champion.manifest["lineage"]
    for name, value in identity.items():
        if value != founded[name]:
            raise ConfigError(
                f"{champion.name!r} was founded with {name}={_shown(founded[name])}, and its rows "
                f"are told apart by it; now it is {_shown(value)}.",
                where=name,
                mend=f"set {name}={_shown(founded[name])}, or found another lineage with "
                f"model_name={champion.name}-2",
            )
    given, names = tuple(labels or ()), tuple(champion.manifest["label_names"])
    if given != names[: len(given)]:
        raise ConfigError(
            f"The classes of {champion.id} are {_listed(names)}, in this order; task.labels says "
            f"{_listed(given)}.",
            where="task.labels",
            mend="leave task.labels out: the lineage knows its classes by name",
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def _stems(version: Version) -> set[str]:
    return {Path(path).stem for path in version.files if path.startswith("rows/")}


def _holdout(version: Version, stem: str) -> tuple[Rows, Booleans] | None:
    """Rows and ``seen_by_champion``; None where the cycle held nothing out."""
    path = f"holdout/{stem}.arrow"
    if path not in version.files:
        return None
    rows, extra = read_rows_file(version.open(path))
    return rows, extra["seen"].astype(bool)


def _met(version: Version, stem: str) -> Learned:
    rows, extra = read_rows_file(version.open(f"rows/{stem}.arrow"))
    return Learned.of(rows, extra["role"])
