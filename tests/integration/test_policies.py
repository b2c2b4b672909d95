"""`perennial backtest`: policies over small windows, through the real cycle."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from rich.console import Console

import perennial
from perennial import cycle as story
from perennial.backtest import replay
from perennial.backtest.states import DATABASE
from perennial.cli import plain_config, with_settings
from perennial.errors import ConfigError, EvaluationError
from perennial.paths import CONF_DIR
from perennial.promotion.registry import Registry
from perennial.verbs.backtest import backtest_job

Backtest = Callable[..., dict[str, Any]]
Verb = Callable[..., tuple[int, str, str]]
WEEKS = range(1, 6)


def frame(week: int, rows: int = 300) -> pd.DataFrame:
    """Two classes, whose border turns a little every week."""
    generator = np.random.default_rng(week)
    values = generator.normal(size=(rows, 2)).astype(np.float32)
    angle = 0.6 * week
    label = (values @ [np.cos(angle), np.sin(angle)] > 0).astype(int)
    table = pd.DataFrame({"x0": values[:, 0], "x1": values[:, 1], "label": label})
    return table.assign(id=[f"{week}-{row}" for row in range(rows)])


@pytest.fixture
def weeks(tmp_path: Path) -> Path:
    """week_0.csv, which founds the lineage, to week_5.csv."""
    for week in (0, *WEEKS):
        frame(week, rows=800 if week == 0 else 300).to_csv(
            tmp_path / f"week_{week}.csv", index=False
        )
    return tmp_path


def arguments(folder: Path) -> list[str]:
    return [
        "data=files",
        f"data.new={folder}/week_${{week}}.csv",
        f"data.history={folder}/week_0.csv",
        "data.id_column=id",
        "data.memory.capacity=100",
        "data.validation_fraction=0.0",
        "+week=1",
        "backtest.key=week",
        f"backtest.first={WEEKS[0]}",
        f"backtest.last={WEEKS[-1]}",
        "model.inputs=2",
        "model.classes=2",
        "model.hidden=[16]",
        "optimizer.lr=0.02",
        "method=replay",
        "method.replay.new_fraction=0.8",
        "trainer.max_steps=25",
        "trainer.keep=last",
        "trainer.accelerator=cpu",
        "model_name=weeks",
        "backtest.promotion=always",
    ]


@pytest.fixture
def run(home: Path, weeks: Path) -> Backtest:
    """Replays the weeks under a policy with overrides."""

    def job(policy: str, *overrides: str, console: Console | None = None) -> dict[str, Any]:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR.absolute())):
            given = [f"policy='{policy}'", *arguments(weeks), *overrides]
            config = hydra_compose("backtest", given)
        return backtest_job(
            lambda settings: plain_config(with_settings(config, settings)),
            console=console or Console(quiet=True),
        )

    return job


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is run, one entry for each founding and each cycle."""
    found: list[str] = []

    def counted(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any) -> Any:
            found.append(name)
            return work(*given)

        return called

    monkeypatch.setattr(replay, "found", counted("founding", replay.found))
    monkeypatch.setattr(story, "run", counted("cycle", story.run))
    return found


def policy(told: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in told["policies"] if one["policy"] == name)
    return found


def cycles(account: dict[str, Any]) -> list[tuple[int, int, int]]:
    """Window after which, first and last window that is learned."""
    told = [(one["window"], one["cycle"]) for one in account["windows"] if one["cycle"]]
    return [(window, *cycle["windows"]) for window, cycle in told]


def states(home: Path) -> dict[str, Registry]:
    """Champion's manifest's path of parents to the registry of each state."""
    folders = (home / "backtests" / "weeks" / "states").iterdir()
    return {f.name: Registry(url=f"sqlite:///{f / DATABASE}") for f in folders if f.is_dir()}


