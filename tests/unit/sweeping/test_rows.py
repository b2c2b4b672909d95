from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from perennial.sweeping.rows import stamps


def test_a_file_under_the_same_name_is_another(tmp_path: Path) -> None:
    week = tmp_path / "week.csv"
    week.write_text("a\n1\n")
    data: dict[str, Any] = {"new": str(week), "label": "a", "features": ["a"], "history": None}
    first = stamps(data)
    assert [(Path(path), size) for path, size, _ in first] == [(week, 4)]
    assert stamps(data) == first
    week.write_text("a\n2\n")
    os.utime(week, ns=(1, 1))
    assert stamps(data) != first


def test_folders_count_by_the_files_below_and_what_is_no_path_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    part = tmp_path / "days" / "date=2026-11-24" / "part.parquet"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"1")
    data = {
        "new": {"_target_": "net.rows", "path": "days"},
        "history": "postgresql://host/db",
        "label": "",
        "memory": {"folder": "."},
        "id_column": "x" * 5000,
    }
    first = stamps(data)
    assert [path for path, *_ in first] == ["days/date=2026-11-24/part.parquet"]
    later = tmp_path / "days" / "date=2026-11-25" / "part.parquet"
    later.parent.mkdir()
    later.write_bytes(b"2")
    assert len(stamps(data)) == 2
