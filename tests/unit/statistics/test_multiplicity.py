"""Holm's adjustment."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from perennial import statistics


@pytest.mark.parametrize(
    "p_values",
    [[0.2], [0.01, 0.04, 0.03], [0.5, 0.5, 0.001, 0.9], [1.0, 1.0], [0.02, 0.02, 0.02, 0.0]],
)
def test_holm_is_the_step_down_adjustment(p_values: list[float]) -> None:
    expected = multipletests(p_values, method="holm")[1]
    np.testing.assert_allclose(statistics.holm(p_values), expected, rtol=1e-12)
