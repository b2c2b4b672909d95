"""Images to arrays, by one rule for training data and for what is predicted.

Shapes: N images; C channels, H rows, W columns.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from perennial.data.columns import Column, one_chunk, refuse_nulls
from perennial.errors import DataError, first_line

_GREY = ("1", "L", "LA")
_DEEP_GREY = "I;16"
_OF_32_BITS = ("I", "F")
_OPAQUE = 255
# images that are handed to the workers at once
_IMAGES = 1024


def to_images(column: pa.ChunkedArray, *, where: str) -> Column:
    """Encoded images to arrays (N, C, H, W): see `pixels_of`.

    Args:
        column: Structs of ``bytes`` and ``path``, as ``datasets.Image`` stores them.
        where: Source and column, for messages.

    Raises:
        DataError: An image is missing, unreadable, transparent, or of another size, number of
            channels or depth than the first.
    """
    refuse_nulls(one_chunk(column), len(column), where)
    found: Column | None = None
    # decoders leave the interpreter's lock, so that threads do for workers
    with ThreadPoolExecutor(_cores()) as workers:
        for start in range(0, len(column), _IMAGES):
            items = column.slice(start, _IMAGES).to_pylist()
            decoded = workers.map(partial(_decoded, where=where), count(start), items)
            for row, pixels in enumerate(decoded, start=start):
                if found is None:
                    found = np.empty((len(column), *pixels.shape), dtype=pixels.dtype)
                if (pixels.shape, pixels.dtype) != (found.shape[1:], found.dtype):
                    raise DataError(
                        f"Images differ in shape: row 0 is {_kind(found[0])} and row {row} is "
                        f"{_kind(pixels)} (channels, height, width).",
                        where=where,
                        mend="resize and convert them to one size and mode first",
                    )
                found[row] = pixels
    assert found is not None, "a source has rows"
    return found


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


def _decoded(row: int, item: Any, *, where: str) -> npt.NDArray[Any]:
    try:
        with Image.open(io.BytesIO(item["bytes"]) if item["bytes"] else item["path"]) as image:
            return pixels_of(image)
    # each of Pillow's decoders has errors of its own, and a bomb is none of OSError
    except Exception as error:
        raise DataError(
            f"The image in row {row} cannot be read: {first_line(error)}.",
            where=where,
            mend="remove, repair or convert it",
        ) from error


def _kind(pixels: npt.NDArray[Any]) -> str:
    return f"{pixels.shape} of {8 if pixels.dtype == np.uint8 else 16} bits"
