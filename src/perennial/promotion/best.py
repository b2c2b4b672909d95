"""The best champion ever on each holdout: what a cumulative loss is measured against.

Every candidate carries, for each holdout, the scores of the one champion in its line that had the
highest mean on it, up to the champion it was trained from. Its own join them in the cycle that
retrains it, where it is scored anyway. The file therefore grows with the holdouts and not with the
versions, and after a rollback the champion's own file knows nothing of those that came after it.

Shapes: N rows of all holdouts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perennial.errors import EvaluationError, first_line
from perennial.promotion.predictions import table_to_bytes
from perennial.types import Floats, Integers, Strings

FILE = "predictions/best.parquet"


@dataclass(frozen=True)
class Best:
    """Scores of the best champion on each holdout.

    Attributes:
        holdout: Name of the cycle that held the row out, ``cycle-<number>`` (N,).
        row_id: (N,); unique within a holdout.
        score: Of the champion ``version`` on the row (N,).
        version: Its number (N,), one for each holdout.
    """

    holdout: Strings
    row_id: Strings
    score: Floats
    version: Integers

    def __len__(self) -> int:
        return len(self.score)

    @property
    def versions(self) -> dict[str, int]:
        """Holdout to the number of its best champion."""
        names, first = np.unique(self.holdout, return_index=True)
        return dict(zip(names.tolist(), self.version[first].tolist(), strict=True))

    def against(self, score: Floats, version: int) -> Best:
        """The best after one more version, on each holdout the one with the higher mean.

        Args:
            score: That version's scores (N,) on the same rows.
            version: Its number. Where means are equal the earlier version stays.
        """
        best, number = self.score.copy(), self.version.copy()
        for name in np.unique(self.holdout):
            mask = self.holdout == name
            if score[mask].mean() > self.score[mask].mean():
                best[mask], number[mask] = score[mask], version
        return Best(self.holdout, self.row_id, best, number)


def so_far(
    stored: Best | None, *, holdout: Strings, row_id: Strings, champion: Floats, number: int
) -> Best:
    """The best champion's scores on the rows at hand, in their order.

    Args:
        stored: What the champion's file says; None where it has none, as a founding version.
        holdout: Names of the cycles that held the rows out (N,).
        row_id: (N,).
        champion: The champion's present scores (N,), which also stand in for the best one's on rows
            that the file lacks.
        number: The champion's number.
    """
    score = champion.astype(np.float64)
    version = np.full(len(score), number, dtype=np.int64)
    own = Best(holdout, row_id, score, version)
    if stored is None:
        return own
    at = dict(zip(_keys(stored.holdout, stored.row_id), range(len(stored)), strict=True))
    found = np.array([at.get(key, -1) for key in _keys(holdout, row_id)], dtype=np.int64)
    known = found >= 0
    filled = np.where(known, stored.score[found], score) if len(stored) else score
    named = stored.versions
    version = np.array([named.get(name, number) for name in holdout.tolist()], dtype=np.int64)
    return Best(holdout, row_id, filled, version).against(score, number)


def to_parquet(best: Best) -> bytes:
    """The content of `FILE`."""
    return table_to_bytes(
        {
            "holdout": pa.array(best.holdout.tolist(), type=pa.string()),
            "row_id": pa.array(best.row_id.tolist(), type=pa.string()),
            "score": best.score,
            "version": best.version,
        }
    )


def read(path: Path) -> Best:
    """What `to_parquet` wrote.

    Raises:
        EvaluationError: The file is damaged or of another form.
    """
    try:
        table = pq.read_table(path, memory_map=True)
        holdout, row_id = (
            np.array(table[name].to_pylist(), dtype=np.str_) for name in ("holdout", "row_id")
        )
        score, version = (table[name].to_numpy() for name in ("score", "version"))
        if not np.isfinite(score).all() or version.dtype.kind != "i":
            raise ValueError("its scores or versions are no numbers")
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise EvaluationError(
            f"The best champion's scores cannot be read: {first_line(error)}.",
            where=str(path),
            mend="restore the file from a copy, or roll back to a version that is whole",
        ) from error
    return Best(holdout, row_id, score, version)


def _keys(holdout: Strings, row_id: Strings) -> list[tuple[str, str]]:
    return list(zip(holdout.tolist(), row_id.tolist(), strict=True))