def test_each_window_is_scored_by_the_version_that_served_before_it(
    run: Backtest, home: Path
) -> None:
    told = run("every:2")
    never, every = told["policies"]
    assert cycles(never) == []
    assert cycles(every) == [(2, 1, 2), (4, 3, 4)]
    by_length = {len(one.cycles("weeks")): one for one in states(home).values()}
    assert sorted(by_length) == [1, 2, 3], "a founding and two cycles"
    serving = {1: 1, 2: 1, 3: 2, 4: 2, 5: 3}
    for place, week in enumerate(WEEKS):
        table = frame(week)
        for account, length in ((never, 1), (every, serving[week])):
            url = str(by_length[length]._database.url)
            model = perennial.load(f"weeks@{length}", url=url)
            predicted = model.predict(table[["x0", "x1"]])
            right = float((np.array(predicted, dtype=int) == table["label"].to_numpy()).mean())
            assert account["scores"][place] == pytest.approx(right)
    assert every["mean"] > never["mean"] + 0.1, "the weeks turn"


def test_what_policies_have_in_common_is_run_once(run: Backtest, ran: list[str]) -> None:
    rows = "backtest.triggers.continuous.minimum_rows=600"
    told = run("every:1,every:2,continuous", rows)
    assert ran == ["founding", *["cycle"] * 6]
    every, continuous = policy(told, "every:2"), policy(told, "continuous")
    assert {**continuous, "policy": "every:2", "windows": 0} == {**every, "windows": 0}
    assert continuous["device_seconds"] > 0, "what is shared is charged to each"
    assert cycles(policy(told, "every:1")) == [(w, w, w) for w in range(1, 5)]
    again = run("every:2,every:1,continuous", rows)
    assert len(ran) == 7, "nothing is run twice"
    assert policy(again, "every:1") == policy(told, "every:1")
    run("every:4")
    assert ran[7:] == ["cycle"], "of another policy, only what is new"
    run("every:4", "trainer.max_steps=26")
    assert ran[8:] == ["founding", "cycle"], "other settings are another path"


@pytest.mark.slow
def test_changed_rows_are_another_path(run: Backtest, ran: list[str], weeks: Path) -> None:
    told = run("every:2")
    frame(11).assign(id=frame(3)["id"]).to_csv(weeks / "week_3.csv", index=False)
    other = run("every:2")
    assert ran == ["founding", "cycle", "cycle", "cycle"]
    same = [
        a == b
        for a, b in zip(told["policies"][1]["scores"], other["policies"][1]["scores"], strict=True)
    ]
    assert same == [True, True, False, True, False]


@pytest.mark.slow
def test_scratch_learns_everything_anew(run: Backtest, ran: list[str], home: Path) -> None:
    told = run("scratch", "+backtest.founding.trainer.max_steps=40")
    account = policy(told, "scratch")
    assert ran == ["founding"] * 5
    assert cycles(account) == [(w, 1, w) for w in range(1, 5)]
    assert account["optimizer_steps"] == 4 * 40
    assert account["labels"] == 4 * 300
    first = [one.version("weeks@1").manifest["data"]["rows"] for one in states(home).values()]
    # a fifth is held out
    assert sorted(first) == pytest.approx([0.8 * (800 + 300 * w) for w in range(5)], rel=0.1)


def test_labels_come_late(run: Backtest) -> None:
    told = run("every:1", "backtest.label_delay=2")
    every = policy(told, "every:1")
    assert cycles(every) == [(3, 1, 1), (4, 2, 2)]
    assert every["labels"] == 2 * 300
    assert every["windows"][0]["trigger"]["due"]
    assert every["windows"][0]["cycle"] is None


@pytest.mark.slow
def test_what_is_rejected_is_new_again(run: Backtest) -> None:
    gate = ("backtest.promotion=gate", "gate.improvement.minimum_effect=0.9", "gate=lenient")
    told = run("every:2", *gate)
    every = policy(told, "every:2")
    assert cycles(every) == [(2, 1, 2), (4, 1, 4)]
    assert (every["promoted"], every["failed"]) == (0, 0)
    assert every["rejected"] + every["inconclusive"] == 2
    assert every["labels"] == 4 * 300, "bought once"
    assert every["scores"] == policy(told, "never")["scores"]


