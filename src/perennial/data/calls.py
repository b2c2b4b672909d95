"""Calls of a bank's campaigns in windows of time: the Bank Marketing data (UCI), in order of date.

S. Moro, P. Cortez & P. Rita, A Data-Driven Approach to Predict the Success of Bank Telemarketing,
Decision Support Systems 62, 2014.
"""

from __future__ import annotations

import math
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from perennial.data.opening import open_source
from perennial.data.published import located
from perennial.errors import ConfigError, DataError

PARTS = ("new", "history")
# the file's own sign for a client who was never called before
_NEVER = 999
# column to its new name, whether it is an index, and what a change of it is divided by
_ECONOMY = {
    "nr.employed": ("employed", True, 0.01),
    "cons.price.idx": ("prices", True, 0.01),
    "emp.var.rate": ("employment", False, 1.0),
    "euribor3m": ("interest", False, 1.0),
    "cons.conf.idx": ("confidence", False, 10.0),
}


def calls(
    *, path: str, window: int, part: str = "new", keep: int | None = 1, of: int = 10
) -> datasets.Dataset:
    """The rows of one window, or of those before it.

    The economy moves by more from window to window than within one, so that what a scaler is
    fitted on early is far off later: its columns are given as changes since the file's first call,
    in per cent or points.

    How long a call was is known only after it, so ``duration`` is left out. What the first windows
    have no example of is given as numbers that are 0 there: a vocabulary fitted on them would not
    know it.

    Args:
        path: ``bank-additional-full.csv``; ``published:NAME`` as `perennial.data.published` has it.
        window: From 1 to ``of``, windows of equal length; from 2 for the part ``history``.
        part: ``new`` ends with the window, ``history`` before it.
        keep: So many windows, the latest ones; None keeps all.
        of: Number of windows.

    Returns:
        The file's columns, and ``row``, the line's number; ``label``, ``yes`` or ``no``; ``recent``
        (1 / (1 + days since the last campaign's call), 0 for none), ``success`` and ``failure``
        (of the last campaign, 0 or 1) in place of ``pdays`` and ``poutcome``; ``campaign`` and
        ``previous`` (numbers of calls) as log(1 + x); ``age`` in decades from 40; ``employed`` and
        ``prices`` (changes of ``nr.employed`` and ``cons.price.idx``, 100 · log of the ratio), and
        ``employment``, ``interest`` (points) and ``confidence`` (tens of points), changes of
        ``emp.var.rate``, ``euribor3m`` and ``cons.conf.idx``.

    Raises:
        ConfigError: A number or the part is out of range.
        DataError: The file is missing or of another form.
    """
    least = {"new": 1, "history": 2}.get(part, math.inf)
    if not least <= window <= of or (keep is not None and keep < 1):
        raise ConfigError(
            f"window is {window} of {of}, part is {part!r}, and keep is {keep}.",
            where="data.new, data.history (window, part, keep, of)",
            mend=f"give a window from 1, or from 2 for its history, part {' or '.join(PARTS)}, "
            "and keep from 1 or null",
        )
    table: pa.Table = open_source(located(path), name=part).with_format("arrow")[:]
    needed = {"age", "pdays", "poutcome", "campaign", "previous", "duration", "y"} | _ECONOMY.keys()
    if lacking := sorted(needed - set(table.column_names)):
        raise DataError(
            f"There is no column {lacking[0]!r}.", where=path, mend="name bank-additional-full.csv"
        )
    table = _recoded(table)
    of_row = np.arange(len(table)) * of // len(table) + 1
    last = window if part == "new" else window - 1
    first = 1 if keep is None else last - keep + 1
    taken = (of_row >= first) & (of_row <= last)
    return datasets.Dataset(table.filter(pa.array(taken)))


def _recoded(table: pa.Table) -> pa.Table:
    days = table["pdays"].to_numpy().astype(np.float64)
    added: dict[str, Any] = {
        "recent": np.where(days == _NEVER, 0.0, 1 / (1 + days)),
        "success": pc.cast(pc.equal(table["poutcome"], "success"), pa.float64()),
        "failure": pc.cast(pc.equal(table["poutcome"], "failure"), pa.float64()),
        "label": table["y"],
        "row": np.arange(len(table)),
    }
    changed = {
        "age": table["age"].to_numpy() / 10 - 4,
        "campaign": np.log1p(table["campaign"].to_numpy()),
        "previous": np.log1p(table["previous"].to_numpy()),
    }
    for name, values in changed.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    for name, (called, is_index, unit) in _ECONOMY.items():
        added[called] = _change(table[name].to_numpy(), is_index=is_index, unit=unit)
    for name, column in added.items():
        given = pa.array(column) if isinstance(column, np.ndarray) else column
        table = table.append_column(name, given)
    return table.drop_columns(["pdays", "poutcome", "duration", "y", *_ECONOMY])


def _change(
    values: npt.NDArray[np.floating[Any]], *, is_index: bool, unit: float
) -> npt.NDArray[np.floating[Any]]:
    """Since the first of the values (N,), of their logarithm for an index."""
    level: npt.NDArray[np.floating[Any]] = np.log(values) if is_index else values
    change: npt.NDArray[np.floating[Any]] = (level - level[0]) / unit
    return change
