"""Which rows train, validate and are held out: a hash of (lineage salt, split key).

Nothing but the salt and the key enters, so the split is stable over reruns, rejected cycles and
resumes, and does not depend on the order of rows.

Shapes: N rows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from perennial.data.rows import Rows
from perennial.data.source import SourceRows
from perennial.data.times import before, since
from perennial.errors import ConfigError, DataError
from perennial.types import Booleans, Strings

DUPLICATES = ("group", "drop", "allow")
GAP = "gap"
_DECLARED = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("holdout", "test"), "holdout"),
}


@dataclass(frozen=True)
class Assignment:
    """Rows with their roles.

    Attributes:
        rows: The rows that stay (N,).
        role: ``train``, ``validation`` or ``holdout`` (N,).
        duplicate_share: Share of the source's rows that repeat an earlier one, in [0, 1].
        removed: Rows left out: repetitions under ``drop``, copies of held-out rows under ``group``,
            and rows of the gap before the holdout.
        notes: Lines for the user.
    """

    rows: Rows
    role: Strings
    duplicate_share: float
    removed: int
    notes: tuple[str, ...] = ()


def split_salt(model_name: str, seed: int) -> str:
    """The lineage's salt, 32 hex digits."""
    return hashlib.blake2b(
        f"perennial-split\0{model_name}\0{seed}".encode(), digest_size=16
    ).hexdigest()


def assign_roles(
    source: SourceRows,
    *,
    salt: str,
    validation_fraction: float,
    holdout_fraction: float,
    duplicates: str = "group",
    holdout_from: Any = None,
    gap: Any = None,
    name: str = "new",
) -> Assignment:
    """Divide a source's rows into train, validation and holdout.

    A declared split is followed; its train rows are divided by hash where it declares no
    validation. With a time column the latest rows are the holdout.

    Args:
        source: As `perennial.data.source.read_rows` gives it.
        salt: Of the lineage; see `split_salt`.
        validation_fraction: Share of rows for validation, in [0, 1).
        holdout_fraction: Share of rows held out where no split is declared, in [0, 1).
        duplicates: ``group`` puts all copies of a row, across groups too, on one side and into
            one cluster; ``drop`` keeps one copy; ``allow`` leaves them.
        holdout_from: Time from which on rows are held out; None holds the latest share out.
        gap: How long before the holdout rows are left out; see `perennial.data.times.before`.
        name: The source's name, for messages.

    Raises:
        ConfigError: Bad fractions or policy, or both a split and a time column.
        DataError: An unknown value in the split column, or times that cannot be divided.
    """
    _check(source, validation_fraction, holdout_fraction, duplicates)
    rows = source.rows
    copies = len(rows) - len(np.unique(rows.content))
    key = components(rows.cluster, rows.content) if duplicates == "group" else rows.cluster
    rest = validation_fraction / (1 - holdout_fraction)
    if source.declared_role is not None:
        role = _declared(source.declared_role, name)
        if holdout_fraction and not (role == "holdout").any():
            raise DataError(
                "The split column declares no holdout row.",
                where=f"data.{name}, data.split_column",
                mend="mark rows as holdout (or test), or set data.split_column=null to hold out "
                "by hash",
            )
        if not (role == "validation").any():
            role = _validate(role, key, salt, validation_fraction)
    elif source.time is not None:
        late = (
            _latest(source.time, holdout_fraction, name)
            if holdout_from is None
            else since(source.time, holdout_from, name=name)
        )
        role = np.where(late, "holdout", "train").astype("<U10")
        role[before(source.time, late, gap, name=name)] = GAP
        role = _validate(role, key, salt, rest)
    else:
        share = uniform(key, salt=salt)
        edges = [holdout_fraction, holdout_fraction + validation_fraction]
        kinds = np.array(["holdout", "validation", "train"])
        role = kinds[np.searchsorted(edges, share, side="right")]
    keep = _kept(rows.content, role, duplicates)
    between = int((keep & (role == GAP)).sum())
    removed = int((~keep).sum())
    keep &= role != GAP
    rows, role, key = rows.take(keep), role[keep], key[keep]
    notes = _notes(name, len(keep), copies, removed, duplicates)
    if between:
        notes += (f"{name}: {between} rows left out, less than {gap} before the holdout",)
    parted = set(key[role == "train"]) & set(key[role == "holdout"])
    if parted:
        notes += (
            f"{name}: {len(parted)} groups have rows both in training and in the declared "
            "holdout, so the holdout flatters",
        )
    return Assignment(
        rows=rows,
        role=role,
        duplicate_share=copies / len(keep) if len(keep) else 0.0,
        removed=removed + between,
        notes=notes,
    )


