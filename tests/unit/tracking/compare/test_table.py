"""Rows: their order, what they are paired with, what is said about them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from perennial.errors import ConfigError
from perennial.promotion import predictions
from perennial.tracking.compare.folders import given, read, search
from perennial.tracking.compare.runs import Run, Unread
from perennial.tracking.compare.table import Comparison, compare_runs
from perennial.tracking.compare.versions import once
from perennial.types import EvaluationReport, Predictions
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
        ("{}", "it has no status"),
        (json.dumps(make_result(metrics={"candidate": 3})), "metrics has no champion"),
        (json.dumps(make_result(decision=None)), "metrics without a decision"),
        (json.dumps(make_result(cost={"wall_seconds": "long"})), "cost.wall_seconds is no number"),
        (json.dumps(make_result(metrics={"candidate": {"new": {"n": "2"}}})), "no champion"),
        (json.dumps(make_result(metrics={"candidate": {"new": 1}})), "metrics has no champion"),
        (json.dumps(make_result(cost=[1])), "cost is no mapping"),
        (json.dumps(make_result(decision={"verdict": "rejected"})), "decision has no applied"),
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


def stored(run: Run, folder: Path, ids: str, *, before: float, after: float) -> Run:
    """The run with a version whose stored scores are of 100 new rows, named after ``ids``."""
    names = np.array([f"{ids}{i}" for i in range(100)])

    def model(share: float) -> Predictions:
        score = (np.arange(100) < 100 * share).astype(np.float64)
        return Predictions(prediction=score.astype(np.int64), score=score, loss=1 - score)

    report = EvaluationReport(
        row_id=names,
        cluster=names,
        holdout=np.full(100, "new"),
        label=np.ones(100, dtype=np.int64),
        seen_by_champion=np.zeros(100, dtype=np.bool_),
        champion=model(before),
        candidate=model(after),
        label_names=("no", "yes"),
    )
    path = folder / f"{run.candidate}.parquet"
    path.write_bytes(predictions.write(report)[predictions.ROWS])
    version: Any = SimpleNamespace(
        id=run.candidate, files={predictions.ROWS: "0"}, open=lambda _: path
    )
    return replace(run, version=version)


def test_a_run_is_paired_with_the_one_that_followed_it(tmp_path: Path) -> None:
    first = stored(make_run(2), tmp_path, "a", before=0.5, after=0.7)
    later = stored(make_run(3, champion={"id": "m@2"}), tmp_path, "b", before=0.6, after=0.9)
    pairs = {row.run.candidate: row.against for row in compare_runs([first, later]).rows}
    # on the later one's rows, where both were scored: as champion and as candidate
    assert pairs["m@3"] == {}
    assert pairs["m@2"]["new"].value == pytest.approx(-0.3)
    turned = compare_runs([first, later], against=first)
    found = {row.run.candidate: row.against for row in turned.rows}
    assert found["m@3"]["new"].value == pytest.approx(0.3)
    low, high = found["m@3"]["new"].interval or (0.0, 0.0)
    assert pairs["m@2"]["new"].interval == pytest.approx((-high, -low))


def test_an_id_of_another_registry_is_not_the_champion_that_was_met(tmp_path: Path) -> None:
    mine = stored(make_run(2, new=0.6), tmp_path, "a", before=0.5, after=0.7)
    stranger = make_run(1, new=0.99, history=0.99)  # m@1 too, of which no version is here
    found = {row.run.candidate: row.against for row in compare_runs([mine, stranger]).rows}
    assert found == {"m@1": {}, "m@2": {}}
    # where it is of this registry it is the champion that was met, stored scores or none
    here: Any = SimpleNamespace(id="m@1", files={})
    known = replace(stranger, version=here)
    found = {row.run.candidate: row.against for row in compare_runs([mine, known]).rows}
    assert found["m@2"]["new"].value == pytest.approx(0.2)
