"""The matrix that a version carries: founding, cycles, a rollback, a test set given late."""

import numpy as np
import pytest

from perennial.steps.matrix import grown, measures, row
from perennial.types import EvaluationReport, Predictions


def report(new, scores):
    """Holdout to the champion's and the candidate's mean score, in tenths of ten rows."""
    names = list(scores)
    rows = np.repeat(names, 10)

    def model(who):
        score = np.concatenate([np.arange(10) < 10 * scores[name][who] - 0.5 for name in names])
        return Predictions(np.zeros(len(rows), dtype=np.int64), score.astype(float), 1.0 - score)

    text = np.array([f"r{number}" for number in range(len(rows))])
    return EvaluationReport(
        row_id=text,
        cluster=text,
        holdout=np.where(rows == new, "new", np.char.add("history/", rows)),
        label=np.zeros(len(rows), dtype=np.int64),
        seen_by_champion=np.zeros(len(rows), dtype=bool),
        champion=model(0),
        candidate=model(1),
        cycle_name=new,
    )


FOUNDED = [row(1, {"cycle-1": 0.9}, ["cycle-1"])]


def cycles(*told):
    """Rows after several cycles: (champion, new holdout, its scores, what else is learned)."""
    rows = FOUNDED
    for champion, new, scores in told:
        rows = grown(rows, report(new, scores), champion=champion, learned=[new])
    return rows


def test_a_founding_and_one_cycle():
    rows = cycles((1, "cycle-2", {"cycle-1": (0.9, 0.8), "cycle-2": (0.2, 0.7)}))
    found = measures(rows, {"cycle-2": 0.1})
    assert found["versions"] == [1, "candidate"]
    assert found["holdouts"] == ["cycle-1", "cycle-2"]
    assert found["matrix"] == [[0.9, 0.2], [0.8, 0.7]]
    assert found["forgetting"] == pytest.approx(0.1)
    assert found["backward_transfer"] == pytest.approx(-0.1)
    assert found["forward_transfer"] == pytest.approx(0.1)
    assert found["average_accuracy"] == pytest.approx(0.75)


def test_a_version_without_holdouts_is_still_the_first_row():
    scored = report("cycle-2", {"cycle-2": (0.3, 0.7)})
    rows = grown([row(1, {}, [])], scored, champion=1, learned=["cycle-2"])
    found = measures(rows, {"cycle-2": 0.1})
    assert found["matrix"] == [[0.3], [0.7]]
    assert found["forgetting"] is None
    assert found["backward_transfer"] is None
    assert found["forward_transfer"] == pytest.approx(0.2)


def test_columns_are_in_the_order_of_cycles_and_versions_in_that_of_the_line():
    scores = {f"cycle-{n}": (0.5, 0.5) for n in (1, 2, 9)}
    rows = cycles(
        (1, "cycle-2", {"cycle-1": (0.9, 0.8), "cycle-2": (0.2, 0.7)}),
        (2, "cycle-9", scores),
        (5, "cycle-10", {**scores, "cycle-10": (0.4, 0.6)}),
    )
    found = measures(rows, {})
    assert found["versions"] == [1, 2, 5, "candidate"]
    assert found["holdouts"] == ["cycle-1", "cycle-2", "cycle-9", "cycle-10"]
    assert found["matrix"][0] == [0.9, 0.2, None, None]
    assert found["matrix"][1] == [0.5, 0.5, 0.5, None]
    assert found["matrix"][2] == [0.5, 0.5, 0.5, 0.4]
    assert found["forward_transfer"] is None, "no untrained model was scored"


def test_after_a_rollback_the_next_version_learns_what_the_other_had():
    # version 2 learned cycle-2 and was rolled back; version 3 comes from version 1
    rows = grown(
        FOUNDED,
        report("cycle-3", {"cycle-1": (0.9, 0.7), "cycle-3": (0.2, 0.6)}),
        champion=1,
        learned=["cycle-3", "cycle-2"],
    )
    assert rows[-1]["learned"] == ["cycle-2", "cycle-3"]
    later = {"cycle-1": (0.7, 0.6), "cycle-2": (0.8, 0.5), "cycle-3": (0.6, 0.6)}
    rows = grown(
        rows,
        report("cycle-4", {**later, "cycle-4": (0.1, 0.9)}),
        champion=3,
        learned=["cycle-4"],
    )
    found = measures(rows, {"cycle-3": 0.1, "cycle-4": 0.1})
    assert found["versions"] == [1, 3, "candidate"]
    assert found["matrix"] == [
        [0.9, None, 0.2, None],
        [0.7, 0.8, 0.6, 0.1],
        [0.6, 0.5, 0.6, 0.9],
    ]
    # since cycle-1 was learned by version 1, and cycles 2 and 3 by version 3
    assert found["backward_transfer"] == pytest.approx(np.mean([-0.3, -0.3, 0.0]))
    assert found["forgetting"] == pytest.approx(np.mean([0.3, 0.3, 0.0]))
    # before version 3 learned it, cycle-3 was scored by version 1; cycle-2 by none
    assert found["forward_transfer"] == pytest.approx(np.mean([0.2 - 0.1, 0.1 - 0.1]))


def test_a_test_set_given_late_is_measured_from_the_champion_on():
    rows = grown(
        FOUNDED,
        report("cycle-3", {"cycle-1": (0.9, 0.9), "given-2": (0.6, 0.4), "cycle-3": (0.2, 0.6)}),
        champion=1,
        learned=["cycle-3"],
        given=["given-2"],
    )
    found = measures(rows, {"cycle-3": 0.1})
    assert found["holdouts"] == ["cycle-1", "given-2", "cycle-3"]
    assert found["backward_transfer"] == pytest.approx(np.mean([0.0, -0.2]))
    assert found["forward_transfer"] == pytest.approx(0.1)
    assert rows[0]["learned"] == ["cycle-1", "given-2"]
