"""Limits and the rule that compares with them, against Optuna's own pruner."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from perennial.sweeping.pruning import limits, verdict

CHAMPION = {"step": 0, "new": 0.9, "history": 0.9, "combined": 0.9}


def curve(values: list[float]) -> list[dict[str, float]]:
    points = [
        {"step": 10 * (place + 1), "new": value, "history": value, "combined": value}
        for place, value in enumerate(values)
    ]
    return [CHAMPION, *points]


@pytest.mark.parametrize("warmup", [0, 20])
@pytest.mark.parametrize("seed", range(20))
def test_the_rule_is_that_of_optunas_median_pruner(seed: int, warmup: int) -> None:
    draw = np.random.default_rng(seed)
    earlier = [draw.uniform(0, 1, 5).tolist() for _ in range(6)]
    candidate = draw.uniform(0, 0.7, 5).tolist()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=warmup)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for values in earlier:
        trial = study.ask()
        for place, value in enumerate(values):
            trial.report(value, 10 * (place + 1))
        study.tell(trial, values[-1])
    trial = study.ask()
    bounds = limits([curve(v) for v in earlier], objectives=["combined"], warmup=warmup)
    for place, value in enumerate(candidate):
        trial.report(value, 10 * (place + 1))
        ours = verdict(curve(candidate[: place + 1]), bounds) is not None
        assert ours == trial.should_prune(), place


def test_few_trials_prune_nothing() -> None:
    assert limits([curve([0.9])] * 4, objectives=["combined"]) == {}


def test_one_good_objective_is_enough_to_go_on() -> None:
    earlier = [[CHAMPION, {"step": 10, "new": 0.5, "history": 0.5}] for _ in range(5)]
    bounds = limits(earlier, objectives=["retention", "plasticity"])
    for new, history, stops in ((0.1, 0.1, True), (0.6, 0.1, False), (0.1, 0.6, False)):
        reason = verdict([CHAMPION, {"step": 10, "new": new, "history": history}], bounds)
        assert (reason is not None) == stops
        if reason:
            assert "retention 0.1 below 0.5, plasticity 0.1 below 0.5" in reason
    assert verdict([CHAMPION, {"step": 20, "new": 0.0, "history": 0.0}], bounds) is None


def test_the_champions_own_score_keeps_no_trial_alive() -> None:
    bounds = limits([curve([0.5])] * 5, objectives=["combined"])
    assert verdict(curve([0.4]), bounds) is not None


def test_as_good_as_the_median_goes_on() -> None:
    bounds = limits([curve([0.5])] * 5, objectives=["combined"])
    assert verdict(curve([0.5]), bounds) is None
