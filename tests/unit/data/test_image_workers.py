"""Images through the workers: in order, and an error names its row."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from perennial.data import images
from perennial.errors import DataError


def encoded(pixels: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png")
    return file.getvalue()


def column(items: list[bytes]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([{"bytes": one, "path": None} for one in items])])


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_IMAGES", 7)
    monkeypatch.setattr(images, "_cores", lambda: 4)


def test_images_keep_their_order() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 5, 6, 3), np.uint8)
    kept = images.to_encoded(column([encoded(one) for one in pixels]), where="data.new")
    found = images.decoded(kept, where="data.new")
    assert found.dtype == np.uint8
    assert np.array_equal(found, pixels.transpose(0, 3, 1, 2))


def test_the_first_bad_image_is_named() -> None:
    good = encoded(np.zeros((5, 6, 3), np.uint8))
    small = encoded(np.zeros((5, 5, 3), np.uint8))
    for bad, told in ((b"no image", "row 23 cannot be read"), (small, r"row 23 is \(3, 5, 5\)")):
        items = [good] * 40
        items[23] = bad
        items[31] = b"another"
        with pytest.raises(DataError, match=told):
            images.decoded(images.to_encoded(column(items), where="data.new"), where="data.new")