@pytest.mark.slow
def test_rows_that_cannot_be_used_fail_one_cycle(
    run: Backtest, weeks: Path, ran: list[str]
) -> None:
    frame(2).assign(label=2).to_csv(weeks / "week_2.csv", index=False)
    told = run("every:1")
    every = policy(told, "every:1")
    # a class that nobody asked for stays in what is new, so that each later cycle meets it as well
    assert cycles(every) == [(1, 1, 1), (2, 2, 2), (3, 2, 3), (4, 2, 4)]
    assert (every["promoted"], every["failed"]) == (1, 3)
    assert "2" in every["windows"][1]["cycle"]["reason"]
    count = len(ran)
    frame(2).to_csv(weeks / "week_2.csv", index=False)
    mended = policy(run("every:1"), "every:1")
    assert (mended["promoted"], len(ran) - count) == (4, 3), "what failed is run again"


def read_too_high(weeks: Path) -> None:
    """As at the founding up to week 2; then x0 is read 1.5 too high."""
    for week in WEEKS:
        generator = np.random.default_rng(100 + week)
        values = generator.normal(size=(300, 2)).astype(np.float32)
        table = pd.DataFrame({"x0": values[:, 0] + (1.5 if week >= 3 else 0), "x1": values[:, 1]})
        table = table.assign(label=(values[:, 0] > 0).astype(int))
        table = table.assign(id=[f"{week}-{row}" for row in range(300)])
        table.to_csv(weeks / f"week_{week}.csv", index=False)


@pytest.mark.slow
def test_a_version_is_watched_in_the_windows_that_it_served_in(run: Backtest, weeks: Path) -> None:
    read_too_high(weeks)
    steps = policy(run("performance"), "performance")["windows"]
    assert [one["trigger"]["due"] for one in steps[:3]] == [False, False, True]
    scored = [one["trigger"]["evidence"]["scored"] for one in steps[:4]]
    assert scored == [300, 600, 900, 300], "of those before it learned the rows"


def test_drift_and_performance_are_due_where_something_changed(run: Backtest, weeks: Path) -> None:
    read_too_high(weeks)
    told = run("drift,performance", "backtest.label_delay=1")
    drift, performance = (policy(told, name)["windows"] for name in ("drift", "performance"))

    def due(steps: list[dict[str, Any]]) -> list[int]:
        return [one["window"] for one in steps[:-1] if one["trigger"]["due"]]

    assert due(drift)[0] == 3, "inputs are there at once"
    assert "x0" in drift[2]["trigger"]["reason"]
    assert due(performance) == [4], "labels of week 3 come a week later"
    assert [one["labels"] for one in drift[:2]] == [0, 0]
    assert [one["labels"] for one in performance] == [0, 300, 300, 300, 0], "to watch is to buy"


@pytest.mark.slow
def test_other_metrics(run: Backtest, ran: list[str]) -> None:
    auc = run("every:2", "backtest.metric=BinaryAUROC")
    loss = run("every:2", "backtest.metric=loss")
    assert ran == ["founding", "cycle", "cycle"], "a score is not part of the path"
    assert auc["higher_is_better"]
    assert not loss["higher_is_better"]
    for told in (auc, loss):
        assert policy(told, "every:2")["gain"] > 0
    with pytest.raises(ConfigError, match="does not measure 'acuracy'") as error:
        run("every:2", "backtest.metric=acuracy")
    assert "accuracy, f1_macro" in str(error.value.mend)
    with pytest.raises(ConfigError, match="no metric 'BinaryAUC'") as error:
        run("every:2", "backtest.metric=BinaryAUC")
    assert error.value.where == "backtest.metric"


def test_a_metric_that_a_window_cannot_give_is_told(run: Backtest, weeks: Path) -> None:
    frame(2).assign(label=1).to_csv(weeks / "week_2.csv", index=False)
    with pytest.raises(EvaluationError, match="300 rows of window 2, which are of one class"):
        run("never", "backtest.metric=BinaryAUROC")


