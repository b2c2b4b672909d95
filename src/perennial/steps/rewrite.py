"""A version's files without some of its rows.

Each stored file is rewritten once, however many versions share it, so that they share it
afterwards as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perennial import files as durable
from perennial.data.learned import ROLES
from perennial.data.memory import Shard
from perennial.data.shards import Index, read_index, write_index
from perennial.data.store import keep_rows, read_rows_file, row_ids
from perennial.monitoring import reference
from perennial.promotion import best, predictions
from perennial.promotion.registry import Version
from perennial.steps.remember import index_path, shard_path
from perennial.types import Booleans

_SHARD = re.compile(r"memory/(train|validation)/[0-9a-f]{16}\.arrow")
_INDEX = re.compile(r"memory/(train|validation)\.arrow")
_GONE = ""
# a copy of a row without an id of its own, as `perennial.steps.judge.distinct` names it
_COPY = re.compile(r"([0-9a-f]{32})#\d+")


def is_rows(path: str) -> bool:
    """Whether a path inside a version is a file of rows with ids."""
    of_a_set = path.startswith(("rows/", "holdout/")) or path == reference.ROWS
    return of_a_set or _SHARD.fullmatch(path) is not None


class Rewriter:
    """Rewrites files of versions.

    Args:
        ids: Of the rows that go.
        tied: Their clusters and contents.
        folder: For what is written.
        stage: Stores a file and returns its SHA-256; None stores nothing.
    """

    def __init__(
        self,
        ids: frozenset[str],
        tied: frozenset[str],
        folder: Path,
        stage: Callable[[Path], str] | None,
    ) -> None:
        self._ids = ids
        self._sorted = sorted(ids)
        self._tied = tied
        self._folder = folder
        self._stage = stage
        self._new: dict[str, str | None] = {}
        self._kept: dict[str, Booleans] = {}

    def version(self, version: Version) -> dict[str, str]:
        """The version's files, path to SHA-256, without the rows; pages are as they were."""
        found: dict[str, str] = {}
        for path, sha256 in version.files.items():
            if is_rows(path):
                new = self._rows(version, path, sha256)
            elif path in (predictions.ROWS, best.FILE):
                new = self._parquet(version, path, sha256)
            elif path == predictions.FACTS:
                new = self._facts(version, path, sha256)
            else:
                new = sha256
            if new is not None and not _SHARD.fullmatch(path):
                found[path] = new
        for path in [path for path in version.files if _INDEX.fullmatch(path)]:
            found |= self._memory(version, path)
        if reference.FACTS in version.files:
            found |= self._reference(version, found)
        return {path: sha256 for path, sha256 in found.items() if sha256 != _GONE}

    def roles(self, versions: Sequence[Version]) -> dict[str, int]:
        """In which roles the rows were met, each row once."""
        met: dict[str, str] = {}
        for version in versions:
            for path in [path for path in version.files if path.startswith("rows/")]:
                rows, extra = read_rows_file(version.open(path))
                gone = np.isin(rows.id, self._sorted)
                met |= dict(zip(rows.id[gone].tolist(), extra["role"][gone].tolist(), strict=True))
        return {role: list(met.values()).count(role) for role in ROLES}

    def holdouts(self, version: Version) -> dict[str, tuple[int, int]]:
        """Rows of each holdout of a version before and after, where that changes."""
        found = {}
        for path in [path for path in version.files if path.startswith("holdout/")]:
            kept = self._kept[version.files[path]]
            if not kept.all():
                found[Path(path).stem] = (len(kept), int(kept.sum()))
        return found

    def memory(self, version: Version, kind: str) -> tuple[int, int]:
        """Rows in a version's memory before and after."""
        if index_path(kind) not in version.files:
            return 0, 0
        index = read_index(version.open(index_path(kind)))
        return len(index.place), int(self._living(index).sum())

    def _rows(self, version: Version, path: str, sha256: str) -> str | None:
        """An empty holdout is none; an empty index of a cycle still says that there was one."""
        if sha256 not in self._new:
            source = version.open(path)
            keep = ~np.isin(row_ids(source), self._sorted)
            self._kept[sha256] = keep
            self._new[sha256] = sha256
            if not keep.all():
                target = self._folder / sha256
                empty = not keep.any() and not path.startswith("rows/")
                self._new[sha256] = (
                    None if empty else self._stored(target, keep_rows(source, target, keep))
                )
        return self._new[sha256]

    def _memory(self, version: Version, path: str) -> dict[str, str]:
        """A memory's index and the shards that it points into."""
        kind = Path(path).stem
        index = read_index(version.open(path))
        shards = {name: new for name in index.shards if (new := self._new[name]) is not None}
        inside = {shard_path(kind, new): new for new in shards.values()}
        living = self._living(index)
        if all(name == new for name, new in shards.items()) and living.all():
            return inside | {path: version.files[path]}
        place = index.place.copy()
        for name in index.shards:
            at = index.shard == name
            place[at] = (np.cumsum(self._kept[name]) - 1)[index.place[at]]
        names = np.array([shards.get(one, "") for one in index.shard.tolist()], dtype="<U64")
        known = {
            new: Shard(index.shards[name].version, int(self._kept[name].sum()))
            for name, new in shards.items()
            if new in names[living]
        }
        target = self._folder / version.files[path]
        digest = write_index(
            target,
            Index(names[living], place[living], index.cycle[living], known, index.bound),
        )
        inside = {shard_path(kind, new): new for new in known}
        return inside | {path: self._stored(target, digest)}

    def _reference(self, version: Version, found: Mapping[str, str]) -> dict[str, str]:
        """What is known of all of a cycle's rows, of those of its sample once one of them is gone.

        The others are not there any more to count again.
        """
        if reference.ROWS not in found:
            return {reference.FACTS: _GONE}
        rows, facts = (version.open(path) for path in (reference.ROWS, reference.FACTS))
        kept = reference.read(rows, facts, version=version.id)
        index = f"rows/{kept.cycle}.arrow"
        stays = self._kept[version.files[index]]
        sha256 = version.files[reference.FACTS]
        if stays.all():
            return {reference.FACTS: sha256}
        role = read_rows_file(version.open(index))[1]["role"][stays]
        left = self._kept[version.files[reference.ROWS]]
        total = {one: int((role == one).sum()) for one in kept.total}
        kept = replace(
            kept,
            rows=kept.rows.take(left),
            role=kept.role[left],
            order=kept.order[left],
            total=total,
        )
        target = self._folder / sha256
        content = reference.facts(reference.summarised(kept))
        digest = durable.write_bytes(target, content)
        return {reference.FACTS: self._stored(target, digest)}

    def _living(self, index: Index) -> Booleans:
        found = np.zeros(len(index.place), dtype=bool)
        for name in index.shards:
            at = index.shard == name
            found[at] = self._kept[name][index.place[at]]
        return found

    def _parquet(self, version: Version, path: str, sha256: str) -> str:
        if (known := self._new.get(sha256)) is not None:
            return known
        table = pq.read_table(version.open(path))
        keep = np.array([not self._goes(one) for one in table["row_id"].to_pylist()], dtype=bool)
        self._new[sha256] = new = sha256
        if not keep.all():
            target = self._folder / sha256
            kept = table.filter(pa.array(keep))
            digest = durable.write(target, lambda file: pq.write_table(kept, file))
            self._new[sha256] = new = self._stored(target, digest)
        return new

    def _facts(self, version: Version, path: str, sha256: str) -> str:
        """The facts beside the rows name clusters of new training rows, and nothing else of one."""
        if (known := self._new.get(sha256)) is not None:
            return known
        kept: dict[str, Any] = json.loads(version.read_text(path))
        fitted = kept["fitted"]
        self._new[sha256] = new = sha256
        if fitted is not None and self._tied & set(fitted["cluster"]):
            stay = [row for row, one in enumerate(fitted["cluster"]) if one not in self._tied]
            kept["fitted"] = (
                {key: [values[row] for row in stay] for key, values in fitted.items()}
                if stay
                else None
            )
            target = self._folder / sha256
            content = (json.dumps(kept) + "\n").encode()
            self._new[sha256] = new = self._stored(target, durable.write_bytes(target, content))
        return new

    def _goes(self, row_id: str) -> bool:
        if row_id in self._ids:
            return True
        copy = _COPY.fullmatch(row_id)
        return copy is not None and copy[1] in self._ids

    def _stored(self, path: Path, sha256: str) -> str:
        if self._stage is None:
            return sha256
        staged = self._stage(path)
        path.unlink()
        return staged
