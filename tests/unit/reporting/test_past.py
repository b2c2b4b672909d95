from __future__ import annotations

from typing import Any

import pytest

from perennial.reporting.past import heat_map, measures


def forgetting(size: int) -> dict[str, Any]:
    return {
        "average_accuracy": 0.93,
        "forgetting": -0.004,
        "backward_transfer": None,
        "forward_transfer": 0.3,
        "matrix": [
            [0.9 if j <= i else 0.5 if j == i + 1 else None for j in range(size)]
            for i in range(size)
        ],
        "versions": [f"m@{i + 1}" for i in range(size)],
        "holdouts": [f"cycle-{i + 1}" for i in range(size)],
    }


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_cells_say_their_version_and_holdout() -> None:
    shown = heat_map(forgetting(3))
    assert shown is not None
    first = shown["rows"][0]
    assert first["version"] == "m@1"
    assert [cell["text"] for cell in first["cells"]] == ["90.0", "50.0", ""]
    assert first["cells"][1]["words"] == "m@1 on cycle-2: 50.0%"
    assert first["cells"][2]["words"] == "m@1 on cycle-3: not measured"


@pytest.mark.parametrize(("size", "text"), [(8, "90.0"), (9, "90"), (16, "90"), (17, "")])
def test_numbers_stand_where_they_fit(size: int, text: str) -> None:
    shown = heat_map(forgetting(size))
    assert shown is not None
    assert shown["rows"][-1]["cells"][0]["text"] == text


def test_one_version_has_no_map_and_an_old_lineage_shows_its_newest() -> None:
    assert heat_map(forgetting(1)) is None
    shown = heat_map(forgetting(50))
    assert shown is not None
    assert (shown["left_out"], len(shown["rows"]), len(shown["holdouts"])) == (10, 40, 40)
    assert (shown["holdouts"][-1], shown["rows"][-1]["version"]) == ("cycle-50", "m@50")


def test_numbers_can_be_read_on_their_colours() -> None:
    given = forgetting(2)
    for value in range(101):
        shown = heat_map({**given, "matrix": [[0.0, 1.0], [value / 100, None]]})
        assert shown is not None
        cell = shown["rows"][1]["cells"][0]
        light, dark = sorted((luminance(cell["fill"]), luminance(cell["ink"])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, value


def test_a_point_lost_does_not_look_like_a_fall() -> None:
    shown = heat_map({**forgetting(2), "matrix": [[0.95, 0.94], [0.95, 0.95]]})
    assert shown is not None
    assert shown["ends"] == pytest.approx((0.75, 0.95))


def test_measures_are_those_that_are_known() -> None:
    told = {
        one["name"]: one["value"]
        for one in measures(forgetting(2), {"score": "accuracy", "unit": "points"})
    }
    assert told == {
        "average accuracy": "93.0%",
        "forgetting": "0.4 points gained",
        "forward transfer": "+30.0 points",
    }


@pytest.mark.parametrize(
    ("lost", "words"), [(0.012, "1.2 points lost"), (-0.3, "30.0 points gained"), (0.0, "none")]
)
def test_forgetting_says_whether_it_is_a_loss(lost: float, words: str) -> None:
    given = {**forgetting(2), "forgetting": lost}
    told = measures(given, {"score": "accuracy", "unit": "points"})
    assert next(one["value"] for one in told if one["name"] == "forgetting") == words
