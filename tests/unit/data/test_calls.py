"""Calls: windows of time, what is kept of them, and what the first ones have no example of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perennial.data.calls import calls
from perennial.errors import ConfigError, DataError


@pytest.fixture
def path(tmp_path: Path) -> str:
    count = 23
    frame = pd.DataFrame(
        {
            "age": np.arange(count),
            "duration": 1,
            "campaign": 2,
            "pdays": [999] * 20 + [0, 3, 999],
            "previous": [0] * 20 + [1, 2, 1],
            "poutcome": ["nonexistent"] * 20 + ["success", "failure", "failure"],
            "nr.employed": [5000.0] * 22 + [4950.0],
            "cons.price.idx": [92.0] * 22 + [93.0],
            "emp.var.rate": [1.1] * 22 + [-1.8],
            "euribor3m": [4.8] * 22 + [0.8],
            "cons.conf.idx": [-36.0] * 22 + [-51.0],
            "y": ["no"] * 22 + ["yes"],
        }
    )
    frame.to_csv(tmp_path / "calls.csv", sep=";", index=False)
    return str(tmp_path / "calls.csv")


def rows(path: str, **settings: object) -> list[int]:
    found: list[int] = calls(path=path, of=5, **settings)["row"][:]  # type: ignore[arg-type]
    return found


def test_windows_divide_the_rows_in_order(path: str) -> None:
    windows = [rows(path, window=window) for window in range(1, 6)]
    assert [row for window in windows for row in window] == list(range(23))
    assert {len(window) for window in windows} == {4, 5}


@pytest.mark.parametrize("keep", [1, 2, None])
def test_history_is_before_the_window_and_new_ends_with_it(path: str, keep: int | None) -> None:
    windows = {window: rows(path, window=window) for window in range(1, 6)}
    first = 1 if keep is None else 5 - keep
    before = [row for window in range(first, 5) for row in windows[window]]
    assert rows(path, window=5, part="history", keep=keep) == before
    first = 1 if keep is None else 6 - keep
    until = [row for window in range(first, 6) for row in windows[window]]
    assert rows(path, window=5, keep=keep) == until
    assert rows(path, window=2, part="history", keep=3) == windows[1]


def test_what_the_first_windows_lack_is_zero_there(path: str) -> None:
    table = calls(path=path, window=5, keep=None, of=5).to_pandas()
    assert not {"duration", "pdays", "poutcome", "y"} & set(table.columns)
    for column in ("recent", "success", "failure", "previous"):
        assert not table[column][:20].any()
    assert table["recent"][20:].tolist() == [1.0, 0.25, 0.0]
    assert table["success"][20:].tolist() == [1.0, 0.0, 0.0]
    assert table["failure"][20:].tolist() == [0.0, 1.0, 1.0]
    assert np.allclose(table["previous"][20:], np.log([2, 3, 2]))
    assert np.allclose(table["campaign"], np.log(3))
    assert table["label"].tolist()[-2:] == ["no", "yes"]


def test_the_economy_is_what_changed_since_the_first_call(path: str) -> None:
    table = calls(path=path, window=5, of=5).to_pandas()
    last = {
        "employed": 100 * np.log(4950 / 5000),
        "prices": 100 * np.log(93 / 92),
        "employment": -2.9,
        "interest": -4.0,
        "confidence": -1.5,
    }
    for name, change in last.items():
        assert table[name].tolist() == pytest.approx([0, 0, 0, 0, change][-len(table) :])
    assert not [name for name in table if "." in name]
    assert table["age"].tolist() == pytest.approx([row / 10 - 4 for row in table["row"]])


def test_what_is_out_of_range_or_another_file_is_told(path: str, tmp_path: Path) -> None:
    for settings in (
        {"window": 0},
        {"window": 6},
        {"window": 1, "part": "history"},
        {"window": 2, "part": "old"},
        {"window": 2, "keep": 0},
    ):
        with pytest.raises(ConfigError, match="window is"):
            rows(path, **settings)
    (tmp_path / "other.csv").write_text("job;y\nadmin;no\n")
    with pytest.raises(DataError, match="no column 'age'"):
        rows(str(tmp_path / "other.csv"), window=2)
