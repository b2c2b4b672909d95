"""What a set of rows is, column by column, and how it differs from another one.

Shapes: N rows; a column is (N, ...).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.data.columns import SEPARATOR, TEXT
from perennial.data.preprocess import Preprocessor
from perennial.data.rows import Rows
from perennial.statistics.shift import categorical_shift, numerical_shift

Column = npt.NDArray[Any]

# as preprocessing reads them: each value is of many words
_LONG = ("text", "sequence")


def describe_columns(
    rows: Rows, history: Rows | None, schema: Mapping[str, str], preprocess: Preprocessor | None
) -> list[dict[str, Any]]:
    """Each feature column in plain values.

    Args:
        rows: N rows, at least one.
        history: Rows to compare with; None or none of them compares nothing.
        schema: Column to dtype and shape of a row.
        preprocess: Tells texts from categories.

    Returns:
        ``name``, ``kind``, ``missing`` (rows), ``distinct`` (None for columns of several numbers a
        row), ``range`` in words, and ``shift``: ``psi`` and ``ks`` of numbers, of the means of
        rows, or of the lengths of texts; ``psi`` and ``unseen`` of categories; ``unseen`` words of
        texts.
    """
    found = []
    for name, values in rows.features.items():
        text = values.dtype == TEXT
        long = text and preprocess is not None and preprocess.kind(name, "text") in _LONG
        old = None if history is None or not len(history) else history.features[name]
        found.append(
            {
                "name": name,
                "kind": "text" if long else "category" if text else schema[name],
                "missing": int(_missing(values).sum()),
                "distinct": len(np.unique(values)) if values.ndim == 1 else None,
                "range": _range(values, long),
                "shift": {} if old is None else _shift(old, values, long),
            }
        )
    return found


def label_counts(rows: Rows, names: Sequence[str]) -> dict[str, int]:
    """Class name to number of rows, for all classes."""
    counts = np.bincount(rows.label, minlength=len(names)).tolist()
    return dict(zip(names, counts, strict=True))


def repeated(content: Column) -> int:
    """How many rows (N,) repeat an earlier one."""
    return len(content) - len(np.unique(content))


def _missing(values: Column) -> npt.NDArray[np.bool_]:
    if values.dtype == TEXT:
        return np.asarray(values == "")
    if values.dtype.kind != "f":
        return np.zeros(len(values), dtype=bool)
    return np.asarray(np.isnan(values).reshape(len(values), -1).any(axis=1))


def _range(values: Column, long: bool) -> str:
    if long:
        lengths = np.strings.str_len(values)
        return f"{lengths.min()} to {lengths.max()} characters"
    if values.dtype == TEXT:
        names, counts = np.unique(values[values != ""], return_counts=True)
        order = np.argsort(-counts, kind="stable")[:3]
        shown = [str(name)[:20] for name in names[order].tolist()]
        return ", ".join(shown) + (", …" if len(names) > 3 else "")
    present = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    if not present.size:
        return ""
    return f"{float(present.min()):.6g} to {float(present.max()):.6g}"


def _shift(old: Column, new: Column, long: bool) -> dict[str, float]:
    if long:
        lengths = numerical_shift(*(np.strings.str_len(part).astype(float) for part in (old, new)))
        words = categorical_shift(_words(old), _words(new)) if _words(new) else {"unseen": 0.0}
        return {**lengths, "unseen": words["unseen"]}
    if old.dtype == TEXT:
        return categorical_shift(_counts(old), _counts(new))
    before, after = _per_row(old), _per_row(new)
    if np.isnan(before).all() or np.isnan(after).all():
        return {}
    return numerical_shift(before, after)


def _per_row(values: Column) -> Column:
    flat = values.reshape(len(values), -1).astype(np.float64)
    return flat[:, 0] if flat.shape[1] == 1 else flat.mean(axis=1)


def _counts(values: Column) -> dict[str, int]:
    names, counts = np.unique(values, return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def _words(values: Column) -> dict[str, int]:
    words = np.array(" ".join(values.tolist()).replace(SEPARATOR, " ").lower().split(), dtype=TEXT)
    return _counts(words)
