"""What a set of rows is, column by column, and how it differs from another one.

Shapes: N rows; a column is (N, ...).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.data.columns import SEPARATOR, TEXT, is_varying
from perennial.data.images import seen
from perennial.data.preprocess import Preprocessor
from perennial.data.rows import Rows
from perennial.data.targets import IGNORED
from perennial.statistics.categories import category_shift
from perennial.statistics.numbers import number_shift

Column = npt.NDArray[Any]

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
BINS = 20
HEAD = 10  # items that count as the head of a catalogue
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
    before = None if history is None or not len(history) else seen(history)
    for name, own in seen(rows).items():
        values = own
        text = values.dtype == TEXT
        long = text and preprocess is not None and preprocess.kind(name, "text") in _LONG
        old = None if before is None else before[name]
        if is_varying(own):
            values = _sizes(own)
            old = None if old is None else _sizes(old)
        found.append(
            {
                "name": name,
                "kind": "text" if long else "category" if text else schema[name],
                "missing": int(_missing(values).sum()),
                "distinct": len(np.unique(values)) if values.ndim == 1 else None,
                "range": _range(values, long) + (" values" if is_varying(own) else ""),
                "shift": {} if old is None else _shift(old, values, long),
            }
        )
    return found


def describe_target(
    rows: Rows, history: Rows | None, names: Sequence[str], kind: str
) -> dict[str, Any]:
    """What the targets are, in plain values.

    Args:
        rows: N rows, at least one.
        history: Rows to compare with; None or none of them compares nothing.
        names: Class names, of the kinds that have them.
        kind: One of `perennial.types.TARGET_KINDS`.

    Returns:
        ``kind``; ``new`` and, where there is one, ``history``, each with ``total`` (rows, of tokens
        the positions that have a target) and what the kind has: ``counts`` (class name to how many
        of the total have it), ``quantiles`` and ``histogram`` (``edges`` K + 1 and ``counts`` K,
        the same edges for both) of a number, ``items`` and ``head`` (how many there are, and the
        share of the total that falls to the ten most frequent) of an item; and ``shift``, as
        `perennial.statistics.numbers` and ``categories`` measure it, empty where nothing is
        compared.
    """
    parts = {"new": rows.label}
    if history is not None and len(history):
        parts["history"] = history.label
    found: dict[str, Any] = {"kind": kind, "shift": {}}
    if kind == "number":
        edges = np.histogram_bin_edges(np.concatenate(list(parts.values())), BINS)
        found |= {name: _numbers(values, edges) for name, values in parts.items()}
        if "history" in parts:
            old, new = (parts[n].astype(np.float64) for n in ("history", "new"))
            found["shift"] = number_shift(old, new)
        return found
    counts = {name: _target_counts(values, names, kind) for name, values in parts.items()}
    for name, values in parts.items():
        total = int((values != IGNORED).sum()) if kind == "tokens" else len(values)
        own: dict[str, Any] = {"counts": counts[name]}
        if kind == "item":
            most = sorted(counts[name].values(), reverse=True)
            own = {"items": len(most), "head": sum(most[:HEAD]) / total}
        found[name] = {"total": total, **(own if kind != "none" else {})}
    if kind != "none" and "history" in counts and any(counts["new"].values()):
        found["shift"] = category_shift(counts["history"], counts["new"])
    return found


def _numbers(values: Column, edges: Column) -> dict[str, Any]:
    at = np.quantile(values.astype(np.float64), QUANTILES).tolist()
    counts = np.histogram(values, edges)[0].tolist()
    return {
        "total": len(values),
        "quantiles": dict(zip(map(str, QUANTILES), at, strict=True)),
        "histogram": {"edges": edges.tolist(), "counts": counts},
    }


def _target_counts(values: Column, names: Sequence[str], kind: str) -> dict[str, int]:
    """Class or item to how often it occurs; of several classes a row counts for each."""
    if kind == "item":
        return {str(one): count for one, count in _counts(values).items()}
    if kind == "classes":
        counts = values.sum(axis=0, dtype=np.int64)
    else:
        told = values[values != IGNORED] if kind == "tokens" else values
        counts = np.bincount(told, minlength=len(names))
    # without targets there are no names, and zip leaves nothing
    return dict(zip(names, counts.tolist(), strict=kind != "none"))


def repeated(content: Column) -> int:
    """How many rows (N,) repeat an earlier one."""
    return len(content) - len(np.unique(content))


def _sizes(values: Column) -> Column:
    return np.array([len(one) for one in values], dtype=np.int64)


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
        lengths = number_shift(*(np.strings.str_len(part).astype(float) for part in (old, new)))
        words = category_shift(_words(old), _words(new)) if _words(new) else {"unseen": 0.0}
        return {**lengths, "unseen": words["unseen"]}
    if old.dtype == TEXT:
        return category_shift(_counts(old), _counts(new))
    before, after = _per_row(old), _per_row(new)
    if np.isnan(before).all() or np.isnan(after).all():
        return {}
    return number_shift(before, after)


def _per_row(values: Column) -> Column:
    flat = values.reshape(len(values), -1).astype(np.float64)
    return flat[:, 0] if flat.shape[1] == 1 else flat.mean(axis=1)


def _counts(values: Column) -> dict[str, int]:
    names, counts = np.unique(values, return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def _words(values: Column) -> dict[str, int]:
    words = np.array(" ".join(values.tolist()).replace(SEPARATOR, " ").lower().split(), dtype=TEXT)
    return _counts(words)
