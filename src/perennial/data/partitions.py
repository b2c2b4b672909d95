"""A folder of dated partitions: ``dt=2026-11-01/...`` or ``2026-11-01.parquet``.

Dates sort as text, so all of a folder have one form. As new data such a folder stands for the
partitions after the last one that the lineage has met, as the versions' manifests remember it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from perennial.data.tables import PLAIN, READERS, Csv, concatenated, read_table, suffix
from perennial.errors import DataError

_DATED = re.compile(r"(?:[^=/]+=)?(\d{4}-\d{2}(?:-\d{2}(?:T\d{2}(?:-?\d{2})?)?)?)")
_KEYS = {"partitions", "after", "until", "column"}


def is_partitioned(spec: Any) -> bool:
    """Whether a source is a folder of dated partitions, by its path or as a mapping."""
    if isinstance(spec, Mapping):
        return "partitions" in spec
    return isinstance(spec, str | Path) and bool(_dated(Path(spec).expanduser()))


def resolved(spec: Any, known: Iterable[Any], *, new: bool) -> Any:
    """A partitioned source with its first and last partition made explicit; others as they are.

    Args:
        spec: A source.
        known: Those of the lineage's cycles.
        new: Whether it is what the lineage has not met, and begins after the last one that it has;
            otherwise it ends there, where nothing else is said.

    Raises:
        DataError: The folder or a key is not right.
    """
    if not is_partitioned(spec):
        return spec
    given = {"partitions": str(spec)} if not isinstance(spec, Mapping) else _checked(spec)
    last = _last(given["partitions"], known)
    if last is not None:
        given.setdefault("after" if new else "until", last)
    where = f"data.{'new' if new else 'history'}: {given['partitions']}"
    met = _in_range(given, where=where)
    until = met[-1] if met else given.get("after", given.get("until"))
    return {**given, "until": until}


def is_exhausted(spec: Any) -> bool:
    """Whether a resolved source has no partition left."""
    if not isinstance(spec, Mapping) or "partitions" not in spec:
        return False
    return not _in_range(_checked(spec), where=f"data.new: {spec['partitions']}")


def covers(whole: Any, part: Any) -> bool:
    """Whether a resolved source has all partitions of another one, or is the same."""
    if not (is_partitioned(whole) and isinstance(whole, Mapping) and isinstance(part, Mapping)):
        return bool(whole == part)
    if "partitions" not in part or not _same(whole["partitions"], part["partitions"]):
        return False
    begins = whole.get("after") is None or (part.get("after") or "") >= whole["after"]
    return begins and bool(part["until"] <= whole["until"])


def read_partitions(spec: Any, *, where: str, csv: Csv = PLAIN) -> pa.Table:
    """The rows of the partitions that a source names.

    Args:
        spec: A folder, or ``partitions`` with any of ``after``, ``until`` (dates) and ``column``,
            which names a column for the date.
        where: The source, for messages.
        csv: How csv and tsv files are read.

    Raises:
        DataError: There is no partition in range, or one is empty or of an unknown kind.
    """
    given = _checked(spec) if isinstance(spec, Mapping) else {"partitions": str(spec)}
    dates = _in_range(given, where=where)
    if not dates:
        raise DataError(
            f"No partition lies after {given.get('after', 'the beginning')} and up to "
            f"{given.get('until', 'the end')}.",
            where=where,
            mend="check after and until against the names of the partitions",
        )
    entries = _entries(Path(given["partitions"]).expanduser(), where)
    tables = []
    for date in dates:
        files = _files(entries[date], where)
        table = concatenated([read_table(one, where=where, csv=csv) for one in files], csv)
        if column := given.get("column"):
            table = table.append_column(column, pa.array([date] * len(table), pa.string()))
        tables.append(table)
    return concatenated(tables, csv)


def _checked(spec: Mapping[str, Any]) -> dict[str, str]:
    unknown = sorted(set(map(str, spec)) - _KEYS)
    if unknown:
        raise DataError(
            f"Partitions have no {unknown[0]!r}.",
            where="data.new, data.history",
            mend=f"they take {', '.join(sorted(_KEYS))}",
        )
    return {str(key): str(value) for key, value in spec.items() if value is not None}


def _in_range(given: Mapping[str, str], *, where: str) -> list[str]:
    entries = _entries(Path(given["partitions"]).expanduser(), where)
    for key in ("after", "until"):
        if key in given and not any(len(date) == len(given[key]) for date in entries):
            raise DataError(
                f"{key} is {given[key]!r}, and partitions are named like {next(iter(entries))!r}.",
                where=where,
                mend=f"write {key} in the form of the partitions",
            )
    after, until = given.get("after"), given.get("until")
    return [
        date
        for date in sorted(entries)
        if (after is None or date > after) and (until is None or date <= until)
    ]


def _entries(folder: Path, where: str) -> dict[str, Path]:
    """Date to file or folder."""
    if not folder.is_dir():
        raise DataError(
            "There is no such folder of partitions.",
            where=where,
            mend="relative paths start at the folder that the command runs in",
        )
    refuse_odd_dates(folder, where=where)
    found = _dated(folder)
    if not found:
        raise DataError(
            "The folder's entries are no dated partitions.",
            where=where,
            mend="name each of them by its date, all in one form: dt=2026-11-01/ or "
            "2026-11-01.parquet",
        )
    return found


def refuse_odd_dates(folder: Path, *, where: str) -> None:
    """Refuse a folder of which every entry is named like a date, and yet no date orders them.

    Raises:
        DataError: A date does not exist or is there twice, or there are several forms of dates.
    """
    named = _named(folder)
    if not named or any(date is None for _, date in named):
        return
    dates = [date for _, date in named if date is not None]
    unreal = [date for date in dates if not _exists(date)]
    twice = [date for date in dates if dates.count(date) > 1]
    forms = sorted({len(date): date for date in dates}.values())
    if unreal or twice or len(forms) > 1:
        raise DataError(
            f"There is no date {unreal[0]}."
            if unreal
            else f"{twice[0]} is there {dates.count(twice[0])} times."
            if twice
            else f"Its partitions are named in several forms: {' and '.join(forms)}.",
            where=where,
            mend="name each partition by its date, all in one form: dt=2026-11-01/ or "
            "2026-11-01.parquet",
        )


def _dated(folder: Path) -> dict[str, Path]:
    """Date to entry, where every entry is written like a date, in one form and none twice."""
    named = _named(folder)
    dates = {date: one for one, date in named if date is not None}
    one_form = len({len(date) for date in dates}) == 1
    return dates if len(dates) == len(named) and one_form else {}


def _named(folder: Path) -> list[tuple[Path, str | None]]:
    """Entries of a folder, each with what in its name is written like a date."""
    if not folder.is_dir():
        return []
    entries = sorted(one for one in folder.iterdir() if one.name[0] not in "._")
    found = [(one, _DATED.fullmatch(_stem(one))) for one in entries]
    return [(one, None if match is None else match.group(1)) for one, match in found]


def _exists(date: str) -> bool:
    """Whether a date that is written like one is one.

    Examples:
        >>> _exists("2026-02-28T23"), _exists("2026-02-29"), _exists("2026-13")
        (True, False, False)
    """
    day, _, time = date.partition("T")
    clock = f"{time[:2] or '00'}:{time[2:].lstrip('-') or '00'}"
    try:
        datetime.fromisoformat(f"{day if len(day) > 7 else day + '-01'}T{clock}")
    except ValueError:
        return False
    return True


def _stem(path: Path) -> str:
    if path.is_dir():
        return path.name
    kind = suffix(path)
    return path.name[: path.name.lower().index(kind)] if kind in READERS else path.name


def _files(entry: Path, where: str) -> list[Path]:
    if entry.is_file():
        return [entry]
    found = sorted(one for one in entry.rglob("*") if one.is_file() and one.name[0] not in "._")
    if not found:
        raise DataError(
            f"The partition {entry.name} has no files.", where=where, mend="write it, or remove it"
        )
    return found


def _last(folder: str, known: Iterable[Any]) -> str | None:
    return max(
        (
            str(one["until"])
            for one in known
            if isinstance(one, Mapping) and "partitions" in one and _same(one["partitions"], folder)
        ),
        default=None,
    )


def _same(a: str, b: str) -> bool:
    return Path(a).expanduser().resolve() == Path(b).expanduser().resolve()
