from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from perennial import statistics


@pytest.mark.parametrize("threshold", [-0.4, 0.0, 0.3])
def test_rows_alone_get_welch_s_test(threshold: float) -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(0.3, 1, 40), generator.normal(0, 2, 90)
    found = statistics.unpaired_difference(
        x, np.arange(40), y, np.arange(90), alpha=0.05, threshold=threshold
    )
    expected = stats.ttest_ind(x - threshold, y, equal_var=False, alternative="greater")
    assert found.estimate == pytest.approx(x.mean() - y.mean())
    assert found.p_above == pytest.approx(expected.pvalue)
    assert found.p_above + found.p_below == pytest.approx(1)
    interval = stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.9)
    assert found.interval == pytest.approx((interval.low, interval.high))


def test_copies_count_once() -> None:
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=30), generator.normal(size=20)
    once, often = (
        statistics.unpaired_difference(
            x.repeat(k),
            np.arange(30).repeat(k),
            y.repeat(k),
            np.arange(20).repeat(k),
            alpha=0.05,
            threshold=0.1,
        )
        for k in (1, 9)
    )
    assert often.p_above == pytest.approx(once.p_above)
    assert often.interval == pytest.approx(once.interval)


@pytest.mark.parametrize(("shift", "above"), [(0.5, 0.0), (0.2, 1.0)])
def test_constants_differ_or_do_not(shift: float, above: float) -> None:
    found = statistics.unpaired_difference(
        np.full(5, shift), np.arange(5), np.zeros(4), np.arange(4), alpha=0.05, threshold=0.2
    )
    assert (found.p_above, found.interval) == (above, (shift, shift))
