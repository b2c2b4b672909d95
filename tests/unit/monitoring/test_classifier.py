"""The classifier's test: honest where nothing moved, and it sees a correlation."""

from __future__ import annotations

import numpy as np
import pytest

from perennial.monitoring.classifier import classifier_test


@pytest.mark.slow
def test_p_values_are_at_most_what_they_say() -> None:
    generator = np.random.default_rng(0)
    first = np.arange(120) < 70
    p_values = np.array(
        [classifier_test(generator.normal(size=(120, 3)), first, seed=i)[1] for i in range(300)]
    )
    for level in (0.05, 0.2):
        assert (p_values <= level).mean() <= level + 2.5 * np.sqrt(level * (1 - level) / 300)
    assert (p_values <= 0.2).mean() > 0.08, "and not much less"


def test_a_change_of_the_correlation_alone_is_seen() -> None:
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(2, 400, 2))
    y[:, 1] = 0.8 * y[:, 0] + 0.6 * y[:, 1]
    area, p = classifier_test(np.concatenate([x, y]), np.arange(800) < 400)
    assert area > 0.6
    assert p < 1e-4


def test_sets_that_are_all_alike_tell_nothing() -> None:
    area, p = classifier_test(np.zeros((100, 2)), np.arange(100) < 50)
    assert (area, p) == (0.5, 1.0)
