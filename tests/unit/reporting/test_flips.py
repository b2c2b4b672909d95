from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perennial.reporting.flips import counts, examples
from perennial.types import EvaluationReport, Predictions


def report(champion: str, candidate: str, new: str) -> EvaluationReport:
    """A row for each letter: 1 is right, 0 wrong; ``n`` is a new row."""
    n = len(new)

    def predictions(scores: str) -> Predictions:
        score = np.array([float(one) for one in scores])
        return Predictions(score.astype(int), score, np.zeros(n))

    ids = np.array([f"r{i}" for i in range(n)])
    return EvaluationReport(
        row_id=ids,
        cluster=ids,
        holdout=np.where(np.array(list(new)) == "n", "new", "history/cycle-1"),
        label=np.ones(n, dtype=int),
        seen_by_champion=np.zeros(n, dtype=bool),
        champion=predictions(champion),
        candidate=predictions(candidate),
    )


def test_lost_and_gained_are_counted_and_drawn_on_one_scale() -> None:
    new, history = counts(report("1100" + "11", "0111" + "01", "nnnn" + "hh"))
    assert (new["part"], new["n"], new["lost"], new["gained"]) == ("new", 4, 1, 2)
    assert (history["part"], history["n"], history["lost"], history["gained"]) == (
        "history",
        2,
        1,
        0,
    )
    assert (new["net"], history["net"]) == (0.25, -0.5)
    # the same share is the same width, whatever the number of rows
    assert new["width"]["gained"] == history["width"]["lost"] == 2 * new["width"]["lost"]
    assert history["width"]["gained"] == 0
    assert history["width"]["lost"] <= 100


@pytest.mark.parametrize("part", ["n", "h"])
def test_a_part_without_rows_is_left_out_and_no_flip_is_no_bar(part: str) -> None:
    (only,) = counts(report("11", "11", 2 * part))
    assert only["part"] == {"n": "new", "h": "history"}[part]
    assert only["width"] == {"lost": 0, "gained": 0}


def test_an_example_shows_its_slices_before_its_columns() -> None:
    given = report("10", "01", "oo")
    given = replace(given, slices={"region": np.array(["west", ""])}, label_names=("no", "yes"))
    columns = {name: {"age": np.float64(7)} for name in given.row_id.tolist()}
    lost, gained = examples(given, columns, ("no", "yes"))
    assert lost["examples"][0]["values"] == [("region", "west"), ("age", "7")]
    assert gained["examples"][0]["values"] == [("age", "7")]
