"""Open a source: files, folders, hub ids and built data sets alike.

Files are read by Arrow straight into memory: no cache is filled, no progress bar is drawn.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from perennial.data.idx import is_idx, read_folder
from perennial.data.partitions import is_partitioned, read_partitions, refuse_odd_dates
from perennial.data.sql import is_query, read_query
from perennial.data.tables import PLAIN, READERS, Csv, concatenated, read_table, suffix
from perennial.errors import DataError, first_line
from perennial.masking import mask_text, plain

# what readers say of a file that is not what it should be
_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError, RecursionError)
_PANDAS_INDEX = re.compile(r"(__index_level_\d+__)?")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
_NO_ROWS = "BatchSize must be greater than 0"  # how a parquet file without rows ends in datasets
_ABOUT = re.compile(r"(?i)(readme|licen[cs]e|notes?|about|changelog|description)\.txt")
# kinds of file in which a column without a value is there all the same
_FIXED = {".csv", ".tsv", ".parquet", ".arrow", ".feather"}
_SPLITS = {"train", "training", "validation", "valid", "val", "dev", "test", "holdout"}


def open_source(spec: Any, *, name: str, csv: Csv = PLAIN) -> datasets.Dataset:
    """Open a source.

    Args:
        spec: A file (parquet, csv, tsv, json, jsonl, arrow, feather, txt; text kinds also as .gz or
            .bz2); a folder of such files of one kind, of dated partitions, of images or text files
            in one folder per class, of IDX images and labels (the format of MNIST), or that
            ``save_to_disk`` wrote; a query, ``{sql: ..., url: ...}``; ``{partitions: FOLDER}``, see
            `perennial.data.partitions`; a hub id ``org/name``; or a built ``datasets.Dataset``.
            Several splits of one source are joined, with their names in a column ``split``.
        name: The source's name, for messages: ``data.<name>``.
        csv: How csv and tsv files are read.

    Raises:
        DataError: The source is missing, empty, unreadable or of an unknown kind.
    """
    if isinstance(spec, datasets.DatasetDict):
        dataset = _join_splits(dict(spec))
    elif isinstance(spec, datasets.Dataset):
        dataset = spec
    elif isinstance(spec, Mapping):
        dataset = _open_mapping(spec, name, csv)
    elif isinstance(spec, str | Path):
        dataset = _open(spec, name, csv)
    else:
        raise DataError(
            f"A source cannot be a {type(spec).__name__}.",
            where=f"data.{name}",
            mend="give a path, a hub id such as org/name, or a constructor of a datasets.Dataset",
        )
    if not len(dataset):
        raise DataError(
            "The data set has no rows.",
            where=_where(name, shown(spec)),
            mend="name a source with rows",
        )
    return dataset


def shown(spec: Any) -> str:
    """A source in words, without a password."""
    if isinstance(spec, Mapping):
        known = plain(spec)
        return f"{known['sql']} ({known.get('url', '?')})" if is_query(spec) else str(known)
    return mask_text(str(spec)) if isinstance(spec, str | Path) else "built data set"


def remembered(spec: Any) -> Any:
    """What a version keeps of a source, to read it again; None for what it cannot or must not.

    A built data set has no name, and a password stays with its owner.
    """
    if isinstance(spec, Mapping):
        texts = {str(key): str(value) for key, value in spec.items()}
        return dict(spec) if plain(texts) == texts else None
    kept = str(spec) if isinstance(spec, str | Path) else None
    return None if kept is None or mask_text(kept) != kept else kept


def _open_mapping(spec: Mapping[str, Any], name: str, csv: Csv) -> datasets.Dataset:
    where = _where(name, shown(spec))
    if is_query(spec):
        return _tabled(lambda: read_query(spec, where=where), where)
    if is_partitioned(spec):
        return _tabled(lambda: read_partitions(spec, where=where, csv=csv), where)
    raise DataError(
        f"A source with the keys {', '.join(map(str, spec))} is unknown.",
        where=where,
        mend="write {sql: ..., url: ...}, {partitions: FOLDER, until: DATE}, or a constructor with "
        "a _target_",
    )


def _tabled(read: Callable[[], pa.Table], where: str) -> datasets.Dataset:
    try:
        return _wrap(read())
    except _UNREADABLE as error:
        raise _unreadable(error, where) from error


def _unreadable(error: Exception, where: str) -> DataError:
    reason = first_line(error)
    return DataError(
        f"The source cannot be read: {reason}",
        where=where,
        mend="check that the file is whole, of the kind that its name says, and a table",
    )


def _open(spec: str | Path, name: str, csv: Csv) -> datasets.Dataset:
    path = Path(spec).expanduser()
    where = _where(name, shown(spec))
    if not str(spec).strip() or "://" in str(spec):
        raise DataError(
            "An address is no file." if str(spec).strip() else "No source is named.",
            where=where,
            mend="give the path of a file or folder, a hub id such as org/name, or a query, "
            '\'{sql: "select ...", url: "postgresql://..."}\'',
        )
    try:
        if path.is_dir():
            return _open_folder(path, where, csv)
        if path.is_file():
            return _wrap(read_table(path, where=where, csv=csv))
    except _UNREADABLE as error:
        raise _unreadable(error, where) from error
    if isinstance(spec, str) and _HUB_ID.fullmatch(spec) and suffix(path) not in READERS:
        return _open_hub(spec, where)
    if path.exists():
        raise DataError(
            "It is neither a file nor a folder.",
            where=where,
            mend="write what it gives into a file, and name that",
        )
    raise DataError("There is no such file or folder.", where=where, mend=_close_path(path))


def _open_folder(path: Path, where: str, csv: Csv) -> datasets.Dataset:
    if (path / "dataset_dict.json").exists():
        return _join_splits(dict(datasets.load_from_disk(str(path))))
    if (path / "state.json").exists():
        return datasets.load_from_disk(str(path))
    found = sorted(item for item in path.rglob("*") if item.is_file() and item.name[0] != ".")
    if any(item.suffix.lower() in _IMAGES for item in found):
        return _image_folder(path, found, where)
    if any(is_idx(item) for item in found):
        return _wrap(read_folder([item for item in found if is_idx(item)], where=where))
    if is_partitioned(path):
        return _wrap(read_partitions(path, where=where, csv=csv))
    refuse_odd_dates(path, where=where)
    tables = [item for item in found if suffix(item) in READERS]
    # what is written about the data is none of them
    others = [item for item in tables if not _ABOUT.fullmatch(item.name)]
    tables = others or tables
    kinds = {suffix(item) for item in tables}
    if len(kinds) != 1:
        raise DataError(
            f"The folder holds files of {len(kinds)} kinds that Perennial can read.",
            where=where,
            mend=f"keep files of one kind in it: {', '.join(READERS)}, or images",
        )
    if kinds == {".txt"}:
        return _text_folder(path, tables, where)
    read = [read_table(item, where=where, csv=csv) for item in tables]
    if kinds <= _FIXED:
        _refuse_other_columns(tables, read, where)
    return _wrap(concatenated(read, csv))


def _refuse_other_columns(files: Sequence[Path], tables: Sequence[pa.Table], where: str) -> None:
    """Refuse files of one folder whose columns differ: the others would be taken to be missing."""
    first = set(tables[0].column_names)
    for file, table in zip(files, tables, strict=True):
        if odd := sorted(first ^ set(table.column_names)):
            has = file if odd[0] in table.column_names else files[0]
            raise DataError(
                f"{file.name} and {files[0].name} have other columns: {odd[0]!r} is in {has.name} "
                "alone.",
                where=where,
                mend="give the files of a folder the same columns, or put them into folders of "
                "their own",
            )


def _image_folder(path: Path, found: Sequence[Path], where: str) -> datasets.Dataset:
    parts = [item.relative_to(path).parts for item in found if item.suffix.lower() in _IMAGES]
    has_splits = all(len(part) >= 3 and part[0].lower() in _SPLITS for part in parts)
    depth = 1 if has_splits else 0
    if any(len(part) != depth + 2 for part in parts):
        raise DataError(
            "Images must lie in one folder per class.",
            where=where,
            mend="arrange them as <class>/<image>, or <split>/<class>/<image>",
        )
    names = sorted({part[depth] for part in parts})
    columns: dict[str, list[Any]] = {
        "image": [str(path.joinpath(*part)) for part in parts],
        "label": [part[depth] for part in parts],
    }
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    if has_splits:
        columns["split"] = [part[0].lower() for part in parts]
        features["split"] = datasets.Value("string")
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def _text_folder(path: Path, found: Sequence[Path], where: str) -> datasets.Dataset:
    """A row per line; its label is the name of its folder, or else of its file."""
    parts = [item.relative_to(path).parts for item in found]
    has_splits = all(part[0].lower() in _SPLITS for part in parts) and min(map(len, parts)) > 1
    own = [part[1:] if has_splits else part for part in parts]
    if len({len(part) for part in own}) != 1 or len(own[0]) > 2:
        raise DataError(
            "Text files must lie in one folder per class, or be one file per class.",
            where=where,
            mend="arrange them as <class>/<file>.txt or <class>.txt, under <split>/ or not",
        )
    tables = []
    for item, part, names in zip(found, parts, own, strict=True):
        table = read_table(item, where=where)
        label = names[0] if len(names) == 2 else names[0].partition(".")[0]
        table = table.append_column("label", pa.array([label] * len(table), pa.string()))
        if has_splits:
            split = pa.array([part[0].lower()] * len(table), pa.string())
            table = table.append_column("split", split)
        tables.append(table)
    return _wrap(concatenated(tables))


def _open_hub(spec: str, where: str) -> datasets.Dataset:
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(spec)
    # what fails here is the network's, the hub's, or one of a dozen parsers'
    except Exception as error:
        reason = _reason(error)
        raise DataError(
            f"Neither a file nor a hub data set could be opened: {reason}",
            where=where,
            mend="check the name and the network (HF_ENDPOINT; HF_TOKEN for what is private); "
            f"{_close_path(Path(spec))}",
        ) from error
    return _join_splits(dict(loaded))


def _reason(error: Exception) -> str:
    """Of a failure to build a data set, what lies under it: the outermost only says that it did."""
    if not isinstance(error, datasets.exceptions.DatasetGenerationError):
        return first_line(error)
    cause = first_line(error.__cause__ or error)
    return "its file has no rows" if cause.startswith(_NO_ROWS) else cause


def _join_splits(splits: dict[str, datasets.Dataset]) -> datasets.Dataset:
    if len(splits) == 1:
        return next(iter(splits.values()))
    named = [
        part if "split" in part.column_names else part.add_column("split", [key] * len(part))
        for key, part in splits.items()
    ]
    return datasets.concatenate_datasets(named)


def _wrap(table: pa.Table) -> datasets.Dataset:
    # what pandas writes of an index without a name is a row number, not a feature
    table = table.drop_columns([n for n in table.column_names if _PANDAS_INDEX.fullmatch(n)])
    twice = [name for name in table.column_names if table.column_names.count(name) > 1]
    if twice:
        raise ValueError(f"{twice.count(twice[0])} of its columns are named {twice[0]!r}")
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(index, field.name, table[index].cast(field.type.value_type))
    return datasets.Dataset(datasets.table.InMemoryTable(table))


def _close_path(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return (
            f"the folder {folder} does not exist either; relative paths start at the run's folder"
        )
    close = difflib.get_close_matches(path.name, [item.name for item in folder.iterdir()], n=1)
    return f"did you mean {folder / close[0]}?" if close else f"look into {folder.resolve()}"


def _where(name: str, spec: object) -> str:
    return f"data.{name}: {spec}"
