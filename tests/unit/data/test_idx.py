"""IDX files against bytes written by hand, and through the opener."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from perennial.data.datamodule import to_data
from perennial.data.idx import is_idx, read_idx
from perennial.data.source import open_source, read_rows
from perennial.errors import DataError

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def encoded(values: npt.NDArray[np.generic]) -> bytes:
    code = CODES[values.dtype.str[1:]]
    head = struct.pack(f">BBBB{values.ndim}I", 0, 0, code, values.ndim, *values.shape)
    return head + values.astype(values.dtype.newbyteorder(">")).tobytes()


def folder(path: Path, *, rows: int = 6, prefix: str = "", compressed: bool = False) -> Path:
    path.mkdir(exist_ok=True)
    generator = np.random.default_rng(rows)
    for part, count in (("train", rows), ("t10k", rows // 2)):
        images = generator.integers(0, 256, size=(count, 3, 4)).astype("u1")
        labels = (np.arange(count) % 3).astype("u1")
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            content = encoded(values)
            name = f"{prefix}{part}-{kind}-ubyte"
            if compressed:
                (path / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (path / name).write_bytes(content)
    return path


def test_bytes_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "x-idx2-ubyte"
    path.write_bytes(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255]))
    assert read_idx(path).tolist() == [[1, 2, 3], [4, 5, 255]]


@pytest.mark.parametrize("dtype", sorted(CODES))
def test_every_type_comes_back_in_native_order(tmp_path: Path, dtype: str) -> None:
    values = np.arange(-6 if dtype[0] != "u" else 0, 6).astype(dtype).reshape(1, -1, 2)
    (tmp_path / "x.gz").write_bytes(gzip.compress(encoded(values)))
    found = read_idx(tmp_path / "x.gz")
    assert found.dtype == np.dtype(dtype)
    assert found.dtype.isnative
    assert np.array_equal(found, values)


@pytest.mark.parametrize("change", ["cut", "long", "magic", "empty", "head"])
def test_a_damaged_file_is_told(tmp_path: Path, change: str) -> None:
    content = encoded(np.zeros((4, 2), dtype="u1"))
    damaged = {
        "cut": content[:-1],
        "long": content + b"x",
        "magic": b"PK" + content[2:],
        "empty": b"",
        "head": content[:6],
    }[change]
    (tmp_path / "x").write_bytes(damaged)
    with pytest.raises(DataError, match=r"IDX|bytes"):
        read_idx(tmp_path / "x")
    (tmp_path / "y.gz").write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(DataError, match=r"y\.gz"):
        read_idx(tmp_path / "y.gz")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("prefix", ["", "emnist-letters-"])
def test_a_folder_is_a_source_with_its_split(tmp_path: Path, compressed: bool, prefix: str) -> None:
    path = folder(tmp_path / "x", compressed=compressed, prefix=prefix)
    read = read_rows(open_source(str(path), name="new"), name="new", split_column="split")
    assert read.schema == {"image": "uint8 (1, 3, 4)"}
    assert read.declared_role is not None
    assert read.declared_role.tolist() == ["test"] * 3 + ["train"] * 6
    images = np.random.default_rng(6).integers(0, 256, size=(6, 3, 4)).astype("u1")
    assert np.array_equal(read.rows.features["image"][3:, 0], images)
    assert read.rows.label.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]
    inputs, _ = to_data(read.rows, form="tuple", label="label")
    assert float(inputs.max()) <= 1


def test_parts_that_do_not_belong_together(tmp_path: Path) -> None:
    path = folder(tmp_path / "x")
    (path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="'train' has no labels"):
        open_source(path, name="new")
    (path / "train-labels-idx1-ubyte").write_bytes(encoded(np.zeros(5, dtype="u1")))
    with pytest.raises(DataError, match="do not match"):
        open_source(path, name="new")


def test_names() -> None:
    assert is_idx(Path("train-images-idx3-ubyte"))
    assert is_idx(Path("t10k-labels.idx1-ubyte.gz"))
    assert not is_idx(Path("train.parquet"))
