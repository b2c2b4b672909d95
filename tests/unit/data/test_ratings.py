"""Ratings: weeks of time, and what each user had rated before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perennial.data.ratings import ratings
from perennial.errors import ConfigError, DataError

DAY = 24 * 3600
# user, film, day; not in order of time
LINES = [
    ("1", "0007", 8), ("1", "0003", 0), ("2", "0003", 6.9), ("1", "0005", 7), ("2", "0009", 14),
    ("3", "0005", 20), ("1", "0002", 15),
]  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> str:
    lines = [f"{user}::{film}::8::{int(1000 + DAY * day)}" for user, film, day in LINES]
    (tmp_path / "ratings.dat").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "ratings.dat")


def films(path: str, **settings: Any) -> list[str]:
    found: list[str] = ratings(path=path, **settings)["next_item"][:]
    return found


def test_a_week_is_seven_days_from_the_first_rating(path: str) -> None:
    weeks = [films(path, week=week) for week in (1, 2, 3)]
    assert weeks == [["0003", "0003"], ["0005", "0007"], ["0009", "0002", "0005"]]
    assert films(path, week=3, keep=2) == weeks[1] + weeks[2]
    assert films(path, week=3, part="history", keep=None) == weeks[0] + weeks[1]
    assert films(path, week=3, part="history") == weeks[1]


def test_each_rating_has_what_its_user_rated_before(path: str) -> None:
    table = ratings(path=path, week=3, keep=None).to_dict()
    assert table["user"] == ["1", "2", "1", "1", "2", "1", "3"]
    assert table["items"][:3] == [[], [], ["0003"]]
    assert table["items"][5] == ["0003", "0005", "0007"]
    assert table["items"][6] == []
    assert table["rating"] == [str(number) for number in range(7)]
    assert ratings(path=path, week=3, length=2)["items"][1] == ["0005", "0007"]
    later = ratings(path=path, week=3)
    assert later["rating"][0] == "4", "a rating keeps its number whatever is taken"


def test_what_cannot_be_is_refused(path: str, tmp_path: Path) -> None:
    for wrong in (
        {"week": 0}, {"week": 1, "part": "history"}, {"week": 2, "part": "old"},
        {"week": 2, "keep": 0}, {"week": 2, "length": 0},
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            ratings(path=path, **wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no week 4"):
        ratings(path=path, week=4)
    with pytest.raises(DataError, match="cannot be read"):
        ratings(path=str(tmp_path / "none.dat"), week=1)
    other = tmp_path / "films.dat"
    other.write_text("0007::A film (1999)::Drama\n")
    with pytest.raises(DataError, match="cannot be read"):
        ratings(path=str(other), week=1)
