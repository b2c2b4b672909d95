"""What a search does with its trials, by the real command; the trials themselves take no time."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hydra.core.override_parser.overrides_parser import OverridesParser

from perennial.sweeping.storage import alone
from support.trials import SHARE, champion, finished, quick, skipped

Verb = Callable[..., tuple[int, str, str]]
SEARCHED = f"{SHARE}=interval(0.1,0.8)"
GRID = ("-m", "sweep=optuna", "sweep.sampler=grid", "sweep.trials=null", "tracking=none")


@pytest.fixture(autouse=True)
def _founded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    champion(home)
    quick(monkeypatch)


def told(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("multirun/*/sweep.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def started(folder: Path) -> list[str]:
    return [n for one in folder.glob("multirun/*/started") for n in one.read_text().split()]


@pytest.mark.parametrize("name", ["..", "."])
def test_a_study_is_never_a_folder_above(verb: Verb, tmp_path: Path, name: str) -> None:
    kept = [tmp_path / "0" / "thesis.txt", tmp_path / "multirun" / "0" / "thesis.txt"]
    for path in kept:
        path.parent.mkdir(parents=True)
        path.write_text("years of work")
    code, _, errors = verb("train", *GRID, f"sweep.study={name}", f"{SHARE}=0.1,0.2")
    assert code == 1
    assert "sweep.study" in errors
    assert all(path.exists() for path in kept)


def test_what_a_sweep_did_not_make_is_never_removed(verb: Verb, tmp_path: Path) -> None:
    kept = tmp_path / "multirun" / "mine" / "1" / "thesis.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("years of work")
    code, _, errors = verb("train", *GRID, "sweep.study=mine", f"{SHARE}=0.1,0.2")
    assert code == 1
    assert "did not make" in errors
    assert kept.read_text() == "years of work"


def test_a_trial_gets_no_credit_for_another_ones_result(verb: Verb, tmp_path: Path) -> None:
    given = [*GRID, "sweep.study=mine", f"{SHARE}=0.1,0.2"]
    assert verb("train", *given, "sweep.storage=sqlite:///a.db")[0] == 0
    other = [*given[:-1], f"{SHARE}=0.7,0.8", "sweep.storage=sqlite:///b.db"]
    code, _, errors = verb("train", *other)
    assert code == 1
    assert "another sweep.study" in errors
    assert {one["params"][SHARE] for one in told(tmp_path)["trials"]} == {"0.1", "0.2"}
    # this very sweep, whose storage is gone: what its trials left is theirs
    assert verb("train", *given, "sweep.storage=sqlite:///c.db")[0] == 0
    assert started(tmp_path) == ["0", "1"]
    # a trial of the same number and other settings
    path = tmp_path / "multirun" / "mine" / "1" / "trial.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "params": {SHARE: "0.3"}}))
    assert verb("train", *given, "sweep.storage=sqlite:///d.db")[0] == 0
    assert started(tmp_path) == ["0", "1", "1"]


def test_a_new_lineage_of_the_same_name_is_another_sweep(
    verb: Verb, tmp_path: Path, home: Path
) -> None:
    assert verb("train", *GRID, f"{SHARE}=0.1,0.2")[0] == 0
    home.rename(tmp_path / "home.old")
    champion(home, seed=2)
    code, out, _ = verb("train", *GRID, f"{SHARE}=0.1,0.2")
    assert code == 0
    assert "goes on after" not in out
    assert len(list(tmp_path.glob("multirun/*/sweep.json"))) == 2
    assert len(started(tmp_path)) == 4


@pytest.mark.parametrize(
    ("given", "expected"), [(["sweep.promote=best"], 10), ([], 0), (["exit_zero=true"], 0)]
)
def test_where_no_row_is_new_one_look_ends_the_search(
    verb: Verb,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: list[str],
    expected: int,
) -> None:
    quick(monkeypatch, skipped)
    code, out, _ = verb("train", *GRID, f"{SHARE}=0.1,0.2,0.3", *given)
    assert code == expected
    assert "no row of data.new is new" in out
    assert started(tmp_path) == ["0"]
    quick(monkeypatch)  # as soon as there are new rows, the same command searches
    assert verb("train", *GRID, f"{SHARE}=0.1,0.2,0.3", "exit_zero=true")[0] == 0
    assert told(tmp_path)["counts"] == {"finished": 3, "pruned": 0, "failed": 0}


def test_a_champion_that_changes_meanwhile_stops_the_search(
    verb: Verb, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def promotes(given: dict[str, Any]) -> dict[str, Any]:
        champion(home, seed=2)
        return finished(given)

    quick(monkeypatch, promotes)
    code, _, errors = verb("train", *GRID, f"{SHARE}=0.1,0.2")
    assert code == 1
    assert "The champion was digits@1 when this sweep began; now it is digits@2" in errors
    assert started(tmp_path) == ["0"]


def test_two_sweeps_from_two_folders_share_no_study(verb: Verb, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/shared.db"
    given = [*GRID, "sweep.study=mine", f"{SHARE}=0.1,0.2", f"sweep.storage={storage}"]
    with alone(storage, "mine"):
        code, _, errors = verb("train", *given, "hydra.sweep.dir=elsewhere")
    assert code == 1
    assert "Another process is at this very sweep" in errors
    assert verb("train", *given, "hydra.sweep.dir=elsewhere")[0] == 0


def test_a_storage_that_is_lost_meanwhile_is_told_and_gone_on_with(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = f"sqlite:///{tmp_path}/shared.db"

    def breaks(given: dict[str, Any]) -> dict[str, Any]:
        (tmp_path / "shared.db").rename(tmp_path / "away.db")
        sa.create_engine(storage, poolclass=sa.NullPool).connect().close()
        return finished(given)

    quick(monkeypatch, breaks)
    given = [*GRID, f"{SHARE}=0.1,0.2", f"sweep.storage={storage}"]
    code, out, errors = verb("train", *given)
    assert code == 1
    assert "storage cannot be used" in out + errors
    assert "goes on where it stopped" in errors
    (tmp_path / "away.db").rename(tmp_path / "shared.db")
    quick(monkeypatch)
    assert verb("train", *given)[0] == 0
    assert started(tmp_path) == ["0", "1"]  # the first one is not trained again
    assert told(tmp_path)["counts"]["finished"] == 2


def test_tpe_searches_a_frontier_and_prunes(verb: Verb, tmp_path: Path) -> None:
    given = ["-m", "sweep=optuna", "sweep.trials=12", SEARCHED, "tracking=none"]
    code, out, errors = verb(
        "train", *given, "sweep.objectives=[retention,plasticity]", "sweep.pruner=median"
    )
    assert code == 0, errors
    found = told(tmp_path)
    assert found["settings"]["objectives"] == ["retention", "plasticity"]
    assert len({one["params"][SHARE] for one in found["trials"]}) == 12
    # what is learned costs retention here, so that nothing beats anything
    assert found["pareto"] == list(range(12))
    assert "on the Pareto set of retention and plasticity" in out
    (folder,) = tmp_path.glob("multirun/*/sweep.json")
    limits = [
        json.loads((folder.parent / str(number) / "trial.json").read_text())["limits"]
        for number in range(12)
    ]
    assert not any(limits[:5])
    assert set(limits[5]) == {"2", "4"}
    assert set(limits[5]["2"]) == {"retention", "plasticity"}


def test_the_chosen_one_goes_through_the_gate_with_its_notice(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gate(line: list[str], **given: Any) -> subprocess.CompletedProcess[bytes]:
        (tmp_path / "line.json").write_text(json.dumps(line))
        return subprocess.CompletedProcess(line, 21)

    monkeypatch.setattr(subprocess, "run", gate)
    notified = ["notify=command", "notify.command=[true]"]
    code, _, _ = verb("train", *GRID, f"{SHARE}=0.3,0.6", "sweep.promote=best", *notified)
    assert code == 21
    line = json.loads((tmp_path / "line.json").read_text())
    assert line[0] == sys.executable
    assert f"{SHARE}=0.6" in line
    assert set(notified) < set(line)
    assert not [word for word in line if word.startswith(("sweep", "trial="))]


def test_mix_is_a_command(verb: Verb, tmp_path: Path) -> None:
    code, out, _ = verb("train", "-m", "sweep=mix", "sweep.budget=0.05", "tracking=none")
    assert code == 0
    found = told(tmp_path)
    shares = [one["params"][SHARE] for one in found["trials"]]
    assert shares[:7] == [0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9]
    # 0.1 of retention is lost a whole share: half of the rows is what 0.05 allows
    assert found["chosen"]["command"].endswith(f"{SHARE}=0.5")
    assert "50% new and 50% replayed rows learn most" in " ".join(out.split())


def test_a_masked_command_can_still_be_read(verb: Verb, tmp_path: Path) -> None:
    url = 'notify.url="https://bob:hunter9@127.0.0.1:1/h?token=tok123"'
    assert verb("train", *GRID, f"{SHARE}=0.3,0.6", "notify=webhook", url)[0] == 0
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert b"hunter9" not in path.read_bytes(), path
    words = shlex.split(told(tmp_path)["chosen"]["command"])
    assert words[-1] == f"{SHARE}=0.6"
    assert OverridesParser.create().parse_overrides(words[-1:])


def test_experiments_on_other_rows_are_no_trials_of_one_search(
    verb: Verb, tmp_path: Path, home: Path
) -> None:
    own = tmp_path / "own" / "experiment"
    own.mkdir(parents=True)
    (own / "wider.yaml").write_text("# @package _global_\nmodel:\n  hidden: [8]\n")
    (own / "narrow.yaml").write_text("# @package _global_\nmodel:\n  hidden: [4]\n")
    (own / "other.yaml").write_text("# @package _global_\ndata:\n  new:\n    inverted: false\n")
    given = [f"--config-dir={own.parent}", *GRID]
    code, _, errors = verb("train", *given, "experiment=wider,other")
    assert code == 1
    assert "experiment=other changes data, which all trials share" in errors
    assert verb("train", *given, "experiment=wider,narrow")[0] == 0
