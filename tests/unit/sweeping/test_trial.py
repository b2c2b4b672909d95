from __future__ import annotations

from pathlib import Path

from perennial.sweeping.trial import Outcome, Trial, outcome_of, read_trial
from support.trials import finished, skipped


def test_an_outcome_is_in_its_tasks_own_unit() -> None:
    result = {**finished({}), "task": {"unit": "nats"}}
    assert outcome_of(result).unit == "nats"
    assert outcome_of(finished({})).unit == "points"


def test_no_new_row_is_no_failure() -> None:
    told = outcome_of(skipped({}))
    assert (told.state, told.reason) == ("skipped", "no row of data.new is new")
    # decided before, as after a sweep that was killed: it has its candidate
    assert outcome_of({**finished({}), "status": "skipped"}).state == "finished"


def test_a_trial_is_the_same_whatever_prunes_it(tmp_path: Path) -> None:
    trial = Trial(champion="d@1", sweep="a", params={"lr": "0.1"}, limits={"2": {"combined": 1.0}})
    trial.write(tmp_path / "trial.json")
    read = read_trial(str(tmp_path / "trial.json"))
    assert Trial(champion="d@1", sweep="a", params={"lr": "0.1"}).same(read)
    assert not Trial(champion="d@1", sweep="a", params={"lr": "0.2"}).same(read)
    assert not Trial(champion="d@1", sweep="b", params={"lr": "0.1"}).same(read)
    assert not Trial(champion="d@2", sweep="a", params={"lr": "0.1"}).same(read)
    assert not trial.same(None)
    assert isinstance(outcome_of(finished({})), Outcome)
