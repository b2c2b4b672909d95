"""Shifts of numbers, met in chunks, against SciPy on all values at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from perennial.statistics import numbers
from perennial.statistics.categories import population_stability
from perennial.statistics.numbers import NumberReference, Numbers, ks_p_value, number_shift


def met(reference: Any, values: Any, *, chunks: int = 1) -> Numbers:
    found = Numbers(NumberReference(reference))
    for part in np.array_split(np.asarray(values, dtype=float), chunks):
        found.add(part)
    return found


DRAWS = {
    "normal": lambda g, k: g.normal(0.1, 1.2, k),
    "counts": lambda g, k: g.poisson(3, k).astype(float),
    "heavy": lambda g, k: 1e6 + g.standard_t(2, k),
    "constant": lambda g, k: np.full(k, 2.5),
    "binary": lambda g, k: g.integers(0, 2, k).astype(float),
}


@pytest.mark.parametrize("then", DRAWS)
@pytest.mark.parametrize("now", DRAWS)
@pytest.mark.parametrize("chunks", [1, 7])
def test_equal_to_scipy(then: str, now: str, chunks: int) -> None:
    generator = np.random.default_rng(0)
    old, new = DRAWS[then](generator, 700), DRAWS[now](generator, 300)
    found = met(old, new, chunks=chunks)
    expected = stats.ks_2samp(old, new, method="asymp")
    assert found.ks == pytest.approx(expected.statistic, abs=1e-12)
    assert found.p_value() == pytest.approx(expected.pvalue, rel=1e-9, abs=1e-300)
    distance = stats.wasserstein_distance(old, new)
    assert found.wasserstein == pytest.approx(distance, rel=1e-12, abs=1e-12)
    assert found.wasserstein_error == 0
    if len(np.unique(old)) > 1:
        assert found.effect == pytest.approx(distance / old.std(), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("then", DRAWS)
@pytest.mark.parametrize("now", DRAWS)
def test_wasserstein_of_a_stream_lies_within_its_bounds(
    then: str, now: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbers, "EXACT", 10)
    generator = np.random.default_rng(1)
    old, new = DRAWS[then](generator, 500), DRAWS[now](generator, 4000)
    found = met(old, new, chunks=9)
    exact = stats.wasserstein_distance(old, new)
    slack = 1e-12 * max(1.0, np.abs(old).max(), np.abs(new).max()) * 10
    assert abs(found.wasserstein - exact) <= found.wasserstein_error + slack
    if then == "normal":
        # where the reference is dense, an error that says nothing would be no bound to speak of
        assert found.wasserstein_error <= 0.02 * old.std() + slack
    if then in ("counts", "constant", "binary") and now == then:
        assert found.wasserstein_error <= slack, "between neighbours there is nothing"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=12),
    st.lists(st.floats(-4, 4), min_size=1, max_size=30),
)
def test_bounds_hold_for_any_values(old: list[float], new: list[float]) -> None:
    found = met(old, new, chunks=min(3, len(new)))
    exact = stats.wasserstein_distance(old, new)
    assert found.wasserstein == pytest.approx(exact, abs=1e-12)
    middle, error = found._bounded()
    assert error >= -1e-12
    assert abs(middle - exact) <= error + 1e-9
    at = np.sort([*old, *new])
    steps = [np.searchsorted(np.sort(part), at, "right") / len(part) for part in (old, new)]
    assert found.ks == pytest.approx(np.abs(steps[0] - steps[1]).max(), abs=1e-12)


def test_an_effect_of_a_constant_column_is_the_share_that_differs() -> None:
    assert met(np.zeros(50), [0.0] * 30 + [1.0] * 10).effect == pytest.approx(0.25)
    assert met(np.zeros(50), np.zeros(10)).effect == 0


def test_missing_values_are_counted_and_otherwise_left_out() -> None:
    generator = np.random.default_rng(2)
    old, new = generator.normal(size=200), generator.normal(size=100)
    gaps = np.concatenate([new[:50], [np.nan] * 30, new[50:], [np.nan] * 5])
    found, whole = met(np.append(old, np.nan), gaps, chunks=3), met(old, new)
    assert (found.missing, found.count, found.reference.missing) == (35, 100, 1)
    assert (found.ks, found.psi, found.wasserstein) == (whole.ks, whole.psi, whole.wasserstein)


def test_stability_is_over_the_tenths_of_the_reference() -> None:
    generator = np.random.default_rng(0)
    old, new = generator.normal(size=5000), generator.normal(0.3, 1.2, size=3000)
    edges = np.sort(old)[499:4999:500]
    counts = []
    for values in (old, new):
        bins = np.searchsorted(edges, values, side="left")
        counts.append(np.bincount(bins, minlength=10))
    assert number_shift(old, new)["psi"] == pytest.approx(population_stability(*counts))
    assert number_shift(old, old) == {"psi": 0.0, "ks": 0.0}
    constant = np.zeros(100)
    assert number_shift(constant, constant) == {"psi": 0.0, "ks": 0.0}
    assert number_shift(constant, constant + 1)["psi"] > 1
    assert number_shift(constant, constant - 1)["psi"] > 1


def test_the_p_value_of_fewer_rows_is_larger() -> None:
    found = met(np.arange(100), np.arange(100) + 20.0)
    assert found.p_value(20) == pytest.approx(float(ks_p_value(found.ks, 100, 20)))
    assert found.p_value(20) > found.p_value()
