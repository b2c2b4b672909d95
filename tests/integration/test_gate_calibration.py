"""The gate's calibration, in a tiny form: that its draws are what they claim, and that it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import gate_calibration
import gate_series as made
from gate_figures import at_margin, counted, equal_candidate, over_cycles


@pytest.mark.parametrize("together", [0.0, 0.5])
def test_drawn_scores_differ_as_said(together: float) -> None:
    generator = np.random.default_rng(0)
    cluster = np.arange(40_000).repeat(3)
    champion, candidate = made.binary(
        generator, cluster, discordance=0.1, difference=-0.02, together=together
    )
    sign = candidate - champion
    assert float(sign.mean()) == pytest.approx(-0.02, abs=0.005)
    assert float(np.abs(sign).mean()) == pytest.approx(0.1, abs=0.007)
    within = sign.reshape(-1, 3)
    alike = float(np.mean(within[:, 0] * within[:, 1]) - sign.mean() ** 2) / float(sign.var())
    assert alike == pytest.approx(together**2, abs=0.03)


@pytest.mark.parametrize("shape", ["normal", "lognormal", "minus lognormal"])
def test_drawn_means_differ_as_said(shape: str) -> None:
    generator = np.random.default_rng(0)
    champion, candidate = made.continuous(
        generator, np.arange(400_000), shape=shape, difference=-0.02, scale=0.5
    )
    difference = candidate - champion
    skewness = float(np.mean((difference - difference.mean()) ** 3)) / float(difference.std()) ** 3
    assert float(difference.mean()) == pytest.approx(-0.02, abs=0.01)
    assert np.sign(round(skewness)) == {"normal": 0, "lognormal": 1}.get(shape, -1)


def test_a_successor_differs_in_truth_as_said() -> None:
    generator = np.random.default_rng(0)
    right = (generator.random(400_000) < 0.9).astype(float)
    after = made.successor(generator, right, accuracy=0.9, discordance=0.05, difference=-0.01)
    assert float((after - right).mean()) == pytest.approx(-0.01, abs=0.002)
    assert float(np.abs(after - right).mean()) == pytest.approx(0.05, abs=0.002)


def test_figures_come_from_the_gate() -> None:
    found = counted(n=600, discordance=0.1, series=400, seed=0)
    assert found["differ"] == 0
    assert found["rate"] < 0.1 < 0.3 < found["naive"]
    worse = at_margin(
        name="far worse",
        sizes=("single", 500),
        draw=lambda generator, cluster, difference: made.binary(
            generator, cluster, discordance=0.3, difference=-0.2
        ),
        series=5,
        seed=0,
    )
    assert worse["rate"] == worse["naive"] == worse["differ"] == 0


def test_losses_add_up_without_a_total_and_not_with_it() -> None:
    found = over_cycles(discordance=0.025, series=4, seed=0)
    assert found["points lost, gate"] < 4 < found["points lost, one cycle's test"]
    assert found["points lost, naive"] == 12


def test_an_equal_candidate_is_asked_of_ten_holdouts() -> None:
    found = equal_candidate(holdouts=10, n=600, discordance=0.04, series=4, seed=0)
    assert found["rate"] == 1 > found["each must pass"]


def test_it_writes_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = gate_calibration.works(2)

    def fewer(series: int) -> list[Any]:
        return [every[0], *({part: (part, work) for part, work in every}).values()]

    monkeypatch.setattr(gate_calibration, "works", fewer)
    with pytest.raises(SystemExit):
        gate_calibration.main(["--workers", "1", "--json", str(tmp_path / "found.json")])
    record = json.loads((tmp_path / "found.json").read_text())
    assert [one["name"] for one in record["bars"]] == [
        "false promotion at the margin, 0/1 scores",
        "false promotion at the margin, continuous scores",
        "false promotion at the margin, clusters",
        "series that the whole decision judges otherwise",
        "never more than three points lost in twelve cycles",
        "an equal candidate passes retention on ten holdouts",
        "power, realised against stated",
    ]
    assert {row["part"] for row in record["rows"]} == {part for part, _ in every}
    assert all({"rate", "error", "series", "naive"} <= set(row) for row in record["rows"])
