"""Triggers through the real configuration: what is not due ends early, and says when it will be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hydra import compose, initialize_config_dir

from perennial import clock, launch
from perennial.cli import plain_config
from perennial.launch import run_job
from perennial.monitoring.triggers import Firing, Situation
from perennial.paths import CONF_DIR
from perennial.promotion.registry import Registry
from perennial.reporting.result import schema
from perennial.steps import recording, watched
from perennial.steps.predicted import recorded_of

Run = Callable[..., dict[str, Any]]
START = datetime(2026, 11, 26, 12, tzinfo=UTC)
SHORT = ("trainer.max_steps=4", "trainer.validate_every=2", "trainer.batch_size=32")
WEEKLY = ("trigger=schedule", "trigger.every=7d")
UNREADABLE = ("data=files", "data.new=nowhere.csv")


@contextmanager
def after(**span: float) -> Iterator[None]:
    """A clock that stands still, so long after the start."""
    with clock.read_from(lambda: START + timedelta(**span)):
        yield


def schema_of(result: dict[str, Any]) -> None:
    """The written result is as its schema has it."""
    jsonschema.validate(json.loads((Path(result["folder"]) / "result.json").read_text()), schema())


def decided(home: Path) -> int:
    registry = Registry(url=f"sqlite:///{home / 'registry.db'}")
    return sum(one.champion is not None for one in registry.cycles("digits"))


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lineage with one decided cycle, as of the start."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patched, after():
        patched.setenv("PERENNIAL_HOME", str(home))
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR.absolute())):
            learned = ("trainer.max_steps=100", "trainer.validate_every=100")
            composed = compose("train", ["tracking=none", "trainer.accelerator=cpu", *learned])
        result, _ = run_job(plain_config(composed), folder=folder, multirun=False)
    assert result["bootstrap"]
    assert result["trigger"]["reason"] == "started by hand or by a scheduler"
    assert decided(home) == 1
    return home


@pytest.fixture
def founded(lineage: Path, home: Path) -> None:
    """The same in this test's own folder."""
    shutil.copytree(lineage, home)


@pytest.mark.usefixtures("founded")
def test_what_is_not_due_opens_nothing_and_tracks_nothing(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "_tracked", None)
    with after(days=1):
        result = run(*SHORT, *WEEKLY, *UNREADABLE)
    assert (result["status"], result["exit_code"]) == ("skipped", 10)
    written = json.loads((Path(result["folder"]) / "result.json").read_text())
    jsonschema.validate(written, schema())
    assert written["trigger"] == {
        "kind": "schedule",
        "due": False,
        "reason": "the last cycle was decided on 2026-11-26 12:00 UTC, and the next is due on "
        "2026-12-03 03:36 UTC (every 7d)",
        "evidence": {
            "last": "2026-11-26T12:00:00+00:00",
            "due_at": "2026-12-03T03:36:00+00:00",
            "earliest": "2026-12-03T03:36:00+00:00",
        },
    }
    told = " ".join(capsys.readouterr().out.split())
    assert "digits@1 serves on: the last cycle was decided on 2026-11-26 12:00 UTC" in told
    assert decided(home) == 1


@pytest.mark.usefixtures("founded")
def test_a_schedule_that_has_come_runs_once_and_leaves_its_reason(run: Run, home: Path) -> None:
    with after(days=30):
        result = run(*SHORT, *WEEKLY, "seed=1")
        assert result["status"] in ("promoted", "rejected", "inconclusive")
        again = run(*SHORT, *WEEKLY, "seed=2")
    assert again["trigger"]["due"] is False
    assert decided(home) == 2

    reason = "the last cycle was decided on 2026-11-26 12:00 UTC, and the next was due on "
    assert result["trigger"]["due"] is True
    assert result["trigger"]["reason"].startswith(reason)
    schema_of(result)
    registry = Registry(url=f"sqlite:///{home / 'registry.db'}")
    version = registry.version(result["candidate"]["id"])
    assert version.manifest["trigger"] == result["trigger"]
    assert "trigger" not in version.manifest["config"]
    (record,) = [one for one in registry.cycles("digits") if one.candidate == version.number]
    assert record.device_seconds == result["cost"]["device_seconds"] > 0
    assert reason in Path(result["report"]).read_text()


@pytest.mark.usefixtures("founded")
def test_a_clock_that_was_turned_back_fails_unless_no_time_is_asked(run: Run) -> None:
    with after(days=-1):
        result = run(*SHORT, *WEEKLY, *UNREADABLE)
        assert (result["status"], result["exit_code"]) == ("failed", 1)
        assert result["error"]["where"] == "clock"
        assert result["trigger"]["kind"] == "schedule"
        assert result["trigger"]["due"] is None
        assert run(*SHORT, "seed=1")["error"] is None


@pytest.mark.usefixtures("founded")
def test_rows_are_counted_once_they_are_read(run: Run, home: Path) -> None:
    with after(days=1):
        _rows_are_counted(run, home)


