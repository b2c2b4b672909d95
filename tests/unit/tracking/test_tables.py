from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perennial.promotion.gate import decide
from perennial.tracking.tables import checks, flips, slices
from support.reports import BETTER, KEPT, bare, make_report


def test_slices_are_means_over_their_rows() -> None:
    report = make_report((20, 2, 100), (0, 6, 60))
    place = np.array(["a", "b", ""] * 54)[: len(report)]
    report = replace(report, slices={"place": place, "user": report.row_id})
    found = slices(report)
    assert found.columns == ("rows", "column", "value", "n", "champion", "candidate", "change")
    expected = []
    for part, within in (("new", report.is_new), ("history", ~report.is_new)):
        for column, values in (("place", place), ("class", np.full(len(report), "yes"))):
            for value in sorted(set(values[within].tolist()) - {""}):
                rows = [i for i in range(len(report)) if within[i] and values[i] == value]
                before = sum(report.champion.score[rows]) / len(rows)
                after = sum(report.candidate.score[rows]) / len(rows)
                expected.append([part, column, value, len(rows), before, after, after - before])
    assert len(found.rows) == len(expected) == 6
    for row, one in zip(found.rows, expected, strict=True):
        assert row[:4] == one[:4]
        assert row[4:] == pytest.approx(one[4:])


def test_flips_are_the_rows_that_one_model_alone_has_right() -> None:
    report = make_report((20, 2, 100), (3, 6, 60))
    found = flips(report).rows
    assert len(found) == 31
    kinds = [(row[1], row[3]) for row in found]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        ("history", "lost"): 6, ("history", "gained"): 3, ("new", "lost"): 2, ("new", "gained"): 20,
    }  # fmt: skip
    for row_id, _, holdout, word, label, champion, candidate in found:
        row = report.row_id.tolist().index(row_id)
        assert holdout == report.holdout[row]
        assert label == "yes"
        assert (champion, candidate) == (("yes", "no") if word == "lost" else ("no", "yes"))


def test_flips_are_bounded_and_none_of_the_four_kinds_is_crowded_out() -> None:
    report = make_report((500, 2, 600), (300, 400, 800))
    found = flips(report, most=40).rows
    kinds = [(row[1], row[3]) for row in found]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        ("history", "lost"): 13, ("history", "gained"): 12, ("new", "lost"): 2,
        ("new", "gained"): 13,
    }  # fmt: skip
    assert len(found) == 40
    assert len(flips(report).rows) == 200


def test_rows_without_a_class_of_their_own_do_not_flip() -> None:
    report = replace(make_report(BETTER), label_names=(), target_kind="number")
    assert flips(report).rows == []
    assert slices(report).rows == []


def test_checks_are_those_of_the_decision() -> None:
    decision = decide(make_report(BETTER, KEPT), bare(), decision_number=1)
    found = checks(decision.to_dict())
    assert [row[:2] for row in found.rows] == [[c.name, c.outcome] for c in decision.checks]
    interval = next(c.interval for c in decision.checks if c.name == "improvement")
    row = next(row for row in found.rows if row[0] == "improvement")
    assert tuple(row[3:5]) == interval
