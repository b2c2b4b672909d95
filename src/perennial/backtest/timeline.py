"""A past divided into windows: its settings, and the rows of each window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from perennial.backtest.series import PROMOTIONS
from perennial.data.rows import Rows
from perennial.data.source import SourceRows, open_source
from perennial.errors import ConfigError, DataError, first_line
from perennial.files import digest
from perennial.reporting.backtest import spread
from perennial.steps.collect import Data
from perennial.steps.settings import Cycle

# windows have no dates of their own; a trigger asks only how much time went by
_FOUNDED = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Windows of a past, in order.

    Args:
        key: The setting that numbers the windows: with it at k, ``data.new`` ends with window k,
            and ``data.history`` before it.
        first: The first window; what is history to it founds the lineage.
        last: The last one.
        metric: What a window is scored by: one of the task's own metrics, or the name of a class of
            torchmetrics. None is the task's score.
        label_delay: So many windows after its own a row's label is there.
        days: Length of a window.
        founding: Settings that the training of a first version has, nested as in the configuration.
        promotion: ``gate``, or ``always``: every candidate serves.

    Raises:
        ConfigError: A value out of range.
    """

    key: str
    first: int
    last: int
    metric: str | None = None
    label_delay: int = 0
    days: int = 7
    founding: Mapping[str, Any] = field(default_factory=dict)
    promotion: str = "gate"

    def __post_init__(self) -> None:
        if not self.first < self.last:
            one = self.first == self.last
            raise ConfigError(
                f"The timeline has one window, {self.first}: nothing comes after a retraining."
                if one
                else f"The timeline's first window, {self.first}, is after its last, {self.last}.",
                where="backtest.first, backtest.last",
                mend="give at least two windows: backtest.first=1 backtest.last=10",
            )
        for name, good, takes in (
            ("label_delay", self.label_delay >= 0, "a number of windows from 0"),
            ("days", self.days >= 1, "a whole number from 1"),
            ("promotion", self.promotion in PROMOTIONS, " or ".join(PROMOTIONS)),
        ):
            if not good:
                raise ConfigError(
                    f"backtest.{name} is {getattr(self, name)!r}.",
                    where=f"backtest.{name}",
                    mend=f"give {takes}",
                )

    @property
    def windows(self) -> range:
        """Their numbers."""
        return range(self.first, self.last + 1)

    def end(self, window: int) -> datetime:
        """When a window is over."""
        return _FOUNDED + timedelta(days=self.days * (window - self.first + 1))

    def over(self, now: datetime) -> int:
        """How many windows are over at a time."""
        return round((now - _FOUNDED) / timedelta(days=self.days))


@dataclass(frozen=True)
class Period:
    """The rows of one window, or what founds the lineage.

    Attributes:
        rows: As the source has them.
        fingerprint: SHA-256 over them.
    """

    rows: datasets.Dataset
    fingerprint: str

    def __len__(self) -> int:
        return len(self.rows)


class Past:
    """The rows of a timeline's windows, read once.

    A row that was met before its window, by ``data.id_column``, is none of that window's: a source
    of several windows gives each its own. Without ids every row of a window's source counts.

    Args:
        timeline: Says which windows there are.
        cycle_at: Number of a window to the cycle that is configured for it.
        say: Shows a line.

    Attributes:
        base: What founds the lineage.
        windows: By number.
        classes: Names of classes or items in the base.

    Raises:
        DataError: A source cannot be read, a window has no row of its own, or windows differ in
            their columns.
    """

    def __init__(
        self,
        timeline: Timeline,
        cycle_at: Callable[[int], Cycle],
        *,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        data = cycle_at(timeline.first).data
        if data.history is None:
            raise DataError(
                "There is nothing to make the first version from.",
                where="data.history",
                mend="give data.history, the rows before the first window",
            )
        base = open_source(data.history, name="history", csv=data.csv())
        source = _read(data, base, "history")
        read, self.classes = source.rows, len(source.label_names)
        self.base = Period(base, _fingerprint(read))
        self.windows: dict[int, Period] = {}
        met = read.id
        for window in timeline.windows:
            data, where = cycle_at(window).data, f"data.new, {timeline.key}={window}"
            with _naming(f"{timeline.key}={window}"):
                rows = _opened(data, where, window)
                read = _read(data, rows, "new").rows
            if data.id_column is not None:
                own = np.flatnonzero(~np.isin(read.id, met))
                rows, read = rows.select(own), read.take(own)
                met = np.union1d(met, read.id)
            if not len(rows):
                raise _empty(window, where)
            self.windows[window] = Period(rows, _fingerprint(read))
        sizes = [len(period) for period in self.windows.values()]
        say(
            f"{len(sizes)} windows of {spread(sizes)} rows, "
            f"after {len(self.base):,} that found the lineage"
        )

    def between(self, first: int, last: int) -> datasets.Dataset:
        """The rows of windows first to last, in order."""
        return _joined([self.windows[window].rows for window in range(first, last + 1)])

    def until(self, last: int) -> datasets.Dataset:
        """Everything up to a window's end, what founded the lineage included."""
        own = [period.rows for window, period in self.windows.items() if window <= last]
        return _joined([self.base.rows, *own])

    def fingerprints(self, last: int) -> list[str]:
        """Of the base, and of each window up to one."""
        own = [period.fingerprint for window, period in self.windows.items() if window <= last]
        return [self.base.fingerprint, *own]

    def rows(self, first: int, last: int) -> int:
        """How many rows windows first to last have together."""
        return sum(len(self.windows[window]) for window in range(first, last + 1))


def _opened(data: Data, where: str, window: int) -> datasets.Dataset:
    if data.new is None:
        raise DataError(
            "There are no new rows.", where=where, mend="give data.new, the rows of a window"
        )
    try:
        return open_source(data.new, name="new", csv=data.csv())
    except DataError as error:
        if "no rows" in error.what:
            raise _empty(window, where) from error
        raise


@contextmanager
def _naming(window: str) -> Iterator[None]:
    """Say of bad data which window's they are."""
    try:
        yield
    except DataError as error:
        told = error.where or "data.new"
        where = told if window in told else f"{told}, {window}"
        raise DataError(error.what, where=where, mend=error.mend) from error


def _empty(window: int, where: str) -> DataError:
    return DataError(
        f"Window {window} has no row of its own.",
        where=where,
        mend="leave it out with backtest.first and backtest.last, or name a source that has rows "
        "which no earlier window has",
    )


def _read(data: Data, source: datasets.Dataset, name: str) -> SourceRows:
    return data.read(source, name=name, label_names=None, holds_out=False)


def _fingerprint(rows: Rows) -> str:
    return digest([rows.id.tolist(), rows.content.tolist()])


def _joined(parts: list[datasets.Dataset]) -> datasets.Dataset:
    """Sources one after another; whole numbers beside others become numbers of the wider kind."""
    names = set(parts[0].column_names)
    odd = [sorted(names ^ set(part.column_names)) for part in parts]
    if lacking := next((columns[0] for columns in odd if columns), None):
        raise _different(f"not all have {lacking!r}")
    if all(part.features == parts[0].features for part in parts):
        return datasets.concatenate_datasets(parts)
    tables = [part.with_format("arrow")[:] for part in parts]
    try:
        return datasets.Dataset(pa.concat_tables(tables, promote_options="permissive"))
    except pa.ArrowException as error:
        raise _different(first_line(error)) from error


def _different(how: str) -> DataError:
    return DataError(
        f"Windows do not have the same columns: {how}.",
        where="data.history, data.new",
        mend="give every window's source the columns and kinds of the others",
    )
