"""What was decided on, kept with the version: row by row, and the facts beside the rows.

`write` and `read` are each other's inverse to the last bit, so that a decision can be taken again,
under another policy, without the models, their framework or a device.

Shapes: N rows of all holdouts, C classes, M new training rows, R rounds or replicates.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from perennial.errors import EvaluationError, first_line
from perennial.types import EvaluationReport, Fitted, Measured, Predictions, Serving

ROWS = "predictions/holdouts.parquet"
FACTS = "predictions/report.json"

_MODELS = ("champion", "candidate")
_TEXT = ("row_id", "cluster", "holdout", "cycle")
_NUMBERS = {"seen_by_champion": np.bool_, "best_score": np.float64}
_PREDICTED = {"score": np.float64, "loss": np.float64}
# kind of target to the dtypes of a row's target and prediction
_TARGETS: dict[str, tuple[Any, Any]] = {
    "class": (np.int64, np.int64),
    "classes": (np.int8, np.int8),
    "number": (np.float32, np.float32),
    "tokens": (np.int64, np.int64),
    "item": (np.int64, np.int64),
    "none": (np.int64, np.int64),
}
_SLICE = "slice_"
_FORMAT = 1
_KINDS: dict[str, tuple[type, ...]] = {
    "label_names": (list,),
    "cycle_name": (str,),
    "best_versions": (dict,),
    "score_name": (str,),
    "score_unit": (str,),
    "target_kind": (str,),
    "fitted": (dict, type(None)),
    "serving": (dict,),
    "measured": (dict,),
}


def write(report: EvaluationReport) -> dict[str, bytes]:
    """Path inside a version to content: the report as it was decided on."""
    return {ROWS: _rows(report), FACTS: _facts(report)}


def read(rows: Path, facts: Path) -> EvaluationReport:
    """The report that `write` kept.

    Args:
        rows: The file at `ROWS`.
        facts: The file at `FACTS`.

    Raises:
        EvaluationError: A file is damaged, cut off or of another form, or a row is there twice.
    """
    table, kept = _table(rows), _kept(facts)
    _refuse_odd_columns(table, rows, wanted=_every_column())
    text = {name: _strings(table[name]) for name in _TEXT}
    numbers = {name: _numbers(table[name], kind, rows) for name, kind in _NUMBERS.items()}
    _refuse_twice(text["holdout"], text["row_id"], rows)
    slices = [name for name in table.column_names if name.startswith(_SLICE)]
    best = numbers["best_score"] if kept["best_versions"] else None
    try:
        return EvaluationReport(
            row_id=text["row_id"],
            cluster=text["cluster"],
            holdout=text["holdout"],
            label=_values(table, "label", _TARGETS[kept["target_kind"]][0], rows),
            seen_by_champion=numbers["seen_by_champion"],
            champion=_predictions(table, "champion", kept["target_kind"], rows),
            candidate=_predictions(table, "candidate", kept["target_kind"], rows),
            label_names=tuple(kept["label_names"]),
            cycle_name=kept["cycle_name"],
            slices={name.removeprefix(_SLICE): _strings(table[name]) for name in slices},
            best=best,
            best_versions=kept["best_versions"],
            score_name=kept["score_name"],
            score_unit=kept["score_unit"],
            target_kind=kept["target_kind"],
            fitted=None if kept["fitted"] is None else _fitted(kept["fitted"]),
            serving={who: _serving(value) for who, value in kept["serving"].items()},
            measured={key: _measured(value) for key, value in kept["measured"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(facts, f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Scores:
    """What a comparison of two versions needs of stored predictions, N rows.

    Attributes:
        row_id: Of each row.
        holdout: Likewise, ``new`` or ``history/<cycle>``.
        label: Target (N, ...).
        cluster: Rows with one number (N,) are dependent.
        champion: The champion's per-example scores (N,), higher ones better.
        candidate: The candidate's (N,).
    """

    row_id: pa.Array
    holdout: pa.Array
    label: npt.NDArray[Any]
    cluster: npt.NDArray[np.int64]
    champion: npt.NDArray[np.float64]
    candidate: npt.NDArray[np.float64]

    @property
    def is_new(self) -> npt.NDArray[np.bool_]:
        """Rows of the new holdout (N,)."""
        found: npt.NDArray[np.bool_] = pc.equal(self.holdout, "new").to_numpy(zero_copy_only=False)
        return found


def read_scores(path: Path) -> Scores:
    """The scores alone of what `write` kept, several times faster than `read`.

    Args:
        path: The file at `ROWS`.

    Raises:
        EvaluationError: The file is damaged, cut off or of another form.
    """
    wanted = ["row_id", "holdout", "cluster", "label", *(f"{who}_score" for who in _MODELS)]
    table = _table(path, columns=wanted)
    _refuse_odd_columns(table, path, wanted=wanted)
    score = {w: _numbers(table[f"{w}_score"], np.float64, path) for w in _MODELS}
    cluster = table["cluster"].combine_chunks().dictionary_encode()
    return Scores(
        row_id=table["row_id"].combine_chunks(),
        holdout=table["holdout"].combine_chunks(),
        label=_values(table, "label", None, path),
        cluster=cluster.indices.to_numpy(zero_copy_only=False).astype(np.int64),
        champion=score["champion"],
        candidate=score["candidate"],
    )


def table_to_bytes(columns: Mapping[str, Any]) -> bytes:
    """Columns (N,) as a Parquet file; equal columns give equal files."""
    buffer = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), buffer)
    return buffer.getvalue()


def _rows(report: EvaluationReport) -> bytes:
    columns: dict[str, Any] = {name: _text(getattr(report, name)) for name in _TEXT}
    columns["label"] = _column(report.label)
    columns["seen_by_champion"] = report.seen_by_champion
    assert (report.best is None) == (not report.best_versions)
    best = np.full(len(report), np.nan) if report.best is None else report.best
    columns["best_score"] = pa.array(best)
    columns |= {f"{_SLICE}{name}": _text(values) for name, values in report.slices.items()}
    for who in _MODELS:
        predictions: Predictions = getattr(report, who)
        columns[f"{who}_prediction"] = _column(predictions.prediction)
        columns |= {f"{who}_{name}": getattr(predictions, name) for name in _PREDICTED}
        if predictions.probabilities is not None:
            columns[f"{who}_probabilities"] = _column(predictions.probabilities)
    return table_to_bytes(columns)


def _facts(report: EvaluationReport) -> bytes:
    value = {
        "format": _FORMAT,
        "label_names": list(report.label_names),
        "cycle_name": report.cycle_name,
        "best_versions": dict(report.best_versions),
        "score_name": report.score_name,
        "score_unit": report.score_unit,
        "target_kind": report.target_kind,
        "fitted": None if report.fitted is None else _plain(asdict(report.fitted)),
        "serving": {who: _plain(asdict(cost)) for who, cost in report.serving.items()},
        "measured": {key: _plain(asdict(found)) for key, found in report.measured.items()},
    }
    return (json.dumps(value, allow_nan=False) + "\n").encode()


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in fields.items()
    }


def _table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    try:
        if columns is None:
            return pq.read_table(path, memory_map=True)
        # for many small files, threads and a data set around each cost more than the rows
        with pq.ParquetFile(path, memory_map=True) as file:
            return file.read(columns=list(columns), use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, first_line(error)) from error


def _kept(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        odd = [name for name, kinds in _KINDS.items() if not isinstance(value[name], kinds)]
        known = value["format"] == _FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if odd or not known:
        raise _damaged(path, f"{odd[0] if odd else 'format'} is of another kind than was written")
    return value


def _every_column() -> list[str]:
    predicted = ("prediction", *_PREDICTED)
    return [
        *(*_TEXT, "label", *_NUMBERS),
        *(f"{who}_{name}" for who in _MODELS for name in predicted),
    ]


def _refuse_odd_columns(table: pa.Table, path: Path, *, wanted: Sequence[str]) -> None:
    if missing := [name for name in wanted if name not in table.column_names]:
        raise _damaged(path, f"there is no column {', '.join(missing)}")
    if empty := [name for name in table.column_names if table[name].null_count]:
        raise _damaged(path, f"values are missing in column {', '.join(empty)}")


def _refuse_twice(holdout: npt.NDArray[np.str_], row_id: npt.NDArray[np.str_], path: Path) -> None:
    keys = np.char.add(np.char.add(holdout, "\0"), row_id)
    _, first = np.unique(keys, return_index=True)
    again = np.setdiff1d(np.arange(len(keys)), first)
    if len(again):
        named = f"first {str(row_id[again[0]])!r} of {holdout[again[0]]}"
        raise _damaged(path, f"{len(again)} rows are there twice, {named}")


def _predictions(table: pa.Table, who: str, kind: str, path: Path) -> Predictions:
    fields = {
        name: _numbers(table[f"{who}_{name}"], dtype, path) for name, dtype in _PREDICTED.items()
    }
    fields["prediction"] = _values(table, f"{who}_prediction", _TARGETS[kind][1], path)
    name, probabilities = f"{who}_probabilities", None
    if name in table.column_names:
        if not pa.types.is_fixed_size_list(table[name].type):
            raise _damaged(path, f"column {name} has rows of different lengths")
        probabilities = _values(table, name, None, path)
    return Predictions(**fields, probabilities=probabilities)


def _column(values: npt.NDArray[Any]) -> pa.Array:
    """Values (N,) or (N, M) as a column."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    if values.ndim == 1:
        return flat
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _values(table: pa.Table, name: str, dtype: Any, path: Path) -> npt.NDArray[Any]:
    """What `_column` took, of a dtype; None is any."""
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # of no rows
        column = pa.array([], type=column.type)
    lists = pa.types.is_fixed_size_list(column.type)
    flat = (column.flatten() if lists else column).to_numpy(zero_copy_only=False)
    if dtype is not None and flat.dtype != np.dtype(dtype):
        raise _damaged(path, f"a column holds {flat.dtype} where {np.dtype(dtype)} belongs")
    found: npt.NDArray[Any] = flat.reshape(-1, column.type.list_size) if lists else flat
    return found


