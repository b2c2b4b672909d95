"""IDX files against bytes written by hand, and through the opener."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from perennial.data.form import to_data
from perennial.data.idx import idx_classes, is_idx, read_idx
from perennial.data.source import open_source, read_rows
from perennial.errors import ConfigError, DataError

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


def head(*shape: int, code: int = 8) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape)


@pytest.mark.parametrize("shape", [(2**32 - 1,) * 3, (2**31, 28, 28), (1,) * 200])
def test_an_absurd_shape_is_told_before_anything_is_read(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    (tmp_path / "x").write_bytes(head(*shape) + b"\0")
    with pytest.raises(DataError, match=f"{len(shape)} dimensions"):
        read_idx(tmp_path / "x")


def test_a_bomb_is_unpacked_no_further_than_its_head_says(tmp_path: Path) -> None:
    """256 MiB of zeros in 256 KiB, behind a head of six values."""
    with gzip.open(tmp_path / "x.gz", "wb", compresslevel=1) as file:
        file.write(head(2, 3))
        for _ in range(256):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(DataError, match="more bytes of values"):
        read_idx(tmp_path / "x.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_rubbish_that_calls_itself_gzip(tmp_path: Path) -> None:
    content = gzip.compress(encoded(np.arange(4000, dtype="i4")))
    for name, damaged in {
        "not.gz": b"rubbish, and no gzip at all",
        "turned.gz": content[:40] + bytes(byte ^ 0xFF for byte in content[40:80]) + content[80:],
    }.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match=name):
            read_idx(tmp_path / name)
    with pytest.raises(DataError, match="No such file"):
        read_idx(tmp_path / "missing")


@pytest.mark.parametrize("compressed", [False, True])
def test_some_classes_of_a_folder_by_name(tmp_path: Path, compressed: bool) -> None:
    path = folder(tmp_path / "x", rows=12, compressed=compressed)
    found = idx_classes(path=str(path), classes=[2, 0], names=["ant", "bee", "cat"])
    assert found["label"][:] == ["ant", "cat"] * 2 + ["ant", "cat"] * 4
    assert found["split"][:] == ["test"] * 4 + ["train"] * 8
    train = np.random.default_rng(12).integers(0, 256, size=(12, 3, 4)).astype("u1")
    kept = [row for row in range(12) if row % 3 != 1]
    assert np.array_equal(np.array(found["image"][4:])[:, 0], train[kept])
    assert idx_classes(path=str(path), classes=[1])["label"][:] == ["1"] * 6


@pytest.mark.parametrize(("fraction", "rows"), [(0.5, (1, 2)), (0.01, (1, 1)), (1.0, (2, 4))])
def test_a_fraction_is_of_each_part_and_class(
    tmp_path: Path, fraction: float, rows: tuple[int, int]
) -> None:
    path = folder(tmp_path / "x", rows=12)
    found = idx_classes(path=str(path), classes=[0, 1], fraction=fraction).to_pandas()
    counted = found.groupby(["label", "split"]).size()
    for label in ("0", "1"):
        assert (counted[label]["test"], counted[label]["train"]) == rows


def test_what_idx_classes_cannot_give(tmp_path: Path) -> None:
    path = str(folder(tmp_path / "x"))
    with pytest.raises(ConfigError, match="fraction is 0"):
        idx_classes(path=path, classes=[0], fraction=0)
    with pytest.raises(ConfigError, match="1 have names"):
        idx_classes(path=path, classes=[0, 1], names=["ant"])
    for classes in ([], [-1, 0]):
        with pytest.raises(ConfigError, match="classes are"):
            idx_classes(path=path, classes=classes)
    with pytest.raises(DataError, match="no image of class 7"):
        idx_classes(path=path, classes=[0, 7])
    for missing in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(DataError, match="no IDX files"):
            idx_classes(path=str(missing), classes=[0])
    (tmp_path / "x" / "train-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(DataError, match="no IDX file"):
        idx_classes(path=path, classes=[0])


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
