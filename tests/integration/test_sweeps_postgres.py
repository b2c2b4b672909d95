"""A sweep's trials on a real PostgreSQL server."""

from __future__ import annotations

import pytest

from support.postgres import BINARIES
from support.sweeps import kill_and_resume, params

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BINARIES, reason="PostgreSQL server not installed"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def test_twenty_trials_killed_twice_end_as_twenty(url: str) -> None:
    ended = kill_and_resume(url, seed=0)
    assert len(set(params(ended))) == len(ended) == 20
    assert {one.outcome.state for one in ended} == {"finished"}
