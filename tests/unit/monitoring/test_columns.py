"""Draws of many divisions at once, against each division on its own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from perennial.data.columns import TEXT
from perennial.monitoring.columns import CategoryColumn, NumberColumn
from perennial.statistics.categories import Categories
from perennial.statistics.numbers import NumberReference, Numbers


def masks(rows: int, size: int, draws: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    generator = np.random.default_rng(5)
    found = np.zeros((draws, rows), dtype=bool)
    for one in found:
        one[generator.permutation(rows)[:size]] = True
    return found


@pytest.mark.parametrize("kind", ["normal", "counts", "gaps", "constant"])
def test_numbers(kind: str) -> None:
    generator = np.random.default_rng(0)
    values = {
        "normal": generator.normal(size=300),
        "counts": generator.poisson(2, 300).astype(float),
        "gaps": np.where(generator.random(300) < 0.2, np.nan, generator.normal(size=300)),
        "constant": np.ones(300),
    }[kind]
    drawn = masks(300, 80, 20)
    column = NumberColumn("x", values)
    found = column.drawn(drawn)
    assert len(found) == (2 if kind == "gaps" else 1)
    for row, one in enumerate(drawn):
        window = Numbers(NumberReference(values[~one]))
        window.add(values[one])
        assert found[0][row] == pytest.approx(window.p_value(), rel=0.01, abs=1e-12)


def test_categories() -> None:
    generator = np.random.default_rng(0)
    values = np.array(["", "a", "b", "c"]).astype(TEXT)[
        generator.choice(4, 300, p=[0.1, 0.5, 0.3, 0.1])
    ]
    drawn = masks(300, 80, 20)
    p_values, gaps = CategoryColumn("x", values).drawn(drawn)
    for row, one in enumerate(drawn):
        parts = []
        for part in (values[~one], values[one]):
            names, counts = np.unique(part[part != ""], return_counts=True)
            parts.append(dict(zip(names.tolist(), counts.tolist(), strict=True)))
        both = Categories.of(*parts)
        assert p_values[row] == pytest.approx(both.p_value(), rel=1e-5)
        missing = Categories.of(
            *(
                {"yes": int((values[m] == "").sum()), "no": int((values[m] != "").sum())}
                for m in (~one, one)
            )
        )
        assert gaps[row] == pytest.approx(missing.p_value(), rel=1e-5)


def test_unseen_categories_are_those_that_no_row_of_the_cycle_had() -> None:
    column = CategoryColumn(
        "x", np.array(["a"] * 50 + ["b"] * 50).astype(TEXT), {"a": 60, "rare": 2}
    )
    stream = column.start()
    stream.add({"a": 30, "rare": 5, "new": 10, "": 5})
    shift, missing = stream.tests(count=50)
    assert shift.detail["unseen_names"] == {"new": 10}
    assert shift.detail["unseen"] == pytest.approx(10 / 45)
    assert (missing.detail["then"], missing.detail["now"]) == (0, 0.1)
    _, fewer = stream.tests(count=20)
    expected = stats.chi2_contingency([[0, 100], [2, 18]], correction=False).pvalue
    assert fewer.alarm_p == pytest.approx(expected)
    assert fewer.p == missing.p < fewer.alarm_p


def test_what_cannot_be_compared_is_said() -> None:
    nothing = NumberColumn("x", np.full(100, np.nan)).start()
    nothing.add(np.arange(10.0))
    assert "missing in every row of the reference" in str(nothing.note())
    assert [one.test for one in nothing.tests(count=10)] == ["missing"]
    constant = NumberColumn("x", np.ones(100)).start()
    constant.add(np.array([1.0, 2.0]))
    assert constant.note() == "constant in the reference, at 1"
    empty = NumberColumn("x", np.arange(100.0)).start()
    empty.add(np.full(10, np.nan))
    assert empty.note() == "missing in every row of the window"
    assert [one.test for one in empty.tests(count=10)] == ["missing"]
