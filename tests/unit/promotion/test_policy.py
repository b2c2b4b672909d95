"""What a policy refuses, and how it says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perennial.errors import ConfigError
from perennial.promotion.policy import Bound, Policy
from perennial.promotion.requirements import require_slices

F1 = {"metric": "MulticlassF1Score", "limit": 0.6}


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"score": "accuracy"}, "gate.score"),
        ({"score": "loss"}, "gate.retention.total"),
        ({"retention": {"margin": 0.05}}, "gate.retention.total"),
        ({"retention": {"total": 0.01}}, "gate.retention.total"),
        ({"retention": {"total": 1}}, "gate.retention.total"),
        ({"retention": {"weights": "age"}}, "gate.retention.weights"),
        ({"retention": {"half_life": 0}}, "gate.retention.half_life"),
        ({"retention": {"half_life": float("inf")}}, "gate.retention.half_life"),
        ({"retention": {"half_life": 2, "weights": "cycles"}}, "gate.retention.half_life"),
        ({"retention": {"window": 0}}, "gate.retention.window"),
        ({"retention": {"window": 1.5}}, "gate.retention.window"),
        ({"slices": {"margin": 0}}, "gate.slices.margin"),
        ({"slices": {"minimum_rows": 1}}, "gate.slices.minimum_rows"),
        ({"slices": {"minimum_rows": True}}, "gate.slices.minimum_rows"),
        ({"slices": {"classes": "yes"}}, "gate.slices.classes"),
        ({"slices": {"columns": "region"}}, "gate.slices.columns"),
        ({"slices": {"columns": ["region", "region"]}}, "gate.slices.columns"),
        ({"slices": {"column": ["region"]}}, "gate.slices.column"),
        ({"slices": ["region"]}, "gate.slices"),
        ({"bounds": F1}, "gate.bounds"),
        ({"bounds": [F1, F1]}, "gate.bounds"),
        ({"bounds": [{"metric": "MulticlassF1Score"}]}, "gate.bounds[0]"),
        ({"bounds": [F1, {**F1, "over": "new"}]}, "gate.bounds[1].over"),
        ({"bounds": [{**F1, "metric": "F1 score"}]}, "gate.bounds.metric"),
        ({"bounds": [{**F1, "rows": "old"}]}, "gate.bounds.rows"),
        ({"bounds": [{**F1, "limit": float("nan")}]}, "gate.bounds.limit"),
        ({"bounds": [{**F1, "limit": "0.6"}]}, "gate.bounds.limit"),
        ({"bounds": [{**F1, "arguments": ["macro"]}]}, "gate.bounds.arguments"),
        ({"calibration": {"ece": 0}}, "gate.calibration.ece"),
        ({"calibration": {"loss": -1}}, "gate.calibration.loss"),
        ({"calibration": {"nll": 0.1}}, "gate.calibration.nll"),
        ({"serving": {"latency_p50": 0}}, "gate.serving.latency_p50"),
        ({"serving": {"latency": 2}}, "gate.serving.latency"),
        ({"sanity": {"constant": 1}}, "gate.sanity.constant"),
        ({"sanity": {"leak": 0}}, "gate.sanity.leak"),
        ({"sanity": {"gap": "0.1"}}, "gate.sanity.gap"),
        ({"flips": 0}, "gate.flips"),
        ({"flips": 1}, "gate.flips"),
        ({"checks": {"_target_": "x"}}, "gate.checks"),
        ({"checks": [3]}, "gate.checks[0]"),
    ],
)
def test_contradictions_and_wrong_values_are_refused(settings: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Policy(**settings)
    assert caught.value.where == where
    assert caught.value.mend


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="'limit'"):
        Policy(bounds=[{"metric": "MulticlassF1Score"}])


def test_a_bound_s_key_knows_arguments_and_rows_and_not_the_limit() -> None:
    keys = [
        Bound(**F1).key,
        Bound(**{**F1, "limit": 0.7}).key,
        Bound(**F1, arguments={"average": "macro", "top_k": 2}).key,
        Bound(**F1, arguments={"top_k": 2, "average": "macro"}).key,
        Bound(**F1, rows="history").key,
    ]
    assert (keys[0] == keys[1], keys[2] == keys[3]) == (True, True)
    assert len(set(keys)) == 3
    policy = Policy(bounds=[F1, {**F1, "rows": "history"}])
    assert [bound.rows for bound in policy.bounds] == ["new", "history"]


def test_slices_are_known_before_training() -> None:
    columns = {"region": ["north", "south", ""], "class": ["a"], "id": map(str, range(51))}
    require_slices(Policy(slices={"columns": ["region"]}), columns)
    require_slices(Policy(), {"region": np.array(["north"])})
    for name, words in {
        "land": "no slice column 'land'",
        "class": "confused with the slices by true label",
        "id": "51 values",
    }.items():
        with pytest.raises(ConfigError, match=words) as caught:
            require_slices(Policy(slices={"columns": [name]}), columns)
        assert caught.value.where == "gate.slices.columns"
        assert caught.value.mend
    with pytest.raises(ConfigError, match="51 values"):
        require_slices(Policy(), {"id": map(str, range(51))})
