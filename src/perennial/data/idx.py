"""IDX files, the format of the MNIST family: a folder of images and labels, gzipped or not.

The format: two zero bytes, a byte that codes the type, the number of dimensions, each dimension as
a big-endian 32-bit whole number, then the values, big-endian too.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from perennial.errors import DataError

_NAME = re.compile(r"(?P<part>.*?)[-_.]?(?P<kind>images|labels)[-_.]idx[13]-ubyte(\.gz)?")
_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_SPLITS = {"train": "train", "t10k": "test", "test": "test"}
_MEND = "download the file again"


def read_idx(path: Path) -> npt.NDArray[np.generic]:
    """The array in one file, in the machine's byte order.

    Raises:
        DataError: The file is cut off, too long, or no IDX file.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"{error}.", where=str(path), mend=_MEND) from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _TYPES or len(raw) < 4 + 4 * raw[3]:
        raise DataError("This is no IDX file.", where=str(path), mend=_MEND)
    dtype, start = np.dtype(_TYPES[raw[2]]), 4 + 4 * raw[3]
    shape = tuple(int(size) for size in np.frombuffer(raw[4:start], ">u4"))
    expected = start + dtype.itemsize * int(np.prod(shape))
    if len(raw) != expected:
        raise DataError(
            f"The file has {len(raw)} bytes, and its head speaks of {expected}.",
            where=str(path),
            mend=_MEND,
        )
    values = np.frombuffer(raw, dtype, offset=start).reshape(shape)
    return values.astype(dtype.newbyteorder("="))


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
