"""Connections: columns by name, kinds of attack, copies and samples."""

from __future__ import annotations

import collections
import gzip
from pathlib import Path

import numpy as np
import pytest

from perennial.data.connections import CATEGORIES, FEATURES, connections
from perennial.errors import ConfigError, DataError


def line(attack: str, count: int = 1, sent: int = 0) -> str:
    values = dict.fromkeys(FEATURES, "0") | dict.fromkeys(CATEGORIES, "tcp")
    values |= {"count": str(count), "src_bytes": str(sent)}
    return ",".join([*values.values(), attack + "."]) + "\n"


def write(path: Path, *lines: str) -> str:
    path.write_bytes(gzip.compress("".join(lines).encode()))
    return str(path)


@pytest.fixture
def known(tmp_path: Path) -> str:
    return write(tmp_path / "known.gz", line("normal"), line("smurf"), line("smurf", 2, 1000))


def test_a_type_is_unseen_where_the_known_file_lacks_it(tmp_path: Path, known: str) -> None:
    path = write(tmp_path / "new.gz", line("smurf"), line("normal"), line("mscan"))
    found = connections(path=path, known=known)
    assert found["label"][:] == ["attack", "normal", "attack"]
    assert found["kind"][:] == ["known attack", "normal", "unseen attack"]
    assert found["attack"][:] == ["smurf", "normal", "mscan"]
    assert len(FEATURES) == 41 == len(set(FEATURES))
    assert found.column_names == [*FEATURES, "attack", "kind", "label"]


def test_bytes_lie_on_a_logarithm(known: str) -> None:
    found = connections(path=known, known=known)
    assert np.allclose(found["src_bytes"][:], [0, 0, np.log(1001)])
    assert found["count"][:] == [1, 1, 2]


def test_every_so_manieth_row_and_at_most_so_many_alike(tmp_path: Path, known: str) -> None:
    drawn = np.random.default_rng(0).integers(0, 4, 60)
    path = write(tmp_path / "new.gz", *(line("smurf", int(one)) for one in drawn))
    sample = drawn[::2].tolist()
    assert connections(path=path, known=known, every=2)["count"][:] == sample
    met: collections.Counter[int] = collections.Counter()
    kept = []
    for one in sample:
        met[one] += 1
        if met[one] <= 3:
            kept.append(one)
    assert len(kept) < len(sample)
    assert connections(path=path, known=known, every=2, copies=3)["count"][:] == kept


def test_what_is_no_such_file_is_told(tmp_path: Path, known: str) -> None:
    for settings in ({"every": 0}, {"copies": 0}):
        with pytest.raises(ConfigError, match="whole numbers"):
            connections(path=known, known=known, **settings)
    with pytest.raises(DataError, match="cannot be read"):
        connections(path=str(tmp_path / "none.gz"), known=known)
    short = write(tmp_path / "short.gz", "1,2,3\n")
    with pytest.raises(DataError, match="cannot be read"):
        connections(path=short, known=known)
    numbers = write(tmp_path / "numbers.gz", line("1.5").replace("1.5.", "7"))
    with pytest.raises(DataError, match="names no attack"):
        connections(path=numbers, known=known)
    (tmp_path / "cut.gz").write_bytes(Path(known).read_bytes()[:-12])
    with pytest.raises(DataError, match="cannot be read"):
        connections(path=str(tmp_path / "cut.gz"), known=known)
