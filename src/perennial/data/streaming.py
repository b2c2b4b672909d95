"""A source in pieces, for what looks at each row once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from perennial.data.opening import open_source, shown
from perennial.data.tables import PLAIN, Csv, suffix
from perennial.errors import DataError, first_line

# enough rows that work on a column costs more than the call, and few enough to stay in the cache
PIECE = 1 << 17


def pieces(
    spec: Any, *, columns: Sequence[str], name: str, csv: Csv = PLAIN
) -> Iterator[pa.RecordBatch]:
    """Some columns of a source, piece by piece.

    A parquet file is read as it is looked at; of all other sources the whole table is opened.

    Args:
        spec: As `perennial.data.opening.open_source` takes it.
        columns: What to read, as far as it is there.
        name: The source's name, for messages.
        csv: How csv and tsv files are read.

    Raises:
        DataError: The source is missing, empty or unreadable.
    """
    path = Path(spec).expanduser() if isinstance(spec, str | Path) else None
    if path is not None and suffix(path) == ".parquet" and path.is_file():
        yield from _of_parquet(path, columns, where=f"data.{name}: {shown(spec)}")
        return
    table = open_source(spec, name=name, csv=csv).with_format("arrow")[:]
    there = [column for column in columns if column in table.column_names]
    yield from table.select(there).to_batches(max_chunksize=PIECE)


def _of_parquet(path: Path, columns: Sequence[str], *, where: str) -> Iterator[pa.RecordBatch]:
    try:
        with pa.parquet.ParquetFile(path, memory_map=True) as file:
            there = [column for column in columns if column in file.schema_arrow.names]
            yield from file.iter_batches(batch_size=PIECE, columns=there)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"The source cannot be read: {first_line(error)}",
            where=where,
            mend="check that the file is whole and of the kind that its name says",
        ) from error