def _rows_are_counted(run: Run, home: Path) -> None:
    few = run(*SHORT, "seed=1", "trigger=continuous", "trigger.minimum_rows=5000")
    assert (few["status"], few["exit_code"]) == ("skipped", 10)
    assert few["trigger"]["evidence"] == {"held_back_by": "minimum_rows", "rows": 1000}
    assert few["data"]["new"]["rows"] > 0
    schema_of(few)
    assert decided(home) == 1

    combined = run(
        *SHORT,
        "seed=1",
        "trigger=any",
        "+trigger@trigger.of.weekly=schedule",
        "trigger.of.weekly.every=7d",
        "+trigger@trigger.of.rows=continuous",
        "trigger.of.rows.minimum_rows=1000",
        "trigger.budget.cycles=2",
        "trigger.budget.period=30d",
    )
    assert combined["trigger"]["reason"] == "rows: 1,000 new labelled rows have come"
    assert decided(home) == 2
    spent = run(*SHORT, "seed=2", "trigger.budget.cycles=2", "trigger.budget.period=30d")
    assert spent["trigger"]["evidence"]["held_back_by"] == "budget"


@pytest.mark.usefixtures("founded")
def test_force_overrides_and_a_dry_run_tells(run: Run, home: Path) -> None:
    with after(days=1):
        dry = run(*SHORT, *WEEKLY, "seed=1", "debug=dry")
        assert dry["trigger"]["due"] is False
        result = run(*SHORT, *WEEKLY, "seed=1", "force=true")
    assert result["trigger"]["reason"] == "asked for by force=true"
    assert decided(home) == 2


@pytest.mark.usefixtures("founded")
def test_a_trial_is_due_when_its_sweep_says_so(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    composed = request.getfixturevalue("compose")
    config = composed("tracking=none", "trainer.accelerator=cpu", *SHORT, *WEEKLY, "seed=1")
    result, _ = run_job(config, folder=tmp_path / "trial", multirun=True)
    assert result["trigger"]["kind"] == "manual"
    assert result["trigger"]["due"] is True
    assert "a trial is due when its sweep says so" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "where", "words"),
    [
        (("trigger=schedule", "trigger.cron='61 3 * * *'"), "trigger.cron", "minute"),
        (("trigger=schedule",), "trigger.cron, trigger.every", "neither"),
        ((*WEEKLY, "trigger.timezone=Europe/Nowhere"), "trigger.timezone", "Europe/Nowhere"),
        (("trigger.cooldown=0d",), "trigger.cooldown", "0d"),
        (("trigger.cooldown=7",), "trigger.cooldown", "text"),
        (("trigger.minimum_rows=-1",), "trigger.minimum_rows", "above 0"),
        (("trigger.budget.cycles=0.5",), "trigger.budget.cycles", "whole number"),
        (("trigger=any",), "trigger.of", "none is named"),
        (("trigger=all", "trigger.of=weekly"), "trigger.of", "names of triggers"),
        (
            ("trigger=any", "+trigger@trigger.of.a=schedule", "+trigger.of.a.evry=7d"),
            "trigger.of.a.evry",
            "not a setting",
        ),
    ],
)
def test_a_wrong_setting_is_refused_before_any_row_is_read(
    run: Run, overrides: tuple[str, ...], where: str, words: str
) -> None:
    result = run(*UNREADABLE, *overrides)
    assert (result["status"], result["exit_code"]) == ("failed", 1)
    assert result["error"]["where"] == where
    assert words in result["error"]["what"]


class Once:
    """Due the first time that it is asked, and never again."""

    kind = "once"
    needs = frozenset({"rows"})
    asked = 0

    def early(self, situation: Situation) -> None:
        return None

    def ask(self, situation: Situation) -> Firing:
        Once.asked += 1
        return Firing(kind=self.kind, due=Once.asked == 1, reason=f"asked {Once.asked} times")


