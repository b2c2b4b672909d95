import numpy as np

from perennial.data.rows import Rows
from perennial.steps.judge import join
from perennial.types import Predictions


def rows(ids, contents, clusters):
    return Rows({}, np.zeros(len(ids), dtype=np.int64), *map(np.array, (ids, contents, clusters)))


def test_copies_join_clusters_over_all_holdouts():
    held = {
        "new": (rows(["1", "2"], ["a", "b"], ["u3", "u2"]), np.array([False, False])),
        "history/cycle-1": (rows(["3", "4"], ["a", "c"], ["u1", "u4"]), np.array([True, False])),
    }
    predicted = Predictions(
        prediction=np.zeros(2, dtype=np.int64), score=np.ones(2), loss=np.zeros(2)
    )
    both = dict.fromkeys(held, predicted)
    report = join(held, champion=both, candidate=both, label_names=("x",))
    assert report.cluster.tolist() == ["u1", "u2", "u1", "u4"]
    assert report.row_id.tolist() == ["1", "2", "3", "4"]
    assert report.holdout.tolist() == ["new", "new", "history/cycle-1", "history/cycle-1"]
    assert report.seen_by_champion.tolist() == [False, False, True, False]
