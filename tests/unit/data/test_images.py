"""Pixels are what the file holds, or the file is refused with the reason."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from perennial.data.datamodule import to_data
from perennial.data.images import pixels_of, seen
from perennial.data.inputs import to_columns
from perennial.data.preprocess.base import applied
from perennial.data.source import read_rows
from perennial.errors import DataError

DEEP = np.array([[0, 255, 256], [4095, 65534, 65535]], dtype=np.uint16)


def encoded(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()


def read(*contents: bytes) -> Any:
    columns = {"image": [{"bytes": one, "path": None} for one in contents]}
    features = datasets.Features({"image": datasets.Image()})
    dataset = datasets.Dataset.from_dict(columns, features=features)
    return read_rows(dataset, name="new", label=None, kind="none")


def test_grey_of_16_bits_keeps_every_value_and_the_scale_of_8_bits() -> None:
    rows = read(encoded(Image.fromarray(DEEP))).rows
    image = seen(rows)["image"]
    assert image.shape == (1, 1, 2, 3)
    np.testing.assert_array_equal(np.round(image[0, 0].astype(np.float64) * 65535), DEEP)
    half = read(encoded(Image.fromarray((DEEP // 257).astype(np.uint8)))).rows
    deep, shallow = (
        to_data(applied(None, one), form="dict", label=None)["image"] for one in (rows, half)
    )
    assert float((deep - shallow).abs().max()) <= 1 / 255
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert len(np.unique(pixels_of(Image.fromarray(every)))) == 65536


def test_a_prediction_takes_what_training_took() -> None:
    image = Image.fromarray(DEEP)
    kept = read(encoded(image))
    found = to_columns([image], kept.schema)["image"]
    np.testing.assert_array_equal(found, seen(kept.rows)["image"])


def transparent(alpha: int, mode: str = "RGBA") -> Image.Image:
    image = Image.new("RGBA", (2, 2), (200, 200, 200, 255))
    image.putpixel((1, 0), (9, 9, 9, alpha))
    return image.convert(mode)


@pytest.mark.parametrize(("mode", "channels"), [("RGBA", 3), ("LA", 1)])
def test_what_is_transparent_is_refused_and_an_opaque_channel_is_left_out(
    mode: str, channels: int
) -> None:
    image = seen(read(encoded(transparent(255, mode))).rows)["image"]
    assert image.shape == (1, channels, 2, 2)
    assert image[0, :, 0, 1].tolist() == [9] * channels
    with pytest.raises(DataError, match="row 1 cannot be read: it has transparent pixels"):
        read(encoded(transparent(255, mode)), encoded(transparent(254, mode)))
    with pytest.raises(DataError, match="transparent pixels"):
        to_columns([transparent(0, mode)], {"image": f"uint8 ({channels}, 2, 2)"})


def bomb() -> bytes:
    """A head of 60,000 by 60,000 pixels, and no pixel."""

    def part(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(part(*one) for one in parts)


def broken() -> bytes:
    content = bytearray(encoded(Image.fromarray(DEEP)))
    content[20] ^= 255  # of which Pillow says SyntaxError
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [(bomb(), "decompression bomb"), (broken(), "cannot be read"), (b"", "cannot be read")],
    ids=["bomb", "broken", "nothing"],
)
def test_what_cannot_be_pixels_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(content)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bits_have_no_known_range(mode: str) -> None:
    with pytest.raises(DataError, match="32 bits a pixel"):
        to_columns([Image.new(mode, (2, 2))], {"image": "uint8 (1, 2, 2)"})


def test_one_depth_for_all() -> None:
    with pytest.raises(DataError, match=r"of 16 bits and row 1 is .* of 8 bits"):
        read(encoded(Image.fromarray(DEEP)), encoded(Image.new("L", (3, 2))))
