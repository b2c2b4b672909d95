"""IDX files, the format of the MNIST family: a folder of images and labels, gzipped or not.

The format: two zero bytes, a byte that codes the type, the number of dimensions, each dimension as
a big-endian 32-bit whole number, then the values, big-endian too.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path
from typing import IO, Any, cast

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from perennial.data.published import located
from perennial.errors import ConfigError, DataError

_NAME = re.compile(r"(?P<part>.*?)[-_.]?(?P<kind>images|labels)[-_.]idx[13]-ubyte(\.gz)?")
_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_SPLITS = {"train": "train", "t10k": "test", "test": "test"}
# 60,000 images of 224 × 224 in three colours are 8.4 GiB; what is larger does not come as one array
_LARGEST = 16 << 30
_DIMENSIONS = 8
_MEND = "download the file again"


def read_idx(path: Path) -> npt.NDArray[np.generic]:
    """The array in one file, in the machine's byte order.

    No more is unpacked than the head speaks of, so that a small file cannot fill the memory.

    Raises:
        DataError: The file is missing, cut off, too long, no IDX file, or of an absurd shape.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            dtype, shape = _head(cast(IO[bytes], file), path)
            size = dtype.itemsize * math.prod(shape)
            raw = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{error}.", where=str(path), mend=_MEND) from error
    if len(raw) != size:
        more = "more" if len(raw) > size else len(raw)
        raise DataError(
            f"The file has {more} bytes of values, and its head speaks of {size}.",
            where=str(path),
            mend=_MEND,
        )
    return np.frombuffer(raw, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _head(file: IO[bytes], path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Type and shape of the values, with the file at the first of them."""
    start = file.read(4)
    sizes = file.read(4 * start[3]) if len(start) == 4 else b""
    known = len(start) == 4 and start[:2] == b"\0\0" and start[2] in _TYPES
    if not known or len(sizes) < 4 * start[3]:
        raise DataError("This is no IDX file.", where=str(path), mend=_MEND)
    dtype = np.dtype(_TYPES[start[2]])
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    if start[3] > _DIMENSIONS or dtype.itemsize * math.prod(shape) > _LARGEST:
        told = " × ".join(map(str, shape[: _DIMENSIONS + 1]))
        raise DataError(
            f"The head speaks of {start[3]} dimensions, {told}; {_DIMENSIONS} dimensions and "
            f"{_LARGEST >> 30} GiB are the most that is read.",
            where=str(path),
            mend=_MEND,
        )
    return dtype, shape


def is_idx(path: Path) -> bool:
    """Whether a file is called as the images and labels of the MNIST family are."""
    return _NAME.fullmatch(path.name) is not None


def read_folder(files: list[Path], *, where: str) -> pa.Table:
    """Images and labels of all parts as one table.

    Args:
        files: Files that `is_idx` knows, one of images and one of labels for each part.
        where: The source, for messages.

    Returns:
        Columns ``image``, uint8 (1, H, W), and ``label``; and ``split``, ``train`` or ``test``,
        where all parts' names end so (``t10k`` is a test).

    Raises:
        DataError: A part lacks images or labels, or has more of one than of the other.
    """
    parts: dict[str, dict[str, Path]] = {}
    for path in files:
        matched = _NAME.fullmatch(path.name)
        assert matched is not None
        parts.setdefault(matched["part"], {})[matched["kind"]] = path
    splits = {part: _SPLITS.get(part.rpartition("-")[2]) for part in parts}
    tables = []
    for part, kinds in sorted(parts.items()):
        if lacking := {"images", "labels"} - kinds.keys():
            raise DataError(
                f"The part {part!r} has no {lacking.pop()}.",
                where=where,
                mend="put the files of images and labels into one folder",
            )
        images, labels = read_idx(kinds["images"]), read_idx(kinds["labels"])
        if len(images) != len(labels) or images.ndim != 3 or labels.ndim != 1:
            raise DataError(
                f"Images {images.shape} and labels {labels.shape} of {part!r} do not match.",
                where=where,
                mend="put the files of images and labels that belong together into one folder",
            )
        columns = {"image": _lists(images[:, None]), "label": pa.array(labels.astype(np.int64))}
        if all(splits.values()):
            columns["split"] = pa.array([splits[part]] * len(labels))
        tables.append(pa.table(columns))
    return pa.concat_tables(tables)


def _lists(values: npt.NDArray[np.generic]) -> pa.Array:
    """An array (N, ...) as nested lists of fixed size, without a copy."""
    nested = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in values.shape[:0:-1]:
        nested = pa.FixedSizeListArray.from_arrays(nested, size)
    return nested


def idx_classes(
    *, path: str, classes: list[int], names: list[str] | None = None, fraction: float = 1.0
) -> datasets.Dataset:
    """The rows of some classes of a folder of IDX files: a world that meets the others later.

    Args:
        path: The folder; ``published:NAME`` as `perennial.data.published` has it.
        classes: Labels to keep.
        names: Of all labels, in their order; None calls them by their numbers.
        fraction: Share of the rows of each part and class to keep, in (0, 1], the first ones.

    Returns:
        Columns ``image``, ``label`` (a name) and, as `read_folder` says, ``split``.

    Raises:
        DataError: The folder is missing or malformed, or lacks a class.
        ConfigError: A fraction out of range, or a label without a name.
    """
    unnamed = names is not None and max(classes, default=0) >= len(names)
    if not 0 < fraction <= 1 or min(classes, default=-1) < 0 or unnamed:
        raise ConfigError(
            f"fraction is {fraction}, classes are {classes}, and {len(names or [])} have names.",
            where="data (fraction, classes, names)",
            mend="give a share from above 0 to 1, some labels from 0, and a name for each of them",
        )
    files = sorted(file for file in Path(located(path)).glob("*") if is_idx(file))
    if not files:
        raise DataError(
            "There are no IDX files.", where=path, mend="name the folder with images and labels"
        )
    table = read_folder(files, where=path)
    label = table["label"].to_numpy()
    has = ", ".join(map(str, np.unique(label)))
    parts = table["split"].to_numpy() if "split" in table.column_names else np.zeros(len(label))
    kept = np.zeros(len(label), dtype=bool)
    for one in classes:
        for part in np.unique(parts):
            rows = np.flatnonzero((label == one) & (parts == part))
            if not len(rows):
                raise DataError(
                    f"There is no image of class {one}.", where=path, mend=f"it has {has}"
                )
            kept[rows[: max(1, round(fraction * len(rows)))]] = True
    chosen = table.filter(pa.array(kept))
    called = [str(n) if names is None else names[n] for n in chosen["label"].to_pylist()]
    at = chosen.column_names.index("label")
    return datasets.Dataset(chosen.set_column(at, "label", pa.array(called)))
