"""The loop over trials: every setting once, gone on with as if it had never been stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from perennial.errors import ConfigError, RegistryError
from perennial.sweeping.mix import SHARE
from perennial.sweeping.pruning import Limits
from perennial.sweeping.space import Parameter
from perennial.sweeping.storage import alone, sqlite, unusable
from perennial.sweeping.study import Job
from perennial.sweeping.trial import Outcome
from support.sweeps import SPACE, kill_and_resume, params, run, study, trained


class Stop(BaseException):
    pass


@pytest.mark.parametrize("sampler", ["random", "tpe"])
@pytest.mark.parametrize("objectives", [["combined"], ["retention", "plasticity"]])
@pytest.mark.parametrize("jobs", [1, 3])
def test_a_sweep_that_was_stopped_draws_what_it_would_have(
    tmp_path: Path, sampler: str, objectives: list[str], jobs: int
) -> None:
    given = {"sampler": sampler, "objectives": objectives, "jobs": jobs, "trials": 15}
    given |= {"pruner": "median"}
    whole = study(sqlite(tmp_path / "whole"), **given).run(run)
    storage, count = sqlite(tmp_path / "stopped"), 0

    def stops(jobs: Sequence[Job], limits: Limits) -> list[Outcome]:
        nonlocal count
        count -= 1
        if count < 0:
            raise Stop
        return run(jobs, limits)

    for groups in (2, 1):
        count = groups
        with pytest.raises(Stop):
            study(storage, **given).run(stops)
    parts = study(storage, **given).run(run)
    assert params(parts) == params(whole)
    assert len(set(params(parts))) == 15
    assert [one.outcome for one in parts] == [one.outcome for one in whole]


def test_another_seed_draws_others(tmp_path: Path) -> None:
    first = study(sqlite(tmp_path), name="a", sampler="random", trials=3).run(run)
    other = study(sqlite(tmp_path), name="b", sampler="random", trials=3, seed=1).run(run)
    assert not set(params(first)) & set(params(other))


def test_a_grid_is_run_whole_and_each_point_once(tmp_path: Path) -> None:
    space = [
        Parameter(name="x", choices=("0.1", "0.5", "0.1")),
        Parameter(name="n", low=1, high=3, step=1, integer=True),
    ]
    ended = study(sqlite(tmp_path), space, sampler="grid", trials=None, jobs=4).run(run)
    assert len(set(params(ended))) == len(ended) == 6
    assert {type(one.params["n"]) for one in ended} == {int}


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_small_space_ends_when_it_was_searched(tmp_path: Path, sampler: str) -> None:
    space = [Parameter(name="x", choices=("0.1", "0.2", "0.3"))]
    ended = study(sqlite(tmp_path), space, sampler=sampler, trials=20, jobs=2).run(run)
    assert sorted(one.params["x"] for one in ended) == ["0.1", "0.2", "0.3"]


def test_mix_looks_around_the_best_share(tmp_path: Path) -> None:
    given = {"sampler": "mix", "trials": None, "choose": "budget", "values": [0.1, 0.3, 0.5]}
    ended = study(sqlite(tmp_path), [], **given, refine=1).run(run)
    assert [one.params[SHARE] for one in ended] == [0.1, 0.3, 0.5, 0.2]


def test_failed_trials_are_recorded_and_the_sweep_goes_on(tmp_path: Path) -> None:
    def fails(jobs: Sequence[Job], limits: Limits) -> list[Outcome]:
        return [
            Outcome(state="failed", reason="out of memory") if n == 1 else trained(p, limits)
            for n, p in jobs
        ]

    ended = study(sqlite(tmp_path), sampler="random", trials=4).run(fails)
    assert [one.outcome.state for one in ended] == ["finished", "failed", "finished", "finished"]
    assert ended[1].outcome.reason == "out of memory"


def test_pruned_trials_end_as_such(tmp_path: Path) -> None:
    for objectives in (["combined"], ["retention", "plasticity"]):
        name = "-".join(objectives)
        given = {"sampler": "random", "trials": 20, "pruner": "median", "objectives": objectives}
        ended = study(sqlite(tmp_path), SPACE[:1], name=name, **given).run(run)
        states = [one.outcome.state for one in ended]
        # new grows and history falls with x: where both count, none is behind in both
        assert ("pruned" in states[5:]) == (len(objectives) == 1)
        assert set(states[:5]) == {"finished"}


def test_another_sweep_under_the_same_name_is_refused(tmp_path: Path) -> None:
    storage = sqlite(tmp_path)
    study(storage, sampler="random")
    with pytest.raises(ConfigError, match="space differ"):
        study(storage, SPACE[:1], sampler="random")
    with pytest.raises(ConfigError, match="another sweep"):
        study(storage, sampler="random", objectives=["retention", "plasticity"])


@pytest.mark.parametrize(
    "storage",
    [
        "postgresql+psycopg://team:s3cret@127.0.0.1:1/sweeps",
        "sqlite:////nowhere/at/all.db",
        "no url",
        "nosuch://a:s3cret@b/c",
        "postgresql://a:s3cret@b:s3cret/c",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://a:s3cret@b/c",
    ],
)
def test_a_storage_that_cannot_be_used_is_told_without_its_password(storage: str) -> None:
    with pytest.raises(RegistryError) as refused:
        study(storage)
    assert "sweep.storage" in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("seed", range(3))
def test_twenty_trials_killed_twice_end_as_twenty(tmp_path: Path, seed: int) -> None:
    ended = kill_and_resume(sqlite(tmp_path), seed)
    assert len(set(params(ended))) == len(ended) == 20
    assert {one.outcome.state for one in ended} == {"finished"}


def test_a_short_password_leaves_the_message_whole() -> None:
    said = OSError("connection to 127.0.0.1 failed for 1; retry postgresql://a:1@127.0.0.1/s")
    told = str(unusable("postgresql://a:1@127.0.0.1/s", said))
    assert "connection to 127.0.0.1 failed for ***" in told
    assert ":1@" not in told


def test_one_process_at_a_time_is_at_a_study(tmp_path: Path) -> None:
    storage = sqlite(tmp_path)
    with alone(storage, "a"):
        with alone(storage, "b"):
            pass
        with pytest.raises(RegistryError, match="Another process"), alone(storage, "a"):
            pass
    with alone(storage, "a"):
        pass


def test_a_setting_is_drawn_once_in_a_group(tmp_path: Path) -> None:
    space = [Parameter(name="x", low=1, high=6, step=1, integer=True)]
    groups: list[list[object]] = []

    def keeps(jobs: Sequence[Job], limits: Limits) -> list[Outcome]:
        groups.append([params["x"] for _, params in jobs])
        return run(jobs, limits)

    study(sqlite(tmp_path), space, sampler="random", trials=6, jobs=6).run(keeps)
    assert all(len(set(group)) == len(group) for group in groups)
    assert sorted(x for group in groups for x in group) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("jobs", [1, 3])
def test_trials_side_by_side_keep_away_from_each_other(tmp_path: Path, jobs: int) -> None:
    """What is still running counts as a bad one, or TPE would draw a group in one spot."""
    sampler = study(sqlite(tmp_path), sampler="tpe", jobs=jobs)._sampler(0)
    assert sampler._constant_liar == (jobs > 1)
