"""Images as the bytes of their files, and as arrays once a model is to see them.

Rows, memory and holdouts keep the bytes, which are a fraction of the pixels; content hashes are of
the pixels. Decoders leave the interpreter's lock, so that threads do for workers.

Shapes: N images; C channels, H rows, W columns.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from perennial.data.columns import Column, is_bytes, one_chunk, refuse_nulls
from perennial.data.rows import Rows
from perennial.data.spill import filled
from perennial.errors import DataError, first_line

# before the dtype and shape of a row's pixels, in a lineage's columns
IMAGE = "image "

_GREY = ("1", "L", "LA")
_DEEP_GREY = "I;16"
_OF_32_BITS = ("I", "F")
_OPAQUE = 255
# images that are handed to the workers at once
_IMAGES = 1024


class Pixels:
    """Encoded images as an array (N, C, H, W) of which parts are decoded when they are asked for.

    Attributes:
        dtype: See `pixels_of`.
        shape: (N, C, H, W); all images have the first one's.

    Args:
        encoded: Bytes of at least one image (N,).
        where: Source and column, for messages.

    Raises:
        DataError: The first image cannot be read.
    """

    def __init__(self, encoded: Column, *, where: str) -> None:
        self._encoded, self._where = encoded, where
        first = _decoded(0, encoded[0], where=where)
        self.dtype: np.dtype[Any] = first.dtype
        self.shape = (len(encoded), *first.shape)

    @property
    def kind(self) -> str:
        """As a lineage's columns have it."""
        return f"{IMAGE}{self.dtype} {self.shape[1:]}"

    def __getitem__(self, part: slice) -> Column:
        """Pixels of some images.

        Raises:
            DataError: An image is unreadable, transparent, or of another size, number of channels
                or depth than the first of all.
        """
        return np.concatenate([np.empty((0, *self.shape[1:]), self.dtype), *self.parts(part)])

    def parts(self, part: slice = slice(None)) -> Iterator[Column]:
        """The same, some images at a time."""
        first, stop, _ = part.indices(len(self._encoded))
        with ThreadPoolExecutor(_cores()) as workers:
            for start in range(first, stop, _IMAGES):
                items = self._encoded[start : min(start + _IMAGES, stop)]
                decode = partial(_decoded, where=self._where)
                found = list(workers.map(decode, count(start), items))
                for row, pixels in enumerate(found, start=start):
                    self._refuse_another(row, pixels)
                yield np.stack(found)

    def _refuse_another(self, row: int, pixels: Column) -> None:
        if (pixels.shape, pixels.dtype) != (self.shape[1:], self.dtype):
            raise DataError(
                f"Images differ in shape: row 0 is {_kind(self.shape[1:], self.dtype)} and row "
                f"{row} is {_kind(pixels.shape, pixels.dtype)} (channels, height, width).",
                where=self._where,
                mend="resize and convert them to one size and mode first",
            )


def to_encoded(column: pa.ChunkedArray, *, where: str) -> Column:
    """A column of images as the bytes of their files (N,).

    Args:
        column: Bytes, or structs of ``bytes`` and ``path``, as ``datasets.Image`` stores them.
        where: Source and column, for messages.

    Raises:
        DataError: An image is missing, or its file cannot be read.
    """
    refuse_nulls(one_chunk(column), len(column), where)
    found = np.empty(len(column), dtype=object)
    for row, item in enumerate(column.to_pylist()):
        found[row] = item if isinstance(item, bytes) else _file(row, item, where)
    return found


def is_image(kind: pa.DataType) -> bool:
    """Whether a column holds bytes, or structs of bytes and path."""
    if pa.types.is_struct(kind):
        names = {field.name for field in kind}
        return "bytes" in names <= {"bytes", "path"} and is_image(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def decoded(encoded: Column, *, where: str) -> Column:
    """Pixels (N, C, H, W), memory-mapped where they take too much memory.

    Raises:
        DataError: An image is unreadable, or unlike the first.
    """
    if not len(encoded):
        return encoded
    pixels = Pixels(encoded, where=where)
    return filled(pixels.parts(), pixels.shape, pixels.dtype)


def encoded_as(values: Column) -> Column:
    """Pixels (N, C, H, W) of 8 bits, with one or three channels, as files that lose nothing."""
    found = np.empty(len(values), dtype=object)
    for row, pixels in enumerate(values):
        sink = io.BytesIO()
        plain = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
        Image.fromarray(np.ascontiguousarray(plain)).save(sink, "PNG")
        found[row] = sink.getvalue()
    return found


def seen(rows: Rows) -> dict[str, Column]:
    """The columns of rows with pixels in the place of encoded images.

    Raises:
        DataError: An image cannot be read.
    """
    return {
        name: decoded(column, where=f"column {name!r}") if is_bytes(column) else column
        for name, column in rows.features.items()
    }


def _cores() -> int:
    """Processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def pixels_of(image: Image.Image) -> npt.NDArray[Any]:
    """An opened image as (C, H, W): one channel for grey ones, otherwise three.

    Of 8 bits uint8. Grey of 16 bits is float32 in [0, 1], in which each of its values is another:
    a model gets the shares of 255 and of 65,535 alike.

    Raises:
        ValueError: It has transparent pixels, of which the colour means nothing, or 32 bits, whose
            range nothing tells.
    """
    if image.mode.startswith(_DEEP_GREY):
        deep = np.asarray(image).astype(np.float64) / np.iinfo(np.uint16).max
        return deep.astype(np.float32)[None]
    if image.mode in _OF_32_BITS:
        raise ValueError(
            f"its mode is {image.mode}, 32 bits a pixel; 8 bits, or 16 of grey, are read"
        )
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if (alpha < _OPAQUE).any():
            raise ValueError("it has transparent pixels; lay it on a background first")
    pixels = np.asarray(image.convert("L" if image.mode in _GREY else "RGB"))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _file(row: int, item: Any, where: str) -> bytes:
    try:
        return item["bytes"] or Path(item["path"]).read_bytes()
    except (OSError, KeyError, TypeError) as error:
        raise _unreadable(row, error, where) from error


def _decoded(row: int, item: bytes, *, where: str) -> npt.NDArray[Any]:
    try:
        with Image.open(io.BytesIO(item)) as image:
            return pixels_of(image)
    # each of Pillow's decoders has errors of its own, and a bomb is none of OSError
    except Exception as error:
        raise _unreadable(row, error, where) from error


def _unreadable(row: int, error: Exception, where: str) -> DataError:
    return DataError(
        f"The image in row {row} cannot be read: {first_line(error)}.",
        where=where,
        mend="remove, repair or convert it, or leave the column out of data.features",
    )


def _kind(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    return f"{shape} of {8 if dtype == np.uint8 else 16} bits"
