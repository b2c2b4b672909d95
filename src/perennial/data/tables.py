"""Files to Arrow tables: one reader per kind, compressed or not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from csv import reader
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from perennial.errors import ConfigError, DataError

_COMPRESSED = {".gz", ".bz2"}
# of what is nested deeper nobody makes a column
_DEEPEST = 100
_NO_BRACKETS = bytes(set(range(256)) - set(b'[]{}"'))
_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Csv:
    """How csv and tsv files are read.

    Attributes:
        columns: Names of the columns of files without a header; None for files with one.
        delimiter: What stands between values; None takes a tab in tsv files, and in others the
            first of comma, semicolon, tab and bar that each of the first lines has as often.
        as_written: Whether a column's values are text as they are written, by its name; others are
            what they look like. Of names and keys, 01234 and 1234 are two.
        is_named: Whether a column's values are names, by its name: where one of them begins with a
            zero that a number would lose, all are text as they are written.
    """

    columns: tuple[str, ...] | None = None
    delimiter: str | None = None
    as_written: Callable[[str], bool] = lambda name: False
    is_named: Callable[[str], bool] = lambda name: False


PLAIN = Csv()


def check_csv(columns: Sequence[str] | None, delimiter: str | None) -> None:
    """Refuse names and delimiters that cannot be.

    Raises:
        ConfigError: A name is blank or given twice, or a delimiter is no single character.
    """
    if columns is not None and (
        not columns or len(set(columns)) < len(columns) or any(not one.strip() for one in columns)
    ):
        raise ConfigError(
            f"The columns {list(columns)} are none, blank, or not distinct.",
            where="data.columns",
            mend="name each column of the files once, in their order",
        )
    if delimiter is not None and len(delimiter.encode()) != 1:
        raise ConfigError(
            f"{delimiter!r} cannot stand between values.",
            where="data.delimiter",
            mend='give one character, ";" or "\\t" say, or null',
        )


def suffix(path: Path) -> str:
    """The kind of a file by its name, ``.csv`` for ``week.csv.gz`` too.

    Examples:
        >>> suffix(Path("week.csv.gz")), suffix(Path("week.PARQUET")), suffix(Path("v1.2"))
        ('.csv', '.parquet', '.2')
    """
    kinds = [one.lower() for one in path.suffixes]
    if len(kinds) > 1 and kinds[-1] in _COMPRESSED and kinds[-2] in _COMPRESSIBLE:
        return kinds[-2]
    return kinds[-1] if kinds else ""


def read_table(path: Path, *, where: str, csv: Csv = PLAIN) -> pa.Table:
    """A file as a table.

    Args:
        path: Of one of the kinds in `READERS`.
        where: The source, for messages.
        csv: How csv and tsv files are read.

    Raises:
        DataError: The file is of another kind or empty, or has other columns than are named.
        pyarrow.ArrowException, OSError, ValueError: It is not what its name says.
    """
    read = READERS.get(suffix(path))
    if read is None:
        raise DataError(
            f"Files of kind {path.suffix or 'without a suffix'} cannot be read.",
            where=where,
            mend=f"convert it to one of {', '.join(READERS)}",
        )
    if not path.stat().st_size:
        raise DataError(f"The file {path.name} is empty.", where=where, mend="write it again")
    return read(path, csv, where)


def concatenated(tables: list[pa.Table], csv: Csv = PLAIN) -> pa.Table:
    """Tables one under another, columns by name, whole numbers as floats where some are.

    Args:
        tables: At least one.
        csv: Says which columns hold names: they are text in all tables where they are in some.
    """
    named = {name for one in tables for name in one.column_names if csv.is_named(name)}
    for name in named:
        types = {one.schema.field(name).type for one in tables if name in one.column_names}
        if pa.string() in types and len(types) > 1:
            tables = [_as_text(one, name) for one in tables]
    return pa.concat_tables(tables, promote_options="permissive")


def _as_text(table: pa.Table, name: str) -> pa.Table:
    place = table.schema.get_field_index(name)
    if place < 0 or not pa.types.is_integer(table.schema.field(place).type):
        return table
    return table.set_column(place, name, table[name].cast(pa.string()))


def _read_csv(path: Path, csv: Csv, where: str) -> pa.Table:
    head = _head(path)
    delimiter = csv.delimiter or ("\t" if suffix(path) == ".tsv" else _delimiter(head))
    first = next(reader(head[:1], delimiter=delimiter), [])
    names = first if csv.columns is None else csv.columns
    keys = names if csv.columns is None else [f"f{place}" for place in range(len(names))]
    kept = [key for key, name in zip(keys, names, strict=True) if csv.as_written(name)]
    named = [key for key, name in zip(keys, names, strict=True) if csv.is_named(name)]

    def read(text: Sequence[str], only: Sequence[str] = ()) -> pa.Table:
        types = dict.fromkeys(text, pa.string())
        return pa.csv.read_csv(
            str(path),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter),
            read_options=pa.csv.ReadOptions(autogenerate_column_names=csv.columns is not None),
            convert_options=pa.csv.ConvertOptions(column_types=types, include_columns=list(only)),
        )

    table = read(kept)
    whole = [key for key in named if pa.types.is_integer(table.schema.field(key).type)]
    if whole:
        written = read(whole, only=whole)
        kept += [key for key in whole if _has_zeros(written[key])]
        table = read(kept) if set(kept) & set(whole) else table
    _refuse_bytes(table, path, where)
    if csv.columns is None:
        return table
    if len(csv.columns) != table.num_columns:
        raise DataError(
            f"{path.name} has {table.num_columns} columns between {delimiter!r}, and data.columns "
            f"names {len(csv.columns)}.",
            where=where,
            mend="name each of them once, in the file's order, or set data.delimiter",
        )
    if [one.strip() for one in first] == list(csv.columns):
        raise DataError(
            f"{path.name} begins with the names of its columns, which data.columns gives again.",
            where=where,
            mend="leave data.columns out",
        )
    return table.rename_columns(list(csv.columns))


def _has_zeros(column: pa.ChunkedArray) -> bool:
    """Whether a text begins with a zero that a number would lose."""
    return bool(pc.any(pc.match_substring_regex(column, r"^\s*[+-]?0\d")).as_py())


def _refuse_bytes(table: pa.Table, path: Path, where: str) -> None:
    """Refuse columns of bytes, which Arrow makes of text that is not UTF-8."""
    odd = [field.name for field in table.schema if pa.types.is_binary(field.type)]
    if odd:
        raise DataError(
            f"Column {odd[0]!r} of {path.name} is not UTF-8.",
            where=where,
            mend=f"convert the file: iconv -f latin1 -t utf-8 {path.name} > new.csv, or from "
            "whatever it is in",
        )


def _head(path: Path) -> list[str]:
    """The first lines of a file, whole ones, at most 20."""
    with pa.input_stream(str(path), compression="detect") as file:
        text: str = file.read(1 << 16).decode("utf-8-sig", errors="replace")
    lines = text.splitlines()
    return lines[: min(20, max(len(lines) - 1, 1))]


def _delimiter(head: list[str]) -> str:
    """The first of the usual ones that each line has as often, else that the first line has.

    Examples:
        >>> _delimiter(["a;b", "1,5;2,5"]), _delimiter(['"last, first";age', '"B, A";3'])
        (';', ';')
    """
    # what is quoted separates nothing
    lines = [re.sub(r'"[^"]*"', "", line) for line in head]
    for one in _DELIMITERS:
        counts = {line.count(one) for line in lines if line.strip()}
        if len(counts) == 1 and counts != {0}:
            return one
    return next((one for one in _DELIMITERS if lines and one in lines[0]), ",")


def _read_json(path: Path) -> pa.Table:
    with pa.input_stream(str(path), compression="detect") as file:
        content: bytes = file.read()
    # Arrow's reader ends the process where values are nested too deep for its stack
    if (depth := _depth(content)) > _DEEPEST:
        raise ValueError(f"its values are nested {depth} deep, and {_DEEPEST} is the most")
    if content[:64].lstrip()[:1] != b"[":
        return pa.json.read_json(pa.BufferReader(content))
    rows = json.loads(content)
    odd = [index for index, row in enumerate(rows) if not isinstance(row, dict)]
    if odd:
        raise ValueError(
            f"{len(odd)} of {len(rows)} entries of its list are no records, first entry {odd[0]}"
        )
    return pa.Table.from_pylist(rows)


def _depth(content: bytes) -> int:
    r"""How deep the brackets of a JSON text are nested, those inside strings apart.

    Examples:
        >>> _depth(b'{"a": [[1], [2]]}'), _depth(b'{"[[": "{\\", "b\"[": 1}'), _depth(b"1")
        (3, 1, 0)
    """
    plain = content.replace(rb"\\", b"").replace(rb"\"", b"")
    brackets = re.sub(rb'"[^"]*"', b"", plain.translate(None, _NO_BRACKETS))
    if not brackets:
        return 0
    opens = np.isin(np.frombuffer(brackets, np.uint8), np.frombuffer(b"[{", np.uint8))
    return int(np.cumsum(np.where(opens, 1, -1)).max())


def _read_lines(path: Path) -> pa.Table:
    with pa.input_stream(str(path), compression="detect") as file:
        text = file.read().decode("utf-8-sig")
    lines = [line.strip() for line in text.split("\n")]
    return pa.table({"text": pa.array([line for line in lines if line], pa.string())})


def _read_arrow(path: Path) -> pa.Table:
    source = pa.memory_map(str(path))
    try:
        return pa.ipc.open_file(source).read_all()
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source).read_all()


_COMPRESSIBLE = {".csv", ".tsv", ".json", ".jsonl", ".txt"}

READERS: dict[str, Callable[[Path, Csv, str], pa.Table]] = {
    # of this very file: a folder's name, as dt=2026-11-01, would become a column
    ".parquet": lambda path, *_: pa.parquet.read_table(path, partitioning=None),
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".json": lambda path, *_: _read_json(path),
    ".jsonl": lambda path, *_: _read_json(path),
    ".arrow": lambda path, *_: _read_arrow(path),
    ".feather": lambda path, *_: _read_arrow(path),
    ".txt": lambda path, *_: _read_lines(path),
}
