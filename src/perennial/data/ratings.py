"""Ratings of films in weeks: MovieTweetings, each rating with the user's films before it.

S. Dooms, T. De Pessemier & L. Martens, MovieTweetings: a Movie Rating Dataset Collected From
Twitter, CrowdRec at RecSys 2013.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.csv

from perennial.data.published import located
from perennial.errors import ConfigError, DataError, first_line

PARTS = ("new", "history")
_WEEK = 7 * 24 * 3600
_COLUMNS = ("user", "next_item", "rating", "time")
_MEND = "name ratings.dat, of which a line is user::film::rating::unix time"


def ratings(
    *, path: str, week: int, part: str = "new", keep: int | None = 1, length: int = 20
) -> datasets.Dataset:
    """The ratings of one week, or of those before it, in order of time.

    Args:
        path: ``ratings.dat``; ``published:NAME`` as `perennial.data.published` has it.
        week: From 1, counted from the first rating; from 2 for the part ``history``.
        part: ``new`` ends with the week, ``history`` before it.
        keep: So many weeks, the latest ones; None keeps all.
        length: Films before a rating, the latest ones, at least 1.

    Returns:
        ``rating``, its number in order of time, as text; ``user``; ``week``; ``items``, the films
        that the user rated before, oldest first, none for a new user; and ``next_item``, the film.

    Raises:
        ConfigError: A number or the part is out of range.
        DataError: The file is missing or of another form.
    """
    least = {"new": 1, "history": 2}.get(part, math.inf)
    if week < least or length < 1 or (keep is not None and keep < 1):
        raise ConfigError(
            f"week is {week}, part is {part!r}, keep is {keep}, and length is {length}.",
            where="data.new, data.history (week, part, keep, length)",
            mend=f"give a week from 1, or from 2 for its history, part {' or '.join(PARTS)}, "
            "keep from 1 or null, and length from 1",
        )
    table = _read(path)
    of_row = (table["time"].to_numpy() - table["time"][0].as_py()) // _WEEK + 1
    if week > of_row[-1]:
        raise DataError(
            f"There is no week {week}; the last one is {of_row[-1]}.", where=path, mend=_MEND
        )
    last = week if part == "new" else week - 1
    first = 1 if keep is None else last - keep + 1
    before = _before(table["user"].to_pylist(), table["next_item"].to_pylist(), length)
    columns = {
        "rating": pa.array([str(number) for number in range(len(table))]),
        "user": table["user"],
        "week": pa.array(of_row),
        "items": pa.array(before, type=pa.list_(pa.string())),
        "next_item": table["next_item"],
    }
    taken = (of_row >= first) & (of_row <= last)
    return datasets.Dataset(pa.table(columns).filter(pa.array(taken)))


def _read(path: str) -> pa.Table:
    """Users and films as text, and times, in their order."""
    try:
        lines = Path(located(path)).read_text().replace("::", "\t").encode()
        table = pa.csv.read_csv(
            pa.BufferReader(lines),
            read_options=pa.csv.ReadOptions(column_names=_COLUMNS),
            parse_options=pa.csv.ParseOptions(delimiter="\t"),
            # a film's zeros in front belong to its name
            convert_options=pa.csv.ConvertOptions(
                column_types={"user": pa.string(), "next_item": pa.string(), "time": pa.int64()}
            ),
        )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"The ratings cannot be read: {first_line(error)}", where=path, mend=_MEND
        ) from error
    return table.take(np.argsort(table["time"].to_numpy(), kind="stable"))


def _before(users: Iterable[str], films: Iterable[str], length: int) -> list[list[str]]:
    """What each user had rated before each rating."""
    met: dict[str, list[str]] = defaultdict(list)
    found = []
    for user, film in zip(users, films, strict=True):
        found.append(met[user][-length:])
        met[user].append(film)
    return found