def uniform(keys: Strings, *, salt: str) -> npt.NDArray[np.float64]:
    """Uniform numbers (N,) in [0, 1), a hash of (salt, key); equal for equal keys."""
    distinct, inverse = np.unique(keys, return_inverse=True)
    start = hashlib.blake2b(f"{salt}\0".encode(), digest_size=8)
    values = bytearray()
    for key in distinct.tolist():
        digest = start.copy()
        digest.update(key.encode())
        values += digest.digest()
    # 53 bits: all that a float64 below 1 can hold
    share: npt.NDArray[np.float64] = (np.frombuffer(bytes(values), "<u8") >> np.uint64(11)) / 2**53
    return share[inverse]


def components(cluster: Strings, content: Strings) -> Strings:
    """Clusters (N,) after joining those that share a row's content; the smallest key names each."""
    keys, left = np.unique(cluster, return_inverse=True)
    contents, right = np.unique(content, return_inverse=True)
    size = len(keys) + len(contents)
    edges = coo_array((np.ones(len(left)), (left, right + len(keys))), shape=(size, size))
    _, part = connected_components(edges, directed=False)
    # keys are sorted, so a component's first one is its smallest
    _, first, inverse = np.unique(part[: len(keys)], return_index=True, return_inverse=True)
    return keys[first[inverse]][left]


def independent(rows: Rows) -> int:
    """How many sets of rows there are that share neither a cluster nor a content."""
    return len(np.unique(components(rows.cluster, rows.content)))


def _check(source: SourceRows, validation: float, holdout: float, duplicates: str) -> None:
    if not (0 <= validation < 1 and 0 <= holdout < 1 and validation + holdout < 1):
        raise ConfigError(
            f"Fractions {validation} for validation and {holdout} for the holdout leave no "
            "training rows or are no fractions.",
            where="data.validation_fraction, data.holdout_fraction",
            mend="use numbers from 0 up that sum to less than 1",
        )
    if duplicates not in DUPLICATES:
        raise ConfigError(
            f"{duplicates!r} is not a policy for duplicates.",
            where="data.duplicates",
            mend=f"use {', '.join(DUPLICATES)}",
        )
    if source.declared_role is not None and source.time is not None:
        raise ConfigError(
            "A split column and a time column both say what is held out.",
            where="data.split_column, data.time_column",
            mend="set one of them to null",
        )


def _declared(values: Strings, name: str) -> Strings:
    distinct, inverse = np.unique(values, return_inverse=True)
    mapped = [_DECLARED.get(value.strip().lower()) for value in distinct.tolist()]
    if None in mapped:
        value = distinct[mapped.index(None)]
        row = int(np.argmax(values == value))
        raise DataError(
            f"The split column holds {str(value)!r}, first in row {row}.",
            where=f"data.{name}, data.split_column",
            mend="use train, validation (or val, valid, dev) and holdout (or test)",
        )
    return np.array(mapped, dtype="<U10")[inverse]


def _validate(role: Strings, cluster: Strings, salt: str, fraction: float) -> Strings:
    picked = (role == "train") & (uniform(cluster, salt=f"{salt}\0validation") < fraction)
    return np.where(picked, "validation", role)


def _latest(time: npt.NDArray[Any], fraction: float, name: str) -> Booleans:
    held = round(len(time) * fraction)
    if not held:
        return np.zeros(len(time), dtype=bool)
    late: Booleans = time >= np.sort(time)[len(time) - held]
    if late.all():
        raise DataError(
            f"The latest {fraction:.0%} of the rows share their time with all others.",
            where=f"data.{name}, data.time_column",
            mend="use a finer time column, or null to split by hash",
        )
    return late


def _kept(content: Strings, role: Strings, duplicates: str) -> Booleans:
    if duplicates == "allow":
        return np.ones(len(role), dtype=bool)
    # a declared or a time split may part copies; the side that judges keeps its copy
    rank = np.select([role == "holdout", role == "validation", role == GAP], [0, 1, 3], 2)
    _, inverse = np.unique(content, return_inverse=True)
    if duplicates == "drop":
        order = np.argsort(rank, kind="stable")
        _, first = np.unique(inverse[order], return_index=True)
        keep = np.zeros(len(role), dtype=bool)
        keep[order[first]] = True
        return keep
    best = np.full(inverse.max(initial=-1) + 1, 3)
    np.minimum.at(best, inverse, rank)
    kept: Booleans = rank == best[inverse]
    return kept


def _notes(name: str, total: int, copies: int, removed: int, duplicates: str) -> tuple[str, ...]:
    notes = []
    if copies:
        notes.append(
            f"{name}: {copies} of {total} rows ({copies / total:.1%}) repeat another row; "
            f"data.duplicates={duplicates}"
        )
    if removed:
        kind = "repetitions" if duplicates == "drop" else "copies of held-out or validation rows"
        notes.append(f"{name}: {removed} rows left out, {kind}")
    return tuple(notes)
