"""Parts of a permutation against what a permutation is."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from perennial.data.permutation import EXACT, PART, permuted

LARGE = [EXACT + 1, 100_000, 1 << 17, (1 << 17) + 1]


@pytest.mark.parametrize("rows", [1, 2, 7, EXACT, *LARGE])
def test_every_row_has_one_place(rows: int) -> None:
    found = permuted((3, 0, 1), rows, 0, rows)
    assert np.array_equal(np.sort(found), np.arange(rows))


@pytest.mark.parametrize("rows", [1000, LARGE[1]])
def test_parts_make_up_the_whole_wherever_they_are_cut(rows: int) -> None:
    whole = permuted((3, 0, 1), rows, 0, rows)
    cuts = ((0, 1), (rows - 3, 10), (rows, 5), (PART - 7, 3 * PART), (PART, PART), (PART, 0))
    for start, count in cuts:
        assert np.array_equal(permuted((3, 0, 1), rows, start, count), whole[start : start + count])


def test_a_small_one_is_numpys_own_shuffle() -> None:
    expected = np.random.Generator(np.random.PCG64([3, 0, 1])).permutation(1000)
    assert np.array_equal(permuted((3, 0, 1), 1000, 0, 1000), expected)


def test_where_a_row_goes_tells_nothing_of_where_it_was() -> None:
    rows, take = 100_000, 50_000
    found = permuted((5, 0, 0), rows, 0, rows)
    spots = [found[:take], np.diff(found)[:take] % rows, (found - np.arange(rows))[:take] % rows]
    for values in spots:
        counts = np.histogram(values, bins=100, range=(0, rows))[0]
        assert stats.chisquare(counts).pvalue > 1e-3
    for lag in (1, 2, 64, 4096):
        assert abs(np.corrcoef(found[:-lag], found[lag:])[0, 1]) < 0.02
    # neighbours among the sources keep no distance either
    places = np.argsort(found)
    assert stats.chisquare(np.histogram(np.diff(places) % rows, bins=100)[0]).pvalue > 1e-3


def test_first_rows_over_keys_are_uniform_and_of_independent_keys() -> None:
    rows = 100_000
    first = [permuted((seed, 0, 0), rows, 0, 2).tolist() for seed in range(4000)]
    for values in np.array(first).T:
        assert stats.chisquare(np.histogram(values, bins=50, range=(0, rows))[0]).pvalue > 1e-3
    assert not np.array_equal(permuted((0, 0, 0), rows, 0, 99), permuted((0, 0, 1), rows, 0, 99))


def test_a_part_of_ten_billion_rows_takes_no_memory() -> None:
    script = (
        "import resource, numpy as np\n"
        "from perennial.data.permutation import permuted\n"
        "permuted((0,), 1 << 20, 0, 1)\n"
        "now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10\n"
        "limit = now + (64 << 20)\n"
        "found = permuted((0,), 10**10, 7 * 10**9, 50_000)\n"
        "assert len(np.unique(found)) == 50_000 and found.max() > 2**32\n"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10 < limit\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
