"""What a version predicted for the rows of a window, kept until their labels come.

A record is one Arrow file: ids, times, predictions, how sure the model was, and a score where the
label has come. Records are values: a label that comes gives a new one.

Shapes: N rows of a window, K labels.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from perennial.data.forgotten import Forgotten
from perennial.data.selection import priorities
from perennial.errors import DataError, first_line
from perennial.types import Booleans, Floats, Strings

# rows that are kept of one window: a uniform sample of a larger one
ROWS = 10_000
_KEY = b"perennial"
_FORMAT = 1
_NAMED = 5
_EVERY = 2**64


@dataclass(frozen=True)
class Record:
    """Predictions of one version for the rows of one window.

    Attributes:
        id: Row ids (N,), distinct.
        time: The time column's values (N,), or None.
        predicted: What was predicted (N, ...), as `perennial.types.Predictions` has it.
        confidence: Probability of the predicted class (N,), NaN where the task has none.
        score: Per-example score (N,), higher is better; NaN until the label has come.
        scored_at: When that was (N,), in UTC; NaT until then.
        recorded_at: When the predictions were recorded, aware.
        rows: Rows of the window; more than N where these are a sample.
        cutoff: Rows of a lower priority are all here, see `perennial.data.selection.priorities`.
    """

    id: Strings
    time: npt.NDArray[Any] | None
    predicted: npt.NDArray[Any]
    confidence: Floats
    score: Floats
    scored_at: npt.NDArray[np.datetime64]
    recorded_at: datetime
    rows: int
    cutoff: int = _EVERY

    def __len__(self) -> int:
        return len(self.id)

    @property
    def is_scored(self) -> Booleans:
        """Rows (N,) whose label has come."""
        return ~np.isnan(self.score)

    def take(self, keep: Booleans) -> Record:
        """The rows under a mask (N,)."""
        rows = ("id", "predicted", "confidence", "score", "scored_at")
        kept = {name: getattr(self, name)[keep] for name in rows}
        return replace(self, **kept, time=None if self.time is None else self.time[keep])


@dataclass(frozen=True)
class Joined:
    """What labels that came did.

    Attributes:
        changed: Window to its record with the scores; only those that are not as they were.
        scored: Rows whose label came now.
        again: Rows whose label had come before.
        passed: Labels of rows that are forgotten, or that a sample may have left out.
    """

    changed: Mapping[str, Record]
    scored: int
    again: int
    passed: int


def recorded(
    ids: Strings,
    predicted: npt.NDArray[Any],
    *,
    confidence: Floats | None = None,
    time: npt.NDArray[Any] | None = None,
    now: datetime,
    where: str,
    bound: int = ROWS,
    forgotten: Forgotten | None = None,
) -> Record:
    """A record of predictions whose labels are still to come.

    Args:
        ids: Row ids (N,).
        predicted: Predictions (N, ...).
        confidence: Probability of the predicted class (N,); None for a task without classes.
        time: The time column's values (N,), or None.
        now: The present time, aware.
        where: The source, for messages.
        bound: Rows that are kept at most: those of the lowest priority, a uniform sample.
        forgotten: What the lineage forgot: such rows are left out.

    Raises:
        DataError: No rows, an id twice, a confidence that is no probability, or a missing time.
    """
    assert now.tzinfo is not None
    if len(ids) == 0:
        raise DataError("The window has no rows.", where=where, mend="give a source with rows")
    _refuse_twice(ids, where, "of the window")
    sure = np.full(len(ids), np.nan) if confidence is None else np.asarray(confidence, np.float64)
    if confidence is not None and not ((sure >= 0) & (sure <= 1)).all():
        raise DataError(
            "The model's confidence is not between 0 and 1 in every row.",
            where=where,
            mend="check the model: its probabilities must be finite",
        )
    if time is not None and time.dtype.kind in "Mf" and bool((time != time).any()):
        raise DataError(
            f"{int((time != time).sum())} of {len(ids)} rows have no time.",
            where=f"{where}: data.time_column",
            mend="give each row a time, or set data.time_column=null to go by order of arrival",
        )
    found = Record(
        id=np.asarray(ids, dtype=np.str_),
        time=time,
        predicted=predicted,
        confidence=sure,
        score=np.full(len(ids), np.nan),
        scored_at=np.full(len(ids), "NaT", dtype="datetime64[us]"),
        recorded_at=now.astimezone(UTC),
        rows=len(ids),
    )
    if forgotten is not None:
        found = found.take(~forgotten.mask(found.id))
    return _bounded(found, bound)


def _bounded(record: Record, bound: int) -> Record:
    if len(record) <= bound:
        return record
    order = priorities(record.id, seed=0)
    cutoff = int(np.sort(order)[bound])
    return replace(record.take(order < cutoff), cutoff=cutoff)


def refuse_backwards(earlier: Sequence[Record], record: Record, *, where: str) -> None:
    """Refuse a window that ends before those that were recorded, or another form of time.

    Args:
        earlier: Records of the version, in the order in which they were recorded.
        record: The next one.
        where: The source, for messages.

    Raises:
        DataError: The clock or the rows go backwards, or times are of another kind.
    """
    if not earlier:
        return
    last = earlier[-1]
    if record.recorded_at < last.recorded_at:
        raise DataError(
            f"The clock reads {record.recorded_at:%Y-%m-%d %H:%M:%S}, and a window was recorded "
            f"later, on {last.recorded_at:%Y-%m-%d %H:%M:%S} UTC.",
            where="clock",
            mend="set the clock right, on this machine or on the one that recorded",
        )
    if _kind(last) != _kind(record):
        raise DataError(
            f"The window's rows have {_kind(record)}, those recorded before have {_kind(last)}.",
            where=f"{where}: data.time_column",
            mend="use one data.time_column, of one kind, for all windows of a version",
        )
    if record.time is None:
        return
    newest = max(_newest(one) for one in earlier if len(one))
    if len(record) and _newest(record) < newest:
        raise DataError(
            f"The window ends at {_newest(record)}, and rows up to {newest} were recorded already.",
            where=f"{where}: data.time_column",
            mend="record windows in order of time; leave this one out",
        )


def join(
    records: Mapping[str, Record],
    ids: Strings,
    score: Floats,
    *,
    now: datetime,
    where: str,
    forgotten: Forgotten | None = None,
) -> Joined:
    """Scores of rows whose labels came, joined to their predictions by row id.

    A label that comes again changes nothing; one that was corrected replaces the score.

    Args:
        records: Window to record.
        ids: Of the labelled rows (K,).
        score: Per-example scores (K,) of the version's predictions for them, higher is better.
        now: The present time, aware.
        where: The labels' source, for messages.
        forgotten: What the lineage forgot: such labels are passed over.

    Raises:
        DataError: An id twice, a score that is not finite, or labels of rows never predicted.
    """
    _refuse_twice(ids, where, "of the labels")
    if not np.isfinite(score).all():
        raise DataError(
            f"{int((~np.isfinite(score)).sum())} of {len(ids)} scores are not finite.",
            where=where,
            mend="check the labels and the model's outputs for these rows",
        )
    gone = np.zeros(len(ids), dtype=bool) if forgotten is None else forgotten.mask(ids)
    known = np.zeros(len(ids), dtype=bool)
    came = dict(zip(ids[~gone].tolist(), score[~gone].tolist(), strict=True))
    changed, fresh, again = {}, set(), set()
    for window, record in records.items():
        at = np.array([row for row, one in enumerate(record.id.tolist()) if one in came], dtype=int)
        found = record.id[at]
        known |= np.isin(ids, found)
        values = np.array([came[one] for one in found.tolist()])
        before = record.score[at]
        again |= set(found[~np.isnan(before)].tolist())
        fresh |= set(found[np.isnan(before)].tolist())
        if (odd := at[before != values]).size:
            changed[window] = _with_scores(record, odd, values[before != values], now)
    cutoff = min((record.cutoff for record in records.values()), default=_EVERY)
    _refuse_unknown(ids[~gone & ~known], len(ids), cutoff, where)
    passed = int((gone | ~known).sum())
    return Joined(changed, len(fresh - again), len(again), passed)


def _with_scores(record: Record, at: npt.NDArray[Any], values: Floats, now: datetime) -> Record:
    score, scored_at = record.score.copy(), record.scored_at.copy()
    first = np.isnan(score[at])
    score[at] = values
    scored_at[at[first]] = np.datetime64(now.astimezone(UTC).replace(tzinfo=None), "us")
    return replace(record, score=score, scored_at=scored_at)


def _refuse_unknown(ids: Strings, labels: int, cutoff: int, where: str) -> None:
    """A row that a sample may have left out is passed over; of others it is sure."""
    if cutoff < _EVERY and len(ids):
        ids = ids[priorities(ids, seed=0) < cutoff]
    if len(ids):
        named = ", ".join(repr(one) for one in ids[:_NAMED].tolist())
        raise DataError(
            f"{len(ids)} of {labels} labels are of rows that no recorded window has a prediction "
            f"for: {named}{', …' if len(ids) > _NAMED else ''}.",
            where=where,
            mend="let the rows be predicted before their labels come, give labels of recorded "
            "windows alone, and check that data.id_column is the same for both",
        )


def _refuse_twice(ids: Strings, where: str, of: str) -> None:
    distinct, count = np.unique(ids, return_counts=True)
    if len(distinct) < len(ids):
        again = distinct[count > 1]
        raise DataError(
            f"{len(again)} row ids {of} are there more than once, first {str(again[0])!r}.",
            where=where,
            mend="give each row an id of its own in data.id_column",
        )


def _kind(record: Record) -> str:
    if record.time is None:
        return "no times"
    return {"M": "dates or times", "T": "times as text", "U": "times as text"}.get(
        record.time.dtype.kind, "times as numbers"
    )


def _newest(record: Record) -> Any:
    assert record.time is not None
    return np.sort(record.time)[-1]


def to_bytes(record: Record) -> bytes:
    """The record as an Arrow file; equal records give equal files."""
    described = {
        "format": _FORMAT,
        "recorded_at": record.recorded_at.isoformat(),
        "rows": record.rows,
        "cutoff": str(record.cutoff),
        "predicted": [record.predicted.dtype.str, list(record.predicted.shape[1:])],
    }
    flat = pa.array(np.ascontiguousarray(record.predicted).reshape(-1))
    if record.predicted.ndim > 1:
        flat = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(record.predicted.shape[1:])))
    columns: dict[str, Any] = {"id": pa.array(record.id.tolist(), type=pa.string())}
    if record.time is not None:
        text = record.time.dtype.kind in "TU"
        columns["time"] = pa.array(record.time.tolist() if text else record.time)
    columns["predicted"] = flat
    columns["confidence"] = pa.array(record.confidence, from_pandas=True)
    columns["score"] = pa.array(record.score, from_pandas=True)
    columns["scored_at"] = pa.array(record.scored_at)
    table = pa.table(columns).replace_schema_metadata({_KEY: json.dumps(described).encode()})
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, table.schema) as sink:
        sink.write_table(table)
    return buffer.getvalue()


def read(path: Path) -> Record:
    """The record that `to_bytes` gave.

    Raises:
        DataError: The file is cut off or of another form.
    """
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all().combine_chunks()
        described = json.loads((table.schema.metadata or {})[_KEY])
        if described["format"] != _FORMAT:
            raise ValueError(f"its form is {described['format']}")
        dtype, shape = described["predicted"]
        predicted = table["predicted"].combine_chunks()
        flat = predicted.flatten() if shape else predicted
        return Record(
            id=np.array(table["id"].to_pylist(), dtype=np.str_),
            time=_times(table),
            predicted=np.array(flat.to_numpy(zero_copy_only=False), np.dtype(dtype)).reshape(
                len(table), *shape
            ),
            confidence=_floats(table["confidence"]),
            score=_floats(table["score"]),
            scored_at=np.array(table["scored_at"].to_numpy(), dtype="datetime64[us]"),
            recorded_at=datetime.fromisoformat(described["recorded_at"]),
            rows=int(described["rows"]),
            cutoff=int(described["cutoff"]),
        )
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"The recorded predictions cannot be read: {first_line(error)}.",
            where=str(path),
            mend="restore the file from a copy",
        ) from error


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = np.array(column.to_numpy(), dtype=np.float64)
    return found


def _times(table: pa.Table) -> npt.NDArray[Any] | None:
    if "time" not in table.column_names:
        return None
    column = table["time"]
    if pa.types.is_string(column.type):
        return np.array(column.to_pylist(), dtype=np.dtypes.StringDType())
    found: npt.NDArray[Any] = column.to_numpy()
    return found
