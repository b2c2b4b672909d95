"""Looking at rows whose labels come late, day by day, through the real configuration."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest
from hydra.utils import instantiate
from rich.console import Console

from perennial.errors import ConfigError
from perennial.monitoring.reference import FACTS, Reference
from perennial.promotion.registry import Registry, Version
from perennial.reporting import monitor_page
from perennial.reporting.monitor import schema
from perennial.steps import monitor
from perennial.steps.lineage import learned_rows
from perennial.steps.predicted import recorded_of
from perennial.verbs.monitor import monitor_job
from support.looks import START, day, found, labels, look, moved, unlabelled

DRIFT = "trigger=drift"


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("looks") / "home"
    found(home)
    return home


@pytest.fixture
def founded(lineage: Path, tmp_path: Path) -> Path:
    """The lineage in a folder of this test's own."""
    shutil.copytree(lineage, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of a look is drawing, which tests of the page look at."""
    monkeypatch.setattr(monitor_page, "render_look", lambda told: "<p>page</p>")


def registry(home: Path) -> Registry:
    return Registry(url=f"sqlite:///{home / 'registry.db'}")


def state(home: Path) -> Any:
    """What is recorded of the version."""
    here = registry(home)
    version = here.version("fraud@1")
    windows = [(one.window, one.sha256) for one in here.windows("fraud", 1)]
    return windows, here.looks(version)


def refused(told: dict[str, Any], code: int, *words: str) -> None:
    assert (told["status"], told["exit_code"]) == ("failed", code), told
    jsonschema.validate(told, schema())
    assert told["alarm"] is None
    for word in words:
        assert word in json.dumps(told["error"], ensure_ascii=False), told["error"]


def test_days_pass_and_labels_come_late(founded: Path, tmp_path: Path) -> None:
    told: dict[str, Any] = {}
    for number in range(3):
        new = unlabelled(tmp_path, 20 + number)
        late = (
            [f"monitor.labels={labels(tmp_path, 19 + number)}"] if number else []
        )  # a day after their rows
        code, told, printed = look(founded, tmp_path / "out", new, *late, days=number)
        jsonschema.validate(told, schema())
        assert (code, told["status"], moved(told)) == (0, "calm", []), told["reason"]
        assert "CALM" in printed
    assert told["window"]["labelled"] == 0
    assert told["window"]["earlier"] == 2
    performance = told["performance"]
    assert (performance["scored"], performance["waiting"]) == (400, 200)
    # the model separates by the score, as the labels do
    assert performance["realised"]["now"]["mean"] > 0.85
    assert "cannot see concept drift" in performance["estimated"]["caution"]
    first, _, last = told["windows"]
    assert first["realised"]["n"] == 200
    assert first["estimated"]["now"] > 0.8
    assert (last["realised"], last["rows"]) == (None, 200)
    assert (tmp_path / "out" / "monitor.html").read_text() == "<p>page</p>"


def test_a_column_that_moves_is_an_alarm_that_says_since_when(
    founded: Path, tmp_path: Path
) -> None:
    look(founded, tmp_path / "out", unlabelled(tmp_path, 20), DRIFT, days=0)
    rows = day(21)
    rows.loc[rows.index >= 100, "score"] += 2.0  # from the middle of the day on
    rows.drop(columns="bad").to_parquet(tmp_path / "half.parquet")
    code, told, _ = look(founded, tmp_path / "out", tmp_path / "half.parquet", DRIFT, days=1)
    assert code == 40
    assert "score" in moved(told)
    score = next(one for one in told["drift"]["shifts"] if one["name"] == "score")
    assert score["since"]["windows"] == 1
    assert pd.Timestamp("2026-11-22 01:20") < pd.Timestamp(score["since"]["time"])
    assert pd.Timestamp(score["since"]["time"]) <= pd.Timestamp("2026-11-22 01:45")
    code, told, printed = look(
        founded, tmp_path / "out", unlabelled(tmp_path, 22, shift=2.0), DRIFT, days=2
    )
    score = next(one for one in told["drift"]["shifts"] if one["name"] == "score")
    assert (score["since"]["windows"], score["since"]["time"][:10]) == (2, "2026-11-22")
    assert [one["alarm"]["drift"] for one in told["windows"]] == [False, True, True]
    assert "ALARM" in printed
    assert "2026-11-22" in printed
    (picture,) = (one for one in told["drift"]["pictures"] if one["name"] == "score")
    assert sum(picture["then"]) == pytest.approx(1)
    assert sum(picture["now"]) == pytest.approx(1)


def test_rows_that_the_model_was_trained_on_do_not_count(founded: Path, tmp_path: Path) -> None:
    mixed = pd.concat([day(3), day(25)])
    mixed.to_parquet(tmp_path / "mixed.parquet")
    trained = set(learned_rows(registry(founded).version("fraud@1")).trained.id.tolist())
    known = int(mixed["id"].isin(trained).sum())
    assert known == 200  # the days that are held out are later
    _, told, _ = look(founded, tmp_path / "out", tmp_path / "mixed.parquet")
    assert f"{known} of 400 rows are among those that the model was trained on" in told["notes"][0]
    assert told["performance"]["scored"] == 400 - known
    alone = mixed[mixed["id"].isin(trained)]
    alone.to_parquet(tmp_path / "alone.parquet")
    _, told, _ = look(founded, tmp_path / "out", tmp_path / "alone.parquet", days=1)
    assert told["status"] in ("calm", "alarm"), told["error"]
    assert told["performance"]["scored"] == 400 - known


@pytest.mark.slow
def test_a_concept_that_moves_shows_when_its_labels_come(founded: Path, tmp_path: Path) -> None:
    for number in range(3):
        new = unlabelled(tmp_path, 20 + number, flipped=0.5, rows=300)
        assert look(founded, tmp_path / "out", new, days=number)[0] == 0
    late = pd.concat([day(20 + number, flipped=0.5, rows=300) for number in range(3)])
    late[["id", "bad"]].to_csv(tmp_path / "late.csv", index=False)
    again = f"monitor.labels={tmp_path / 'late.csv'}"
    code, told, _ = look(founded, tmp_path / "out", new, again, "exit_zero=true", days=3)
    assert code == 0
    assert (told["status"], told["exit_code"]) == ("alarm", 40)
    assert not told["drift"]["alarm"]
    assert told["performance"]["alarm"]
    assert told["reason"].startswith("accuracy fell from 0.9")


@pytest.mark.slow
def test_labels_that_come_with_the_rows_again_are_joined(founded: Path, tmp_path: Path) -> None:
    look(founded, tmp_path / "out", unlabelled(tmp_path, 20))
    rows = day(20)
    rows.loc[::2, "bad"] = None  # half of them are still to come
    rows.to_parquet(tmp_path / "again.parquet")
    _, told, _ = look(founded, tmp_path / "out", tmp_path / "again.parquet", days=1)
    assert (told["window"]["labelled"], told["performance"]["scored"]) == (100, 100)
    assert told["window"]["earlier"] == 0
    assert told["created"] == START.isoformat()
    (window,) = recorded_of(registry(founded), registry(founded).version("fraud@1"))
    assert set(window.id[window.is_scored]) == set(rows.id[1::2])
    blank = rows.fillna({"bad": ""})
    blank.to_csv(tmp_path / "blank.csv", index=False)
    _, told, _ = look(founded, tmp_path / "out", tmp_path / "blank.csv", "trigger=performance")
    assert told["window"]["labelled"] == 100


def test_the_same_rows_again_give_the_same_and_record_nothing(
    founded: Path, tmp_path: Path
) -> None:
    new = unlabelled(tmp_path, 20, shift=2.0)
    late = f"monitor.labels={labels(tmp_path, 20, shift=2.0)}"
    before = look(founded, tmp_path / "out", new, late)
    recorded = state(founded)
    after = look(founded, tmp_path / "out", new, late, days=5)
    assert after == before
    assert state(founded) == recorded
    assert len(recorded[0]) == len(recorded[1]) == 1


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda rows: rows.drop(columns="amount"), 30, ("amount", "no column")),
        (lambda rows: rows.assign(amount="much"), 30, ("amount",)),
        (lambda rows: rows.head(3), 30, ("3 rows", "fewest")),
        (lambda rows: rows.assign(id="a"), 30, ("id",)),
        (lambda rows: rows.assign(time=pd.NaT), 30, ("time",)),
    ],
)
def test_rows_that_cannot_be_looked_at(
    founded: Path, tmp_path: Path, change: Any, code: int, words: tuple[str, ...]
) -> None:
    change(day(20)).drop(columns="bad").to_parquet(tmp_path / "odd.parquet")
    found_code, told, printed = look(founded, tmp_path / "out", tmp_path / "odd.parquet", DRIFT)
    assert found_code == code
    refused(told, code, *words)
    assert "FAILED" in printed
    assert state(founded) == ([], [])


def test_a_column_that_is_constant_now_is_told(founded: Path, tmp_path: Path) -> None:
    day(20).drop(columns="bad").assign(age=44, channel="web").to_parquet(tmp_path / "odd.parquet")
    code, told, _ = look(founded, tmp_path / "out", tmp_path / "odd.parquet", DRIFT)
    assert code == 40
    assert {"age", "channel"} <= set(moved(told))
    assert "age: constant in the window, at 44" in told["notes"]
    assert "channel: constant in the window, at 'web'" in told["notes"]


def test_labels_of_rows_that_were_never_predicted(founded: Path, tmp_path: Path) -> None:
    new, late = unlabelled(tmp_path, 20), labels(tmp_path, 25)
    code, told, _ = look(founded, tmp_path / "out", new, f"monitor.labels={late}")
    assert code == 30
    refused(told, 30, "200 of 200 labels", "025-00000", "monitor.labels")


def test_clocks_that_go_backwards(founded: Path, tmp_path: Path) -> None:
    look(founded, tmp_path / "out", unlabelled(tmp_path, 21), DRIFT, days=3)
    code, told, _ = look(founded, tmp_path / "out", unlabelled(tmp_path, 22), DRIFT, days=1)
    assert code == 30
    refused(told, 30, "clock", str((START + timedelta(days=3)).date()))
    code, told, _ = look(founded, tmp_path / "out", unlabelled(tmp_path, 20), DRIFT, days=4)
    assert code == 30
    refused(told, 30, "rows up to 2026-11-22", "time_column")


def test_a_reference_that_is_missing_or_of_other_columns(
    founded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, real = unlabelled(tmp_path, 20), monitor.reference_of

    def without(version: Version) -> Reference:
        kept = {path: sha for path, sha in version.files.items() if path != FACTS}
        return real(replace(version, files=kept))

    def of_other_columns(version: Version) -> Reference:
        found = real(version)
        schema = {name: kind for name, kind in found.schema.items() if name != "age"}
        return replace(found, schema=schema)

    monkeypatch.setattr(monitor, "reference_of", without)
    code, told, _ = look(founded, tmp_path / "out", new)
    assert code == 1
    refused(told, 1, "no reference", "fraud@1")
    monkeypatch.setattr(monitor, "reference_of", of_other_columns)
    code, told, _ = look(founded, tmp_path / "out", new)
    assert code == 1
    refused(told, 1, "other columns", "fraud@1")
    # the scores can be watched without one
    code, told, _ = look(founded, tmp_path / "out", new, "trigger=performance")
    assert (code, told["drift"]) == (0, None)
    assert told["checks"]["kinds"] == ["performance"]


def test_drift_alone_and_the_rate_that_both_share(founded: Path, tmp_path: Path) -> None:
    new = unlabelled(tmp_path, 20)
    _, both, _ = look(founded, tmp_path / "out", new)
    _, alone, _ = look(founded, tmp_path / "out", new, "trigger=drift", "trigger.model=false")
    assert alone["performance"] is None
    assert {one["of"] for one in alone["drift"]["shifts"]} == {"input", "rows"}
    assert both["drift"]["probability"] == pytest.approx(0.5 / 365.25)
    assert alone["drift"]["probability"] == pytest.approx(1 / 365.25)
    _, told, _ = look(founded, tmp_path / "out", new, "trigger.every=7d", "trigger.tests=[]")
    assert told["drift"]["probability"] == pytest.approx(3.5 / 365.25)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trigger=schedule", "choose trigger=drift"),
        ("trigger.cooldown=1d", "holds back cycles"),
        ("trigger.budget.cycles=1", "holds back cycles"),
        ("trigger.false_alarms_per_year=0", "above 0"),
        ("trigger.every=soon", "span of time"),
        ("trigger.permutations=many", "whole number"),
        ("trigger.tests=mmd", "trigger.tests"),
        ("allow=true", "allow"),
    ],
)
def test_settings_that_mean_nothing_here(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        look(tmp_path / "home", tmp_path / "out", "nowhere.csv", override)
    assert words in str(caught.value)


def test_ids_that_are_not_the_lineages(founded: Path, tmp_path: Path) -> None:
    new = unlabelled(tmp_path, 20)
    code, told, _ = look(founded, tmp_path / "out", new, "data.id_column=null")
    refused(told, 1, "data.id_column=id")
    assert code == 1


def test_an_alarm_is_told_and_calm_is_not(founded: Path, tmp_path: Path) -> None:
    script = tmp_path / "keep.py"
    script.write_text("import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')")
    kept = tmp_path / "kept"
    listening = ("notify=command", f"notify.command=[{sys.executable},{script},{kept}]")
    look(founded, tmp_path / "out", unlabelled(tmp_path, 20), DRIFT, *listening)
    assert not kept.exists()
    new = unlabelled(tmp_path, 21, shift=2.0)
    look(founded, tmp_path / "out", new, DRIFT, *listening, days=1)
    look(founded, tmp_path / "out", tmp_path / "nowhere.csv", DRIFT, *listening, days=1)
    alarm, failed = (json.loads(line) for line in kept.read_text().splitlines())
    assert (alarm["status"], alarm["exit_code"], alarm["champion"]) == ("alarm", 40, "fraud@1")
    assert alarm["text"].startswith("fraud, alarm: score (by 2")
    assert alarm["report"] == str(tmp_path / "out" / "monitor.html")
    assert (failed["status"], failed["exit_code"]) == ("failed", 30)


@pytest.mark.slow
def test_pictures_and_a_lineage_without_ids(
    run: Any, compose: Any, home: Path, tmp_path: Path
) -> None:
    run("trainer.max_steps=2", "trainer.validate_every=2", "data.new=${data.history}")
    config = compose("trainer.accelerator=cpu", f"folder={tmp_path / 'out'}", config="monitor")
    assert monitor_job(config, console=Console(quiet=True)) == 40
    told = json.loads((tmp_path / "out" / "monitor.json").read_text())
    jsonschema.validate(told, schema())
    assert {"image", "features", "prediction"} <= set(moved(told))
    assert told["drift"]["pictures"][0]["values"] == "mean of a row's values"
    assert told["performance"]["scored"] == 1000
    bare = instantiate(config["data"]["new"])
    config["data"]["new"] = bare.remove_columns("label")
    assert monitor_job(config, console=Console(quiet=True)) == 40
    told = json.loads((tmp_path / "out" / "monitor.json").read_text())
    assert any("no data.id_column" in note for note in told["notes"])
    assert told["performance"]["estimated"]["estimates"]
    assert told["performance"]["scored"] == 1000
    assert len(Registry(url=f"sqlite:///{home / 'registry.db'}").windows("digits", 1)) == 1