@pytest.mark.usefixtures("founded")
def test_a_cycle_that_was_begun_goes_on_for_the_reason_it_was_begun_for(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_trigger", lambda node: Once())
    monkeypatch.setattr(Once, "asked", 0)
    with monkeypatch.context() as patched:
        from perennial import cycle

        patched.setattr(cycle, "score", None)
        assert run(*SHORT, "seed=1")["status"] == "failed"
    result = run(*SHORT, "seed=1")
    assert result["trigger"]["reason"] == "asked 1 times"
    assert decided(home) == 2
    assert run(*SHORT, "seed=2")["trigger"]["reason"] == "asked 2 times"


def test_the_first_cycle_belongs_to_the_founding(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("trigger=continuous", "trigger.minimum_rows=5000")
    with monkeypatch.context() as patched:
        from perennial import cycle

        patched.setattr(cycle, "collect", None)
        assert run(*SHORT, *few)["status"] == "failed"
    registry = Registry(url=f"sqlite:///{home / 'registry.db'}")
    assert registry.champion("digits") is not None
    assert decided(home) == 0
    result = run(*SHORT, *few)
    assert result["trigger"]["reason"] == "the lineage's first cycle belongs to its founding"
    assert decided(home) == 1


AS_BEFORE = "data.new.inverted=false"


@pytest.mark.usefixtures("founded")
def test_drift_is_due_where_the_new_rows_have_moved(run: Run, home: Path) -> None:
    drift = ("trigger=drift", "trigger.every=7d", "trigger.draws=100", "trigger.permutations=200")
    with after(days=7):
        still = run(*SHORT, *drift, AS_BEFORE, "seed=1")
        assert (still["status"], still["exit_code"]) == ("skipped", 10)
        assert still["trigger"]["reason"].startswith("nothing moved by more than chance in 400 row")
        schema_of(still)
        moved = run(*SHORT, *drift, "seed=1")
    assert moved["trigger"]["due"] is True
    assert moved["trigger"]["reason"].startswith("image (by ")
    told = {(one["of"], one["name"]) for one in moved["trigger"]["evidence"]["shifts"]}
    assert {("input", "image"), ("prediction", "prediction")} <= told
    schema_of(moved)
    assert decided(home) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("founded")
def test_columns_alone_do_without_the_model(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "represent", None)
    overrides = ("trigger=drift", "trigger.model=false", "trigger.tests=[]", "trigger.draws=100")
    with after(days=7):
        result = run(*SHORT, *overrides, "seed=1", "debug=dry")
    assert result["trigger"]["due"] is True
    assert [one["of"] for one in result["trigger"]["evidence"]["shifts"]] == ["input"]


@pytest.mark.usefixtures("founded")
def test_a_champion_without_a_reference_is_no_silent_calm(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perennial.steps.reference.ROWS", "reference/nowhere.arrow")
    with after(days=7):
        result = run(*SHORT, "trigger=drift", "seed=1")
    assert (result["status"], result["exit_code"]) == ("failed", 1)
    assert "carries no reference" in result["error"]["what"]
    assert result["trigger"]["due"] is None


@pytest.mark.slow
@pytest.mark.usefixtures("founded")
def test_performance_is_due_where_the_champion_does_worse(run: Run, home: Path) -> None:
    watch = ("trigger=performance", "trigger.every=7d")
    with after(days=7):
        still = run(*SHORT, *watch, AS_BEFORE, "seed=1")
        assert (still["status"], still["exit_code"]) == ("skipped", 10)
        assert "400 scored rows" in still["trigger"]["reason"]
        schema_of(still)
    windows = Registry(url=f"sqlite:///{home / 'registry.db'}").windows("digits", 1)
    assert [one.rows for one in windows] == [400]
    with after(days=14):
        worse = run(*SHORT, *watch, "seed=1")
    assert worse["trigger"]["due"] is True
    assert worse["trigger"]["reason"].startswith("accuracy fell from ")
    assert worse["trigger"]["evidence"]["scored"] == 1400
    schema_of(worse)
    # rows may be forgotten, and what the version keeps of its trigger stays
    named = [one["since_row_id"] for one in worse["trigger"]["evidence"]["realised"]["alarms"]]
    version = Registry(url=f"sqlite:///{home / 'registry.db'}").version(worse["candidate"]["id"])
    assert named
    for path in ("result.json", "version.yaml", "report.html"):
        assert not any(row in version.read_text(path) for row in named), path
    assert version.manifest["trigger"]["reason"] == worse["trigger"]["reason"]
    assert decided(home) == 2
    with after(days=21):
        answered = run(*SHORT, *watch, "seed=2")
    assert answered["trigger"]["due"] is False  # no row has come since
    after_that = Registry(url=f"sqlite:///{home / 'registry.db'}").windows("digits", 1)
    assert [one.rows for one in after_that] == [400, 1000]


@pytest.mark.slow
@pytest.mark.usefixtures("founded")
def test_labels_that_come_late_are_joined_to_what_was_predicted(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = recording.keep_predictions

    def without_labels(*given: Any, labelled: bool, **named: Any) -> bool:
        champion = given[1]
        champion.manifest["lineage"]["data.id_column"] = "id"
        return keep(*given, labelled=False, **named)

    with monkeypatch.context() as patched, after(days=6):
        patched.setattr(recording, "keep_predictions", without_labels)
        run(*SHORT, "trigger=performance", "seed=1", AS_BEFORE)
    registry = Registry(url=f"sqlite:///{home / 'registry.db'}")
    champion = registry.champion("digits")
    assert champion is not None
    (before,) = recorded_of(registry, champion)
    assert not before.is_scored.any()
    with after(days=7):
        joined = run(*SHORT, "trigger=performance", "seed=1", AS_BEFORE)
    assert joined["trigger"]["evidence"]["scored"] == 400
    (record,) = recorded_of(registry, champion)
    assert record.is_scored.all()
    assert record.recorded_at == START + timedelta(days=6)
