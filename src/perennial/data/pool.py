"""New rows and history as batches are gathered from them: an index vector into each.

Shapes: N rows of a pool, B rows of a batch, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from perennial.data.form import MASK, formed, is_cut, to_tensor
from perennial.data.lengths import best_cuts, cut_at, lengths
from perennial.data.permutation import Index
from perennial.data.rows import Rows, same_logits, same_width
from perennial.data.spill import read_at_random
from perennial.types import Batch

# no column of a source has a line break in its name
_TARGET, _LOGITS, _TABLE = "\ntarget", "\nlogits", "\ntable"
Columns = dict[str, npt.NDArray[Any]]


class Pools:
    """One pool of new rows, and one of history where any is replayed.

    Columns stay where the rows have them, memory-mapped ones included, until `place` puts them on a
    device. Columns of one number per row are put side by side once, as tuples hold them.

    Args:
        new: New rows.
        history: Rows to replay from, or None.
        form: ``tuple`` or ``dict``.
        label: Key of the targets; None where there are none beside the inputs.

    Attributes:
        counts: Rows of either.
        lengths: For each pool the length of each row's text (N,); empty where there are none.
        cuts: Lengths at which texts are cut, in order; empty where there are none.
        bytes: Of all columns.
        row_bytes: Of one row as a batch holds it, in float32 or int64.
    """

    def __init__(self, new: Rows, history: Rows | None, *, form: str, label: str | None) -> None:
        parts = same_logits([new] if history is None else [new, history])
        targets = same_width([part.label for part in parts])
        self._form, self._label = form, label
        self._ids = [part.id for part in parts]
        for column in (c for part in parts for c in (part.id, part.label, *part.features.values())):
            read_at_random(column)
        self.counts = (len(new), 0 if history is None else len(history))
        self._columns = _same_dtypes(
            [_columns(part, one, form) for part, one in zip(parts, targets, strict=True)]
        )
        cuts = is_cut(new, label=label)
        self.lengths = [lengths(part.features[MASK]) for part in parts] if cuts else []
        self._positions = self._used = 0
        self.cuts = best_cuts(self.lengths) if self.lengths else ()
        self.bytes = sum(column.nbytes for part in self._columns for column in part.values())
        self.row_bytes = sum(
            (4 if _is_short(column) else 8) * math.prod(column.shape[1:])
            for column in self._columns[0].values()
        )
        self._placed: list[dict[str, Tensor]] = []

    def place(self, device: torch.device) -> None:
        """Copy the columns to a device, and gather there from now on."""
        self._placed = [
            {name: to_tensor(column).to(device) for name, column in part.items()}
            for part in self._columns
        ]

    def batch(self, new: Index, replayed: Index) -> Batch:
        """Rows at positions of the new rows, then at positions of history.

        Args:
            new: Positions (B₁,).
            replayed: Positions (B₂,), empty without history.
        """
        index = [new, replayed] if self.counts[1] else [new]
        found = self._on_device(index) if self._placed else self._on_host(index)
        target, logits = found.pop(_TARGET), found.pop(_LOGITS, None)
        ids = [own[at] for own, at in zip(self._ids, index, strict=True)]
        return Batch(
            data=formed(found, target, form=self._form, label=self._label, cut=self.cut(index)),
            ids=ids[0] if len(ids) == 1 else np.concatenate(ids),
            is_new=np.arange(len(new) + len(replayed)) < len(new),
            logits=logits,
        )

    def cut(self, index: list[Index]) -> int | None:
        """Where the texts of a batch are cut; None where there are none."""
        if not self.lengths:
            return None
        drawn = [own[at] for own, at in zip(self.lengths, index, strict=True) if len(at)]
        cut = cut_at(max(int(one.max()) for one in drawn), self.cuts)
        self._positions += cut * sum(map(len, drawn))
        self._used += sum(int(one.sum()) for one in drawn)
        return cut

    def padding(self) -> float | None:
        """Share of the texts' positions in all batches so far that only fill up; None without."""
        return 1 - self._used / self._positions if self._positions else None

    def _on_host(self, index: list[Index]) -> dict[str, Tensor]:
        size = sum(len(at) for at in index)
        found = {}
        for name, like in self._columns[0].items():
            out = np.empty((size, *like.shape[1:]), dtype=like.dtype)
            start = 0
            for part, at in zip(self._columns, index, strict=True):
                # clip, since the check of raise would go through a copy of the buffer
                np.take(part[name], at, axis=0, out=out[start : start + len(at)], mode="clip")
                start += len(at)
            found[name] = to_tensor(out)
        return found

    def _on_device(self, index: list[Index]) -> dict[str, Tensor]:
        first = self._placed[0]
        parts = zip(self._placed, index, strict=True)
        drawn = [(part, torch.from_numpy(at).to(first[_TARGET].device)) for part, at in parts]
        return {
            name: torch.cat([part[name].index_select(0, at) for part, at in drawn])
            for name in first
        }


def _is_short(column: npt.NDArray[Any]) -> bool:
    """Whether a batch holds it as float32, see `perennial.data.form.to_data`."""
    return column.dtype.kind == "f" or (column.dtype == np.uint8 and column.ndim >= 4)


def _columns(rows: Rows, target: npt.NDArray[Any], form: str) -> Columns:
    features: Mapping[str, npt.NDArray[Any]] = rows.features
    scalars = len(features) > 1 and all(column.ndim == 1 for column in features.values())
    if form == "tuple" and scalars:
        features = {_TABLE: np.stack([c.astype(np.float32) for c in features.values()], axis=1)}
    found = {**features, _TARGET: target}
    return found if rows.logits is None else {**found, _LOGITS: rows.logits}


def _same_dtypes(parts: list[Columns]) -> list[Columns]:
    """A gather writes into one buffer, so that pools have to agree."""
    common = {n: np.result_type(*(part[n].dtype for part in parts)) for n in parts[0]}
    return [
        {n: np.asanyarray(column).astype(common[n], copy=False) for n, column in part.items()}
        for part in parts
    ]
