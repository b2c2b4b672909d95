"""A run that a sweep started: pinned to its champion, pruned by its limits, scored by its rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from perennial.launch import run_job
from perennial.promotion.registry import Registry
from perennial.reporting.result import schema
from perennial.sweeping.trial import Outcome, Trial, outcome_of

Job = Callable[[Trial | None], dict[str, Any]]


@pytest.fixture
def job(compose: Callable[..., dict[str, Any]], tmp_path: Path) -> Job:
    """Runs one tiny cycle as a trial, or on its own."""
    count = iter(range(10))

    def run(trial: Trial | None) -> dict[str, Any]:
        folder = tmp_path / f"run-{next(count)}"
        folder.mkdir()
        given = []
        if trial is not None:
            trial.write(folder / "trial.json")
            given = [f"trial={folder}/trial.json"]
        short = ("trainer.max_steps=4", "trainer.validate_every=2", "trainer.accelerator=cpu")
        config = compose("tracking=none", *short, *given)
        run_job(config, folder=folder, multirun=False)
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
        jsonschema.validate(result, schema())
        return result

    return run


def test_a_trial_behind_its_limits_ends_pruned_and_leaves_nothing(job: Job, home: Path) -> None:
    result = job(Trial(limits={"2": {"combined": 2.0}}))
    assert (result["status"], result["exit_code"], result["candidate"]) == ("pruned", 0, None)
    assert [point["step"] for point in result["validation"]["curve"]] == [0, 2]
    registry = Registry(url=f"sqlite:///{home}/registry.db")
    assert [one.number for one in registry.versions("digits")] == [1]
    assert list(home.rglob("kept-*.safetensors")) == []
    told = outcome_of(result)
    assert told.state == "pruned"
    assert told.reason is not None
    assert "below 2" in told.reason


def test_a_trial_is_scored_by_its_sweeps_rule_and_moves_nothing(job: Job, home: Path) -> None:
    result = job(Trial(champion=None, choose="budget", budget=1.0))
    registry = Registry(url=f"sqlite:///{home}/registry.db")
    record = registry.cycles("digits")[-1]
    scores = result["validation"]["candidate"]
    assert record.trial
    assert record.objective == scores["new"]
    assert scores["combined"] == pytest.approx((scores["new"] + scores["history"]) / 2)
    assert registry.aliases("digits")["champion"] == 1
    told = outcome_of(result)
    assert (told.state, told.candidate, told.scores) == ("finished", "digits@2", scores)
    # run again, as by a sweep that was killed before it could read the result
    again = outcome_of(job(Trial(champion="digits@1", choose="budget", budget=1.0)))
    assert (again.state, again.candidate, again.scores) == ("finished", "digits@2", scores)


def test_a_trial_against_another_champion_is_refused(job: Job) -> None:
    result = job(Trial(champion="digits@7"))
    assert result["status"] == "failed"
    assert "digits@7" in result["error"]["what"]
    assert "begins a sweep against the new champion" in result["error"]["mend"]
    assert isinstance(outcome_of(result), Outcome)


def test_a_file_that_is_no_trial_is_refused(
    compose: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    config = compose("tracking=none", "trial=nowhere.json")
    result, _ = run_job(config, folder=tmp_path, multirun=False)
    assert (result["status"], result["error"]["where"]) == ("failed", "trial")