@pytest.mark.slow
def test_a_class_that_comes_later_is_wrong_until_it_is_learned(run: Backtest, weeks: Path) -> None:
    table = frame(3)
    table.loc[table["x0"] > 1.5, "label"] = 2
    table.to_csv(weeks / "week_3.csv", index=False)
    told = run("every:1", "data.new_classes=grow")
    assert len(cycles(policy(told, "every:1"))) == 4


@pytest.mark.slow
def test_killed_in_the_middle_of_a_cycle_it_goes_on(
    run: Backtest, ran: list[str], monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.chdir(home.parent)  # where both folders lie
    whole = run("every:1,scratch", "folder=whole")
    child = os.fork()
    if not child:
        calls = iter(range(10))
        work = story.run

        def killed(cycle: Any) -> Any:
            result = work(cycle)
            if next(calls) == 1:  # decided, and not yet a state
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        monkeypatch.setattr(story, "run", killed)
        run("every:1,scratch", "folder=broken")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    ran.clear()
    broken = run("every:1,scratch", "folder=broken")
    assert ran == ["cycle"] * 3 + ["founding"] * 4, "of every:1 the first cycle was whole"
    for one, other in zip(whole["policies"], broken["policies"], strict=True):
        assert one["scores"] == other["scores"]
        assert one["train_rows"] == other["train_rows"]


def test_what_is_told_and_left(verb: Verb, weeks: Path, home: Path) -> None:
    code, out, err = verb(
        "backtest", "policy=never,every:1,every:4", *arguments(weeks), "cost.device_hour=10"
    )
    assert (code, err) == (0, "")
    assert "every:1" in out
    assert "Take " in out
    assert "Not counted in money" in out
    folder = home / "backtests" / "weeks"
    told = json.loads((folder / "backtest.json").read_text())
    assert [one["policy"] for one in told["policies"]] == ["never", "every:1", "every:4"]
    assert f"Take {told['recommendation']['policy']}" in out
    page = (folder / "backtest.html").read_text()
    assert "<script" not in page
    assert not re.search(r"(src|href)=.(?!#)", page), "nothing outside of itself"
    assert sorted(path.name for path in home.iterdir()) == ["backtests"], "no registry is made"
    code, out, err = verb("backtest", "policy=every:1", *arguments(weeks), "--json")
    assert (code, err) == (0, "")
    assert [one["policy"] for one in json.loads(out)["policies"]] == ["never", "every:1"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("policy=weekly", "'weekly' is no policy"),
        ("backtest.last=1", "The timeline has one window, 1"),
        ("backtest.first=9", "The timeline's first window, 9, is after its last, 5"),
        ("backtest.key=null", "There is no timeline: backtest.key is null"),
        ("backtest.key=weak", "There is no setting 'weak' that a backtest could change"),
        ("backtest.first=one", "backtest.first is 'one'; it takes a whole number"),
        ("+backtest.frist=1", "backtest.frist is not a setting"),
        ("backtest.last=6", "week_6.csv"),
        ("+backtest.founding.trainer.max_step=1", "There is no setting 'trainer.max_step'"),
        ("cost.label=-1", "cost.label is -1"),
        ("cost.label=free", "cost.label is 'free'; it takes a number"),
        ("-m", "runs all policies by itself"),
    ],
)
def test_what_cannot_be_replayed_is_told(verb: Verb, weeks: Path, change: str, words: str) -> None:
    given = ["policy=every:1", *arguments(weeks)]
    key = change.partition("=")[0]
    code, _, err = verb(
        "backtest", *[one for one in given if not one.startswith(f"{key}=")], change
    )
    assert words in err
    assert "mend:" in err
    assert code in (1, 30)


def test_an_experiment_without_a_timeline(verb: Verb) -> None:
    code, _, err = verb("backtest")
    assert code == 1
    assert "There is no timeline" in err
