from __future__ import annotations

import numpy as np
import pytest

from perennial.notation import confidence, percent, places_apart, points


@pytest.mark.parametrize("number", range(1, 31))
def test_a_confidence_tells_its_alpha(number: int) -> None:
    alpha = 0.05 / 2 ** (number - 1)
    shown = confidence(alpha)
    assert 100 - float(shown.removesuffix("%")) == pytest.approx(100 * alpha, rel=0.1001)
    assert len(shown) <= 5 + number / 3


def test_confidences_that_people_know() -> None:
    assert [confidence(alpha) for alpha in (0.05, 0.025, 0.1, 0.0005)] == [
        "95%",
        "97.5%",
        "90%",
        "99.95%",
    ]


def test_a_bound_never_looks_like_a_threshold_that_it_is_not() -> None:
    generator = np.random.default_rng(0)
    for distance in 10.0 ** generator.uniform(-12, 0, size=500):
        for sign in (-1, 1):
            for threshold in (0.0, -0.02, 0.013):
                bound = threshold + sign * distance
                places = places_apart([bound, 0.5], threshold)
                assert points(bound, places) != points(threshold, places)
                # and no more decimals than that takes
                if places > 1:
                    assert points(bound, places - 1) == points(threshold, places - 1)


def test_equal_values_may_look_equal() -> None:
    assert places_apart([-0.02, -0.02], -0.02) == 1
    assert places_apart([], 0.0) == 1


def test_zero_has_no_sign() -> None:
    assert [points(value) for value in (0.0, -0.0, 0.0004, -0.0004, 0.0006)] == [
        *["0.0"] * 4,
        "+0.1",
    ]
    assert percent(1.0) == "100.0%"


def test_single_precision_reads_like_double() -> None:
    for hits in range(2001):
        for least in (1, 2):
            exact = hits / 2000
            noisy = float(np.float32(hits) / np.float32(2000))
            assert percent(noisy, least) == percent(exact, least)
            assert points(noisy - float(np.float32(0.5)), least) == points(exact - 0.5, least)
