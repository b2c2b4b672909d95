from __future__ import annotations

import math

import pytest

from perennial.data.datamodule import split_batch_size
from perennial.errors import ConfigError
from perennial.methods.replay import Replay


@pytest.mark.parametrize(
    ("fraction", "size", "expected"),
    [
        (0.2, 64, (13, 51)),
        (0.5, 10, (5, 5)),
        (0.01, 8, (1, 7)),
        (0.99, 8, (7, 1)),
        (0.2, 2, (1, 1)),
    ],
)
def test_counts(fraction: float, size: int, expected: tuple[int, int]) -> None:
    share = Replay(new_fraction=fraction).new_share(1000, 5)
    new = split_batch_size(size, share)
    assert (new, size - new) == expected


def test_a_batch_of_one_cannot_mix() -> None:
    with pytest.raises(ConfigError, match="batch"):
        split_batch_size(1, Replay().new_share(10, 10))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.1, math.nan])
def test_a_share_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"method\.replay\.new_fraction"):
        Replay(new_fraction=fraction)
