from __future__ import annotations

import os
from pathlib import Path

import pytest

from perennial.data.arrivals import listing


def test_a_listing_changes_with_every_change_of_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    seen = {listing(str(folder))}  # of a folder that is not there yet, too
    (folder / "deep").mkdir(parents=True)
    first = folder / "deep" / "a.csv"
    first.write_text("1")
    seen.add(listing(folder))
    first.write_text("12")
    seen.add(listing(folder))
    os.utime(first, ns=(1, 1))
    seen.add(listing(folder))
    (folder / "b.csv").write_text("")
    seen.add(listing(folder))
    first.unlink()
    seen.add(listing(folder))
    assert len(seen) == 6
    assert listing(folder) == listing({"partitions": str(folder)}) == listing(str(folder))


def test_hidden_files_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1")
    before = listing(tmp_path)
    (tmp_path / ".part").write_text("half of a file that is being copied")
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    "spec", [None, {"sql": "select 1", "url": "sqlite:///x"}, {"_target_": "f"}]
)
def test_only_reading_tells_of_other_sources(spec: object) -> None:
    assert listing(spec) is None
