"""Files to Arrow tables: one reader per kind, compressed or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from perennial.errors import DataError

_COMPRESSED = {".gz", ".bz2"}
_DELIMITERS = (",", ";", "\t", "|")


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


def read_table(path: Path, *, where: str) -> pa.Table:
    """A file as a table.

    Args:
        path: Of one of the kinds in `READERS`.
        where: The source, for messages.

    Raises:
        DataError: The file is of another kind, or empty.
        pyarrow.ArrowException, OSError, ValueError: It is not what its name says.
    """
    reader = READERS.get(suffix(path))
    if reader is None:
        raise DataError(
            f"Files of kind {path.suffix or 'without a suffix'} cannot be read.",
            where=where,
            mend=f"convert it to one of {', '.join(READERS)}",
        )
    if not path.stat().st_size:
        raise DataError(f"The file {path.name} is empty.", where=where, mend="write it again")
    return reader(path)


def concatenated(tables: list[pa.Table]) -> pa.Table:
    """Tables one under another, columns by name, whole numbers as floats where some are."""
    return pa.concat_tables(tables, promote_options="permissive")


def _read_csv(path: Path) -> pa.Table:
    options = pa.csv.ParseOptions(delimiter=_delimiter(path))
    return pa.csv.read_csv(str(path), parse_options=options)


def _delimiter(path: Path) -> str:
    """The first of the usual ones that the head of the file has."""
    if suffix(path) == ".tsv":
        return "\t"
    with pa.input_stream(str(path), compression="detect") as file:
        head = file.read(1 << 16).split(b"\n", 1)[0].decode(errors="replace")
    return next((one for one in _DELIMITERS if one in head), ",")


def _read_json(path: Path) -> pa.Table:
    with pa.input_stream(str(path), compression="detect") as file:
        is_list = file.read(64).lstrip()[:1] == b"["
    if not is_list:
        return pa.json.read_json(str(path))
    with pa.input_stream(str(path), compression="detect") as file:
        rows = json.loads(file.read())
    odd = [index for index, row in enumerate(rows) if not isinstance(row, dict)]
    if odd:
        raise ValueError(
            f"{len(odd)} of {len(rows)} entries of its list are no records, first entry {odd[0]}"
        )
    return pa.Table.from_pylist(rows)


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

READERS: dict[str, Callable[[Path], pa.Table]] = {
    # of this very file: a folder's name, as dt=2026-11-01, would become a column
    ".parquet": lambda path: pa.parquet.read_table(path, partitioning=None),
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".json": _read_json,
    ".jsonl": _read_json,
    ".arrow": _read_arrow,
    ".feather": _read_arrow,
    ".txt": _read_lines,
}
