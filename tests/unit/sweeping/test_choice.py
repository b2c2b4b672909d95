from __future__ import annotations

import numpy as np
import optuna
import pytest

from perennial.sweeping.choice import Rule, best, objective_values, pareto


@pytest.mark.parametrize("seed", range(10))
def test_the_pareto_set_is_optunas(seed: int) -> None:
    # few values, so that there are ties
    points = np.random.default_rng(seed).integers(0, 6, (25, 2)).astype(float).tolist()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["maximize", "maximize"])
    for point in points:
        study.tell(study.ask(), point)
    assert pareto(points) == sorted(trial.number for trial in study.best_trials)


def test_the_budget_is_held_at_its_very_edge() -> None:
    rule = Rule(choose="budget", budget=0.01)
    champion = {"new": 0.1, "history": 0.9, "combined": 0.5}
    assert rule.value({"new": 0.7, "history": 0.89}, champion) == 0.7
    assert rule.value({"new": 0.7, "history": 0.8899}, champion) is None
    assert rule.value({"new": 0.7}, champion) is None
    assert Rule().value({"new": 0.7, "history": 0.1, "combined": 0.4}, champion) == 0.4


def test_of_equal_ones_the_first() -> None:
    assert best([None, 0.3, 0.5, 0.5]) == 2
    assert best([None]) is None


def test_an_objective_that_was_not_measured_is_none() -> None:
    assert objective_values({"new": 0.5}, ["retention"]) is None
    assert objective_values({"new": 0.5, "history": 0.1}, ["retention", "plasticity"]) == [0.1, 0.5]
