"""Connections of the KDD Cup 1999: a file without header to named columns, attack or normal.

The columns are those of the task's own list (``kddcup.names``, S. Stolfo et al., UCI Machine
Learning Repository); the label's last dot is taken off.
"""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from perennial.data.published import located
from perennial.errors import ConfigError, DataError, first_line

CATEGORIES = ("protocol_type", "service", "flag")
FEATURES = (
    *("duration", *CATEGORIES, "src_bytes", "dst_bytes", "land", "wrong_fragment", "urgent"),
    *("hot", "num_failed_logins", "logged_in", "num_compromised", "root_shell", "su_attempted"),
    *("num_root", "num_file_creations", "num_shells", "num_access_files", "num_outbound_cmds"),
    *("is_host_login", "is_guest_login", "count", "srv_count", "serror_rate", "srv_serror_rate"),
    *("rerror_rate", "srv_rerror_rate", "same_srv_rate", "diff_srv_rate", "srv_diff_host_rate"),
    *("dst_host_count", "dst_host_srv_count", "dst_host_same_srv_rate", "dst_host_diff_srv_rate"),
    *("dst_host_same_src_port_rate", "dst_host_srv_diff_host_rate", "dst_host_serror_rate"),
    *("dst_host_srv_serror_rate", "dst_host_rerror_rate", "dst_host_srv_rerror_rate"),
)
# seconds and bytes over nine orders of magnitude, of which a deviation is that of a few rows
_WIDE = ("duration", "src_bytes", "dst_bytes")
_MEND = "name kddcup.data_10_percent.gz or corrected.gz"


def connections(
    *, path: str, known: str, every: int = 1, copies: int | None = None
) -> datasets.Dataset:
    """The rows of one file, attack or normal.

    Args:
        path: The file, gzipped or not; ``published:NAME`` as `perennial.data.published` has it.
        known: The file whose attacks are known ones, which may be ``path`` itself.
        every: Keeps each so manieth row, from the first; at least 1.
        copies: Of these, keeps the first so many that are alike, label included, at least 1; None
            keeps all. A flood sends one row a hundred thousand times.

    Returns:
        The 41 `FEATURES`, duration and bytes as log(1 + x); ``label``, ``attack`` or ``normal``;
        ``attack``, the type by its name; and ``kind``: ``normal``, ``known attack``, or ``unseen
        attack`` for a type that ``known`` has no row of.

    Raises:
        ConfigError: ``every`` or ``copies`` is below 1.
        DataError: A file is missing or not of this form.
    """
    if every < 1 or (copies is not None and copies < 1):
        raise ConfigError(
            f"every is {every}, and copies is {copies}.",
            where="data.history, data.new (every, copies)",
            mend="use whole numbers from 1",
        )
    table = _read(path)
    met = table if known == path else _read(known)
    table = table.take(np.arange(0, len(table), every))
    if copies is not None:
        table = table.filter(pa.array(_repetition(table) < copies))
    attack, seen = table["attack"], pc.unique(met["attack"])
    normal = pc.equal(attack, "normal")
    kind = pc.if_else(
        normal, "normal", pc.if_else(pc.is_in(attack, seen), "known attack", "unseen attack")
    )
    for name in _WIDE:
        at = table.column_names.index(name)
        table = table.set_column(at, name, pc.log1p(pc.cast(table[name], pa.float64())))
    label = pc.if_else(normal, "normal", "attack")
    return datasets.Dataset(table.append_column("kind", kind).append_column("label", label))


def _read(path: str) -> pa.Table:
    """`FEATURES` and ``attack`` of a whole file."""
    names = [*FEATURES, "attack"]
    try:
        table = pa.csv.read_csv(located(path), read_options=pa.csv.ReadOptions(column_names=names))
    except (pa.ArrowException, OSError) as error:
        reason = first_line(error)
        raise DataError(
            f"The connections cannot be read: {reason}", where=str(Path(path)), mend=_MEND
        ) from error
    if not pa.types.is_string(table["attack"].type):
        raise DataError("The last column names no attack.", where=str(Path(path)), mend=_MEND)
    return table.set_column(
        len(names) - 1, "attack", pc.utf8_rtrim(table["attack"], characters=".")
    )


def _repetition(table: pa.Table) -> npt.NDArray[np.int64]:
    """How many rows before each are like it (N,)."""
    names = table.column_names
    place = pa.array(np.arange(len(table)))
    groups = table.append_column("place", place).group_by(names, use_threads=False)
    alike = groups.aggregate([("place", "list")])["place_list"].combine_chunks()
    found = np.empty(len(table), dtype=np.int64)
    starts = alike.offsets.to_numpy()
    within = np.arange(len(table)) - np.repeat(starts[:-1], np.diff(starts))
    found[alike.flatten().to_numpy()] = within
    return found
