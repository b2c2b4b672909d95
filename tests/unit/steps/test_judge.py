from dataclasses import replace

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from perennial.data.rows import Rows
from perennial.errors import ConfigError
from perennial.promotion.policy import Policy
from perennial.steps.judge import aggregate, distinct, join, require_measurable
from perennial.tasks.classification import Classification
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
    report = join(held, champion=both, candidate=both, label_names=("x",), task=Classification())
    assert report.cluster.tolist() == ["u1", "u2", "u1", "u4"]
    assert report.row_id.tolist() == ["1", "2", "3", "4"]
    assert report.holdout.tolist() == ["new", "new", "history/cycle-1", "history/cycle-1"]
    assert report.seen_by_champion.tolist() == [False, False, True, False]


def sliced_rows(ids, **slices):
    return replace(rows(ids, ids, ids), slices={name: np.array(v) for name, v in slices.items()})


def test_slice_columns_are_those_of_the_new_rows_and_empty_where_an_older_holdout_lacks_them():
    held = {
        "new": (sliced_rows(["1", "2"], country=["de", ""]), np.zeros(2, dtype=bool)),
        "history/cycle-1": (sliced_rows(["3", "4"], plan=["a", "b"]), np.zeros(2, dtype=bool)),
        "history/cycle-2": (sliced_rows(["5", "6"], country=["fr", "x"]), np.zeros(2, dtype=bool)),
    }
    predicted = Predictions(np.zeros(2, dtype=np.int64), np.ones(2), np.zeros(2))
    both = dict.fromkeys(held, predicted)
    report = join(
        held,
        champion=both,
        candidate=both,
        label_names=("x",),
        cycle_name="cycle-3",
        task=Classification(),
    )
    assert {name: values.tolist() for name, values in report.slices.items()} == {
        "country": ["de", "", "", "", "fr", "x"]
    }
    assert report.cycle.tolist() == [f"cycle-{number}" for number in (3, 3, 1, 1, 2, 2)]


def test_copies_without_ids_of_their_own_are_told_apart():
    assert distinct(np.array(["b", "a", "b", "b", "c", "a"])).tolist() == [
        *("b", "a", "b#2", "b#3", "c", "a#2"),
    ]
    alone = np.array(["b", "a"])
    assert distinct(alone) is alone


def test_aggregates_say_the_calibration_error_where_there_are_probabilities():
    generator = np.random.default_rng(0)
    raw = generator.random((400, 3)).astype(np.float32)
    probabilities, label = raw / raw.sum(axis=1, keepdims=True), generator.integers(0, 3, 400)
    prediction = probabilities.argmax(axis=1)
    predicted = Predictions(prediction, (prediction == label).astype(float), label + 0.5)
    mask = np.arange(400) < 300
    plain = aggregate(predicted, label, mask, Classification(), 3)
    assert "ece" not in plain
    assert plain["n"] == 300
    assert plain["loss"] == pytest.approx((label[:300] + 0.5).mean())
    known = replace(predicted, probabilities=probabilities)
    told = aggregate(known, label, mask, Classification(), 3)
    reference = MulticlassCalibrationError(num_classes=3, n_bins=15, norm="l1")
    expected = reference(torch.from_numpy(probabilities[:300]), torch.from_numpy(label[:300]))
    assert told["ece"] == pytest.approx(float(expected), abs=1e-6)


def test_what_a_policy_asks_and_the_rows_do_not_have_is_refused():
    new = sliced_rows(["1", "2"], country=["de", "fr"])
    old = sliced_rows(["3"], plan=["a"])
    require_measurable(Policy(), [new, old], classes=3)
    with pytest.raises(ConfigError, match="no slice column 'plan'"):
        require_measurable(Policy(slices={"columns": ["plan"]}), [new, old], classes=3)
    bound = {"metric": "MulticlasF1Score", "limit": 0.5}
    with pytest.raises(ConfigError, match="did you mean MulticlassF1Score"):
        require_measurable(Policy(bounds=[bound]), [new], classes=3)


def test_a_limit_in_percent_is_told_from_a_share():
    new = sliced_rows(["1", "2"], country=["de", "fr"])
    require_measurable(Policy(bounds=[{"metric": "MulticlassAUROC", "limit": 1}]), [new], classes=3)
    with pytest.raises(ConfigError, match=r"its limit is 80(.|\n)*write 0.8 for 80%"):
        require_measurable(
            Policy(bounds=[{"metric": "MulticlassF1Score", "limit": 80}]), [new], classes=3
        )
