"""The present time, from one source, and spans of time as settings write them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

SPANS = "12h, 7d or 2w"

_SPAN = re.compile(r"(\d{1,9})\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST = timedelta(days=36_525)  # a century: times beyond it leave what a date can hold


def _machine() -> datetime:
    return datetime.now(UTC)


_source: Callable[[], datetime] = _machine


def now() -> datetime:
    """The present time, aware, in UTC: the only place where it is read."""
    return _source().astimezone(UTC)


@contextmanager
def read_from(source: Callable[[], datetime]) -> Iterator[None]:
    """Take the time from elsewhere, as tests and replays do.

    Args:
        source: Gives an aware time.

    >>> with read_from(lambda: datetime(2026, 11, 26, tzinfo=UTC)):
    ...     now().isoformat()
    '2026-11-26T00:00:00+00:00'
    """
    global _source
    before, _source = _source, source
    try:
        yield
    finally:
        _source = before


def span(text: object) -> timedelta | None:
    """A span of time above 0 and of a century at most; None where a text is none.

    >>> span("12h"), span("2w"), span("0d"), span("-1d"), span("soon")
    (datetime.timedelta(seconds=43200), datetime.timedelta(days=14), None, None, None)
    """
    found = _SPAN.fullmatch(str(text).strip())
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    length = timedelta(seconds=seconds)
    return length if timedelta() < length <= _LONGEST else None
