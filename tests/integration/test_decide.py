"""Deciding again on stored predictions: under the same policy, under another, and for good."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perennial import cycle
from perennial.launch import run_job
from perennial.promotion import predictions
from perennial.promotion.records import changed
from perennial.promotion.registry import Registry
from perennial.steps import tell

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)

Run = Callable[..., dict[str, Any]]
Verb = Callable[..., tuple[int, str, str]]
SHORT = ("trainer.max_steps=300", "trainer.validate_every=100", "gate.retention=waived")


class Stopped(BaseException):
    """The process was killed here."""


def registry(home: Path) -> Registry:
    return Registry(url=f"sqlite:///{home}/registry.db")


def decided(verb: Verb, *arguments: str) -> dict[str, Any]:
    code, printed, errors = verb("decide", *arguments, "--json")
    assert errors == ""
    result: dict[str, Any] = json.loads(printed)
    assert code == result["exit_code"]
    return result


def test_the_same_policy_decides_the_same_and_another_shows_what_changes(
    run: Run, verb: Verb, home: Path, tmp_path: Path
) -> None:
    first = run(*SHORT)
    again = decided(verb, "digits@2", "gate.retention=waived")
    assert again["decision"] == {**first["decision"], "applied": False}
    assert again["before"]["decision"] == first["decision"]
    assert (again["changes"], again["recorded"]) == ({}, False)
    assert again["metrics"] == first["metrics"]
    assert len(registry(home).cycles("digits")) == 2
    assert decided(verb, "version=digits@candidate", *SHORT[2:])["decision"] == again["decision"]
    check_another_policy(verb, home, tmp_path)
    check_a_new_bound(verb)


def check_another_policy(verb: Verb, home: Path, tmp_path: Path) -> None:
    before = registry(home).cycles("digits")
    stricter = ("gate.improvement.minimum_effect=0.6", "gate.alpha=0.01")
    code, printed, _ = verb("decide", "digits@2", *stricter, *SHORT[2:], "json=kept.json")
    assert code == 20
    flat = " ".join(printed.split())
    assert "gate.alpha: 0.05 then, 0.01 now" in flat
    assert "pass reject improvement" in flat
    assert "REJECTED (was promoted)" in flat
    assert "nothing was recorded" in flat
    assert "serves on" not in flat
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert kept["changes"]["gate.alpha"] == [0.05, 0.01]
    assert (kept["status"], kept["before"]["verdict"]) == ("rejected", "promoted")
    # history was looked at then too: what was waived can be asked for now
    unwaived = decided(verb, "digits@2")
    assert unwaived["decision"]["checks"][0]["outcome"] != "waived"
    assert decided(verb, "digits@2", *stricter, *SHORT[2:], "exit_zero=true")["exit_code"] == 0
    assert registry(home).cycles("digits") == before
    assert registry(home).aliases("digits")["champion"] == 2


def check_a_new_bound(verb: Verb) -> None:
    """Nobody asked for it then: it is measured now, from the stored predictions."""
    metric = "{metric: MulticlassF1Score, arguments: {average: macro}, rows: new, limit: %s}"
    for limit, outcome in ((0.01, "pass"), (0.99, "reject")):
        found = decided(verb, "digits@2", *SHORT[2:], f"gate.bounds=[{metric % limit}]")
        (bound,) = [one for one in found["decision"]["checks"] if one["name"].startswith("bound/")]
        assert bound["outcome"] == outcome
    code, _, errors = verb("decide", "digits@2", f"gate.bounds=[{metric % 0.5}]".replace("F1", "F"))
    assert (code, "did you mean" in errors) == (1, True)


def test_promotion_is_recorded_charged_and_moves_the_alias(
    run: Run, verb: Verb, home: Path
) -> None:
    strict = ("gate.improvement.minimum_effect=0.6",)
    assert run(*SHORT, *strict)["status"] == "rejected"
    still = decided(verb, "digits@2", *SHORT[2:], *strict, "promote=true")
    assert (still["status"], still["recorded"]) == ("rejected", True)
    assert still["decision"]["decision_number"] == 2
    code, printed, _ = verb("decide", "digits@2", *SHORT[2:], "promote=true")
    assert code == 0
    flat = " ".join(printed.split())
    assert "decision 3 on these new rows: each test at 0.013 instead of 0.05" in flat
    check_what_a_recorded_decision_leaves(verb, home)
    assert "digits@2 serves now in place of digits@1" in flat
    assert registry(home).aliases("digits") == {"champion": 2, "previous": 1, "candidate": 2}
    records = registry(home).cycles("digits")[1:]
    assert [(one.verdict, one.applied) for one in records] == [
        ("rejected", False),
        ("rejected", False),
        ("promoted", True),
    ]
    assert "promoted" in verb("registry", "list")[1]
    code, _, errors = verb("decide", "digits@2", "promote=true")
    assert (code, "digits@2 serves already" in errors) == (1, True)


def check_what_a_recorded_decision_leaves(verb: Verb, home: Path) -> None:
    """What a cycle leaves: result and page, in a run folder and in the version."""
    folders = sorted((home.parent / "outputs").glob("*/*"))
    assert len(folders) == 2
    results = [json.loads((folder / "result.json").read_text()) for folder in folders]
    assert [one["status"] for one in results] == ["rejected", "promoted"]
    assert results[1]["report"].endswith("report.html")
    page = (folders[1] / "report.html").read_text()
    assert "digits@1 → digits@2" in page
    exported = Path(verb("registry", "path", "digits@2")[1].strip())
    assert (exported / "decisions/3/report.html").read_text() == page
    kept = json.loads((exported / "decisions/3/result.json").read_text())
    assert kept["decision"] == results[1]["decision"]
    # the first decision stays what it was
    assert json.loads((exported / "result.json").read_text())["status"] == "rejected"
    shown = json.loads(verb("registry", "show", "digits@2")[1])
    assert (shown["verdict"], shown["decision"]["number"]) == ("promoted", 3)
    assert shown["decision"]["files"]["report.html"] == "decisions/3/report.html"
    # settings of then are those of the decision that is compared with
    again = decided(verb, "digits@2", *SHORT[2:], "gate.improvement.minimum_effect=0.6")
    assert again["changes"] == {"gate.improvement.minimum_effect": [0.0, 0.6]}
    assert again["promoting"] is None
    assert again["serves"] == "digits@2"


def test_a_preview_says_what_promoting_would_come_to(run: Run, verb: Verb) -> None:
    assert run(*SHORT, "gate.improvement.minimum_effect=0.6")["status"] == "rejected"
    preview = decided(verb, "digits@2", *SHORT[2:])
    assert (preview["status"], preview["decision"]["alpha"]) == ("promoted", 0.05)
    assert preview["promoting"] == {"verdict": "promoted", "alpha": 0.025, "decision_number": 2}
    code, printed, _ = verb("decide", "digits@2", *SHORT[2:])
    flat = " ".join(printed.split())
    assert "promote=true records it as decision 2 on these new rows, each test at 0.025" in flat
    assert (code, "would be" in flat) == (0, False)
    assert "nothing was recorded, and digits@1 serves as before" in flat
    code, _, errors = verb("decide", "-m", "digits@2", "gate.alpha=0.01,0.02")
    assert (code, "one version and one policy at a time" in errors) == (1, True)


def test_a_champion_that_changed_meanwhile_refuses(run: Run, verb: Verb, home: Path) -> None:
    run(*SHORT, "promote=false")
    run(*SHORT, "optimizer.lr=0.002")
    assert registry(home).aliases("digits")["champion"] == 3
    before = registry(home).cycles("digits")
    code, _, errors = verb("decide", "digits@2", *SHORT[2:], "promote=true")
    assert (code, "expected digits@1, found digits@3" in errors) == (1, True)
    assert registry(home).cycles("digits") == before
    assert decided(verb, "digits@2", *SHORT[2:])["status"] == "promoted"


def test_it_needs_no_framework_and_says_what_cannot_be_decided_on(
    run: Run, verb: Verb, home: Path, tmp_path: Path
) -> None:
    assert verb("decide", "digits@2")[0] == 1
    run(*SHORT)
    check_that_no_framework_is_loaded(tmp_path)
    for arguments, words in (
        ((), "version must be given"),
        (("digits@1",), "digits@1 founded its lineage"),
        (("digits@9",), "has no version '9'"),
        (("digit@2",), "did you mean 'digits'"),
        (("digits",), "does not name a version"),
        (("digits@2", "gate.alpha=0.7"), "gate.alpha"),
        (("digits@2", "gate=stict"), "did you mean gate=strict"),
        (("digits@2", "promote=yes"), "true or false"),
    ):
        code, _, errors = verb("decide", *arguments)
        assert (code, words in errors) == (1, True), errors
    stored = registry(home).version("digits@2").open(predictions.ROWS)
    stored.chmod(0o644)
    stored.write_bytes(stored.read_bytes()[:-1])
    code, printed, errors = verb("decide", "digits@2", "promote=true")
    assert (code, "no longer has the SHA-256" in errors) == (1, False)
    assert "serves already" in errors
    code, printed, errors = verb("decide", "digits@2")
    assert (code, printed, "no longer has the SHA-256" in errors) == (1, "", True)


def check_that_no_framework_is_loaded(folder: Path) -> None:
    script = (
        "import sys; from perennial.cli import main\n"
        "sys.argv = ['perennial', 'decide', 'digits@2']\n"
        "try: main()\n"
        "except SystemExit as stopped: code = stopped.code\n"
        "heavy = {'torch', 'lightning', 'torchmetrics', 'wandb', 'datasets'} & set(sys.modules)\n"
        "print(code, sorted(heavy))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=True
    )
    code, _, heavy = done.stdout.splitlines()[-1].partition(" ")
    assert code in ("0", "20", "21")
    assert heavy == "[]"


def sweep(
    compose: Callable[..., dict[str, Any]], tmp_path: Path, *overrides: str
) -> dict[str, Any]:
    """One job of a multirun."""
    folder = tmp_path / f"trial-{'-'.join(overrides)}"
    folder.mkdir()
    config = compose("tracking=none", "trainer.accelerator=cpu", *SHORT, *overrides)
    result, objective = run_job(config, folder=folder, multirun=True)
    return {**result, "objective": objective}


@pytest.fixture
def trials(
    compose: Callable[..., dict[str, Any]], home: Path, tmp_path: Path
) -> dict[str, dict[str, Any]]:
    """Two trials, both of which the gate would promote."""
    rates = ("0.001", "0.002")
    found = {rate: sweep(compose, tmp_path, f"optimizer.lr={rate}") for rate in rates}
    assert {one["status"] for one in found.values()} == {"promoted"}
    return found


def test_trials_are_recorded_as_trials_and_not_counted(
    trials: dict[str, dict[str, Any]], home: Path, run: Run
) -> None:
    records = registry(home).cycles("digits")[1:]
    assert [record.trial for record in records] == [True] * 2
    assert [record.objective for record in records] == [one["objective"] for one in trials.values()]
    assert [one["decision"]["charge"]["trials"] for one in trials.values()] == [1, 2]
    assert {one["decision"]["decision_number"] for one in trials.values()} == {1}
    assert registry(home).aliases("digits")["champion"] == 1
    other = run(*SHORT, "optimizer.lr=0.0015", "promote=false")
    # a setting that was none of theirs is one more look at these rows
    assert other["decision"]["decision_number"] == 3
    assert other["decision"]["charge"] == {"trial": False, "trials": 2, "best": False}
    # a trial that is retrained instead of applied is charged like it
    best = max(trials, key=lambda one: trials[one]["objective"])
    rate = next(one for one in trials if one != best)
    forced = run(*SHORT, f"optimizer.lr={rate}", "force=true", "promote=false")
    assert forced["decision"]["decision_number"] == 3


def test_the_best_trial_is_applied_at_the_charge_of_one_decision(
    trials: dict[str, dict[str, Any]],
    home: Path,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rate = max(trials, key=lambda one: trials[one]["objective"])
    with monkeypatch.context() as patch:
        patch.setattr(
            tell, "decide_again", lambda *_, **__: (_ for _ in ()).throw(changed("m", 1, 9))
        )
        assert run(*SHORT, f"optimizer.lr={rate}")["status"] == "failed"
    assert registry(home).untold("digits") == []
    applied = run(*SHORT, f"optimizer.lr={rate}")
    assert (applied["status"], applied["decision"]["applied"]) == ("promoted", True)
    assert applied["decision"]["decision_number"] == 1
    assert applied["decision"]["charge"] == {"trial": False, "trials": 2, "best": True}
    assert applied["candidate"] == trials[rate]["candidate"]
    assert registry(home).aliases("digits")["champion"] == int(applied["candidate"]["id"][-1])
    once = "he best on validation rows of 2 trials on these new rows counts once"
    assert once in " ".join(capsys.readouterr().out.split())
    page = " ".join(Path(applied["report"]).read_text().split())
    assert once in page
    assert f"{applied['candidate']['id']} serves now in place of digits@1" in page
    assert run(*SHORT, f"optimizer.lr={rate}")["status"] == "skipped"


def test_another_trial_is_charged_for_all_of_them(
    trials: dict[str, dict[str, Any]], home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = max(trials, key=lambda one: trials[one]["objective"])
    rate = next(one for one in trials if one != best)
    with monkeypatch.context() as patch:  # killed between the record and the telling
        patch.setattr(tell, "_track", lambda *_: (_ for _ in ()).throw(Stopped))
        with pytest.raises(Stopped):
            run(*SHORT, f"optimizer.lr={rate}")
    assert registry(home).aliases("digits")["champion"] != 1
    applied = run(*SHORT, f"optimizer.lr={rate}")
    assert applied["decision"]["decision_number"] == 2
    assert applied["decision"]["alpha"] == pytest.approx(0.05 / 2)
    assert applied["decision"]["charge"] == {"trial": False, "trials": 2, "best": False}
    assert (applied["status"], applied["decision"]["applied"]) == ("promoted", True)
    records = registry(home).cycles("digits")[1:]
    assert [one.applied for one in records if not one.trial] == [True]
    assert len([one for one in records if one.trial]) == 2  # they stay what they were


def test_of_two_runs_on_the_same_rows_the_later_one_is_the_second_decision(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gather, races = cycle.gather, []

    def overtaken(*arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(cycle, "gather", gather)
        races.append(run(*SHORT, "seed=1", "promote=false"))
        return gather(*arguments, **named)

    run(*SHORT, "debug=none", "promote=false")
    monkeypatch.setattr(cycle, "gather", overtaken)
    later = run(*SHORT, "seed=2", "promote=false")
    assert races[0]["decision"]["decision_number"] == 2
    assert (later["decision"]["decision_number"], later["decision"]["alpha"]) == (3, 0.0125)
    numbers = [one.decision["decision_number"] for one in registry(home).cycles("digits")[1:]]  # type: ignore[index]
    assert numbers == [1, 2, 3]
