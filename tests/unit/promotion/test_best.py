"""The best champion ever, against brute force over the whole line of versions."""

import numpy as np
import pytest

from perennial.errors import EvaluationError
from perennial.promotion.best import read, so_far, to_parquet

ROWS = 12


def scores(seed):
    """Five versions' scores (5, 5, ROWS) on the holdouts of five cycles."""
    return np.random.default_rng(seed).integers(0, 2, size=(5, 5, ROWS)).astype(float)


def rows(cycles, order=slice(None), gone=()):
    kept = np.array([f"r{row}" for row in range(ROWS) if row not in gone])[order]
    holdout = np.repeat([f"cycle-{cycle}" for cycle in cycles], len(kept))
    return holdout, np.tile(kept, len(cycles))


def on(table, version, holdout, row_id):
    cycle = [int(name[6:]) - 1 for name in holdout]
    return np.array([table[version, c, int(row[1:])] for c, row in zip(cycle, row_id, strict=True)])


def cycle_of(table, stored, champion, holdout, row_id, tmp_path):
    """One cycle: the report's best, and what its candidate carries, as the next cycle reads it."""
    best = so_far(
        stored,
        holdout=holdout,
        row_id=row_id,
        champion=on(table, champion, holdout, row_id),
        number=champion + 1,
    )
    path = tmp_path / "best.parquet"
    path.write_bytes(to_parquet(best))
    return best, read(path)


def brute(table, line, holdout, row_id):
    """Of a line's versions, the first with the highest mean on each holdout.

    The first to be scored on cycle k's holdout was the champion that cycle k retrained.
    """
    score, number = np.empty(len(row_id)), {}
    for name in dict.fromkeys(holdout.tolist()):
        mask = holdout == name
        asked = [version for version in line if version >= int(name[6:]) - 2]
        found = [on(table, version, holdout[mask], row_id[mask]) for version in asked]
        winner = int(np.argmax([one.mean() for one in found]))
        score[mask], number[name] = found[winner], asked[winner] + 1
    return score, number


@pytest.mark.parametrize("seed", range(25))
def test_a_line_of_five_versions_by_brute_force(seed, tmp_path):
    table, stored = scores(seed), None
    order = np.random.default_rng(seed + 100)
    for champion in range(4):
        holdout, row_id = rows(range(1, champion + 3), order.permutation(ROWS))
        best, stored = cycle_of(table, stored, champion, holdout, row_id, tmp_path)
        old = holdout != f"cycle-{champion + 2}"  # on new rows no earlier champion was scored
        score, number = brute(table, range(champion + 1), holdout[old], row_id[old])
        assert best.score[old].tolist() == score.tolist()
        assert {name: best.versions[name] for name in number} == number


@pytest.mark.parametrize("seed", range(10))
def test_after_a_rollback_the_versions_beside_the_line_do_not_count(seed, tmp_path):
    table, stored, files = scores(seed), None, {}
    for champion, candidate in ((0, 1), (1, 2)):
        holdout, row_id = rows(range(1, candidate + 2))
        _, stored = cycle_of(table, stored, champion, holdout, row_id, tmp_path)
        files[candidate] = stored
    # version 2 serves again; version 3 and its holdout are out of the line
    holdout, row_id = rows([1, 2, 4])
    best, file = cycle_of(table, files[1], 1, holdout, row_id, tmp_path)
    old = holdout != "cycle-4"
    score, number = brute(table, [0, 1], holdout[old], row_id[old])
    assert best.score[old].tolist() == score.tolist()
    assert {name: best.versions[name] for name in number} == number
    holdout, row_id = rows([1, 2])
    best, _ = cycle_of(table, file, 3, holdout, row_id, tmp_path)
    score, number = brute(table, [0, 1, 3], holdout, row_id)
    assert best.score.tolist() == score.tolist()
    assert best.versions == number


def test_a_row_that_is_gone_and_one_that_the_file_lacks(tmp_path):
    table = np.zeros((2, 5, ROWS))
    table[0, 0] = 1.0
    holdout, row_id = rows([1], gone=(4,))
    _, stored = cycle_of(table, None, 0, holdout, row_id, tmp_path)
    assert set(stored.version.tolist()) == {1}
    holdout, row_id = rows([1], gone=(7,))
    best = so_far(
        stored,
        holdout=holdout,
        row_id=row_id,
        champion=on(table, 1, holdout, row_id) + 0.25,
        number=2,
    )
    expected = [0.25 if row == "r4" else 1.0 for row in row_id]
    assert best.score.tolist() == expected
    assert best.versions == {"cycle-1": 1}


def test_where_rows_are_gone_another_champion_may_be_the_best(tmp_path):
    table = np.zeros((2, 5, ROWS))
    table[0, 0, :8], table[1, 0, 4:11] = 1.0, 1.0
    holdout, row_id = rows([1])
    _, stored = cycle_of(table, None, 0, holdout, row_id, tmp_path)
    assert cycle_of(table, stored, 1, holdout, row_id, tmp_path)[0].versions == {"cycle-1": 1}
    holdout, row_id = rows([1], gone=(0, 1, 2))
    best, _ = cycle_of(table, stored, 1, holdout, row_id, tmp_path)
    assert best.versions == {"cycle-1": 2}
    assert best.score.tolist() == on(table, 1, holdout, row_id).tolist()


def test_equal_means_leave_the_earlier_champion():
    holdout, row_id = rows([1])
    flat = np.full(ROWS, 0.5)
    best = so_far(None, holdout=holdout, row_id=row_id, champion=flat, number=3)
    assert best.against(flat[::-1], 4).versions == {"cycle-1": 3}


def test_a_file_that_is_no_file_of_scores_is_refused(tmp_path):
    holdout, row_id = rows([1])
    best = so_far(None, holdout=holdout, row_id=row_id, champion=np.ones(ROWS), number=1)
    whole = to_parquet(best)
    for content in (b"", b"text", whole[: len(whole) // 2]):
        path = tmp_path / "best.parquet"
        path.write_bytes(content)
        with pytest.raises(EvaluationError, match="best champion's scores cannot be read"):
            read(path)