def _numbers(column: pa.ChunkedArray, kind: Any, path: Path) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] = column.to_numpy()
    if found.dtype != np.dtype(kind):
        raise _damaged(path, f"a column holds {found.dtype} where {np.dtype(kind)} belongs")
    return found


def _strings(column: pa.ChunkedArray) -> npt.NDArray[np.str_]:
    return np.array(column.to_pylist(), dtype=np.str_)


def _text(values: npt.NDArray[Any]) -> pa.Array:
    return pa.array(values.astype(np.str_).tolist(), type=pa.string())


def _fitted(value: Mapping[str, Any]) -> Fitted:
    return Fitted(
        champion=np.array(value["champion"], dtype=np.float64),
        candidate=np.array(value["candidate"], dtype=np.float64),
        cluster=np.array(value["cluster"], dtype=np.str_),
    )


def _serving(value: Mapping[str, Any]) -> Serving:
    latency = np.array(value["latency"], dtype=np.float64)
    return Serving(parameters=value["parameters"], bytes=value["bytes"], latency=latency)


def _measured(value: Mapping[str, Any]) -> Measured:
    return Measured(
        value=value["value"],
        replicates=np.array(value["replicates"], dtype=np.float64),
        higher_is_better=value["higher_is_better"],
        n=value["n"],
    )


def _damaged(path: Path, why: str) -> EvaluationError:
    return EvaluationError(
        f"The stored predictions cannot be read: {why}.",
        where=str(path),
        mend="nothing is decided on them; restore the file from a copy, or retrain",
    )
