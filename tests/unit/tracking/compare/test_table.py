"""Rows: their order, what they are paired with, what is said about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perennial.errors import ConfigError
from perennial.tracking.compare.folders import given, read, search
from perennial.tracking.compare.runs import Run, Unread
from perennial.tracking.compare.table import Comparison, compare_runs
from perennial.tracking.compare.versions import once
from support.compared import make_result, make_run

REGRESSION = {"kind": "number", "score": "r2", "unit": ""}


def names(found: Comparison) -> list[str]:
    return [row.run.name for row in found.rows]


def test_the_best_scores_come_first() -> None:
    runs = [make_run(2, new=0.5), make_run(3, new=0.9), make_run(4, new=0.7, history=0.95)]
    assert names(compare_runs(runs)) == ["runs/3", "runs/4", "runs/2"]
    assert names(compare_runs(runs, reverse=True)) == ["runs/2", "runs/4", "runs/3"]


def test_any_key_sorts_and_what_lacks_it_comes_last() -> None:
    runs = [make_run(2, config={"k": 1}), make_run(3), make_run(4, config={"k": 5})]
    assert names(compare_runs(runs, sort="config.k")) == ["runs/4", "runs/2", "runs/3"]
    assert names(compare_runs(runs, sort="k", reverse=True)) == ["runs/2", "runs/4", "runs/3"]
    assert names(compare_runs(runs, sort="candidate.id")) == ["runs/2", "runs/3", "runs/4"]
    with pytest.raises(ConfigError, match=r"did you mean cost\.wall_seconds"):
        compare_runs(runs, sort="wall_secs")
    mixed = [make_run(2, config={"k": 1}), make_run(3, config={"k": "one"})]
    with pytest.raises(ConfigError, match="a text in some runs"):
        compare_runs(mixed, sort="k")


def test_where_keeps_what_passes() -> None:
    runs = [make_run(2, new=0.5), make_run(3, trial=True), make_run(4, status="promoted")]
    found = compare_runs(runs, where="metrics.candidate.new.accuracy>0.8 and trial=false")
    assert names(found) == ["runs/4"]
    assert not compare_runs(runs, where="verdict=inconclusive").rows


def failed() -> Run:
    error = {"what": "No disk.", "where": None, "mend": None}
    blank = dict.fromkeys(("candidate", "champion", "metrics", "decision", "cost", "task"))
    return Run("runs/9", {**make_result(9), **blank, "status": "failed", "error": error})


def test_a_failed_run_is_told_and_not_dropped() -> None:
    found = compare_runs([make_run(2), failed()], [Unread("runs/8", "torn")])
    assert names(found) == ["runs/2"]
    assert [(one.name, one.why) for one in found.unread] == [
        ("runs/9", "failed: No disk."),
        ("runs/8", "torn"),
    ]
    assert not compare_runs([failed()]).rows


def test_other_scores_are_compared_by_what_they_share() -> None:
    runs = [make_run(2, new=0.6), make_run(3, task=REGRESSION, model_name="other", new=0.9)]
    found = compare_runs(runs)
    assert found.score is not None
    assert (found.score.name, found.score.own) == ("loss", False)
    assert names(found) == ["runs/3", "runs/2"]  # the lower loss first
    assert found.rows[0].levels["new"].value == pytest.approx(0.1)
    assert found.rows[0].levels["new"].interval is None
    said = " ".join(found.notes)
    assert "2 lineages: m, other" in said
    assert "different scores (accuracy, r2): all have loss" in said
    for run in runs:
        for part in ("new", "history"):
            run.result["metrics"]["candidate"][part].pop("loss")
    nothing = compare_runs(runs)
    assert nothing.score is None
    assert "they share no metric" in " ".join(nothing.notes)


def test_levels_on_other_rows_and_missing_pairs_are_said() -> None:
    same = compare_runs([make_run(2), make_run(3)])
    assert not any("not all on the same rows" in note for note in same.notes)
    assert any(note.startswith("1 of 1 have no paired difference") for note in same.notes)
    moved = make_run(3, data={"new": {"rows": 10, "sha256": "b"}})
    told = compare_runs([make_run(2), moved], copies=4).notes
    assert "Levels on new rows are not all on the same rows: read the paired difference." in told
    assert "Copies of runs shown that are left out: 4." in told
    assert not any("on history are not" in note for note in told)


def test_the_champion_of_all_is_shown_where_it_is_one() -> None:
    found = compare_runs([make_run(2), make_run(3)])
    assert found.champion is not None
    assert found.champion[0] == "m@1"
    assert found.champion[1]["new"].value == 0.5
    assert compare_runs([make_run(2), make_run(3, champion={"id": "m@2"})]).champion is None


def test_a_cycle_is_shown_once() -> None:
    copy = Run("elsewhere", make_result(2))
    assert once([make_run(2), make_run(3), copy]) == ([make_run(2), make_run(3)], 1)
    # runs without a score are told one by one
    assert once([failed(), Run("runs/10", failed().result)])[1] == 0


def write(folder: Path, result: Any) -> None:
    folder.mkdir(parents=True)
    text = result if isinstance(result, str) else json.dumps(result)
    (folder / "result.json").write_text(text)


def test_runs_are_found_below_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "multirun" / "a" / "10", make_result())
    write(tmp_path / "multirun" / "a" / "2", make_result())
    (tmp_path / "multirun" / "b" / ".hydra").mkdir(parents=True)
    write(tmp_path / ".hidden" / "c", make_result())
    write(tmp_path / "multirun" / "a" / "2" / "wandb" / "copy", make_result())
    found = [path.relative_to(tmp_path).as_posix() for path in search(tmp_path)]
    assert found == ["multirun/a/10", "multirun/a/2", "multirun/b"]
    assert given(tmp_path / "multirun" / "a" / "2" / "result.json") == [
        tmp_path / "multirun" / "a" / "2"
    ]
    with pytest.raises(ConfigError, match="There is no run folder"):
        given(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="There is no run in"):
        given(tmp_path / "empty")


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ("{", "cannot be read"),
        ("[]", "no mapping"),
        ("{}", "there is no status"),
        (json.dumps(make_result(metrics={"candidate": 3})), "metrics hold no candidate"),
        (json.dumps(make_result(decision=None)), "metrics without a decision"),
        (json.dumps(make_result(cost={"wall_seconds": "long"})), "a cost is no number"),
        (json.dumps(make_result(metrics={"candidate": {"new": {"n": "2"}}})), "no number"),
        (json.dumps(make_result(metrics={"candidate": {"new": 1}})), "metrics are no mappings"),
        (json.dumps(make_result(cost=[1])), "cost is no mapping"),
        (json.dumps(make_result(decision={"verdict": "rejected"})), "charged nothing"),
    ],
)
def test_a_torn_result_is_told(result: str, why: str, tmp_path: Path) -> None:
    write(tmp_path / "run", result)
    found = read(tmp_path / "run")
    assert isinstance(found, Unread)
    assert why in found.why


def test_a_run_without_a_result_is_told(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    found = read(tmp_path)
    assert isinstance(found, Unread)
    assert "killed, or runs still" in found.why
