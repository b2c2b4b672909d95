from __future__ import annotations

from typing import Any

import pytest

from perennial.promotion.multiplicity import Charge
from perennial.promotion.policy import Policy, level
from perennial.reporting.verdict import charge, interval, sentence, title


def check(name: str, outcome: str, estimate: float | None = -0.897) -> dict[str, Any]:
    plain = {"unit": "points", "side": "above", "veto": name.startswith("harm/")}
    interval = None if estimate is None else [estimate - 0.01, estimate + 0.01]
    told = {"name": name, "outcome": outcome, "estimate": estimate, **plain}
    return {**told, "threshold": -0.02, "interval": interval}


def result(
    status: str, *checks: dict[str, Any], applied: bool = False, **changes: Any
) -> dict[str, Any]:
    return {
        "status": status,
        "champion": {"id": "m@1"},
        "candidate": {"id": "m@2"},
        "metrics": {"champion": {}, "candidate": {}},
        "trigger": {"kind": "manual", "due": True, "reason": "all was decided", "evidence": {}},
        "exit_code": 1 if status == "failed" else 0,
        "decision": {
            "verdict": status,
            "applied": applied,
            "checks": list(checks),
            "charge": {"trial": False},
        },
        **changes,
    }


GAINED = {**check("improvement", "pass", 0.2), "threshold": 0.0}
PASSED = (check("retention", "pass", 0.01), GAINED)
WAIVED = (check("retention", "waived", None), GAINED)
UNTESTED = check("harm/history/cycle-1", "not_evaluable", None)
SMALL = {**check("slice/untested", "not_evaluable", None), "veto": True}
UNDECIDED = {**check("serving/latency_p95", "inconclusive", 1.04), "unit": "ratio"}
HARM = [check(f"harm/history/cycle-{i}", "reject", -0.05) for i in range(5)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            result("promoted", *PASSED, applied=True),
            "m@2 serves now in place of m@1: better on new rows, and nothing that matters was "
            "forgotten",
        ),
        (
            result("promoted", *PASSED, UNTESTED, SMALL, applied=True),
            "m@2 serves now in place of m@1: better on new rows, and nothing that matters was "
            "forgotten, as far as can be tested (harm/history/cycle-1 could not)",
        ),
        (
            result("promoted", *WAIVED, applied=True),
            "m@2 serves now in place of m@1: better on new rows, and history was not looked at",
        ),
        (
            result("promoted", WAIVED[0], check("improvement", "pass", -0.01), applied=True),
            "m@2 serves now in place of m@1: not worse by 2.0 points or more on new rows, and "
            "history was not looked at",
        ),
        (
            result(
                "promoted", WAIVED[0], {**check("improvement", "pass"), "unit": ""}, applied=True
            ),
            "m@2 serves now in place of m@1: not worse by 0.02 or more on new rows, and history "
            "was not looked at",
        ),
        (
            result("promoted", *PASSED),
            "m@1 serves on; m@2 passed every check: the same command with promote=true puts it "
            "in service",
        ),
        (
            result("rejected", check("retention", "reject"), PASSED[1]),
            "m@1 serves on; m@2 failed retention (-89.7 points on history)",
        ),
        (
            result(
                "rejected",
                check("retention", "inconclusive"),
                check("improvement", "reject", -0.012),
                HARM[0],
            ),
            "m@1 serves on; m@2 failed harm/history/cycle-0 (-5.0 points) and "
            "improvement (-1.2 points on new)",
        ),
        (
            result("rejected", check("retention", "reject"), *HARM),
            "m@1 serves on; m@2 failed retention (-89.7 points on history), "
            "harm/history/cycle-0 (-5.0 points) and 4 more checks",
        ),
        (
            result("inconclusive", PASSED[0], check("improvement", "inconclusive", 0.001)),
            "m@1 serves on; m@2 leaves improvement (+0.1 points on new) undecided",
        ),
        (
            result("inconclusive", check("retention", "not_evaluable", None), PASSED[1]),
            "m@1 serves on; retention could not be tested",
        ),
        (
            # a veto that could not be tested has no say
            result("inconclusive", check("harm/a", "not_evaluable", None), PASSED[0], UNDECIDED),
            "m@1 serves on; m@2 leaves serving/latency_p95 (1.04×) undecided",
        ),
        (
            result("skipped", metrics=None, decision=None, candidate=None),
            "m@1 serves on: all was decided",
        ),
        (
            result("skipped", metrics=None, decision={"verdict": "promoted", "applied": False}),
            "m@1 serves on: all was decided; m@2 is not applied: promote=true puts it in service",
        ),
        (
            result("promoted", metrics=None, applied=True),
            "m@2 serves now in place of m@1: all was decided",
        ),
        (
            result("failed", champion=None, candidate=None, metrics=None, decision=None),
            "registry and champion are as they were",
        ),
    ],
)
def test_the_sentence_says_who_serves_and_why(given: dict[str, Any], words: str) -> None:
    assert sentence(given) == words
    assert ("not applied" in title(given)) is ("passed every check" in words)


@pytest.mark.parametrize("status", ["promoted", "rejected", "inconclusive"])
def test_a_trial_says_what_it_would_be(status: str) -> None:
    trial = result(status, *PASSED)
    trial["decision"]["charge"] = {"trial": True}
    assert title(trial) == f"trial (would be {status})"
    assert "serves now" not in sentence(trial)
    # what was decided before is told as what this run is
    assert title({**trial, "status": "skipped"}) == "skipped"


def test_bad_data_is_called_so() -> None:
    bad = result("failed", exit_code=30, decision=None, metrics=None)
    assert title(bad) == "bad data"
    assert title({**bad, "exit_code": 1}) == "failed"


def test_what_has_no_bounds_shows_estimate_and_threshold() -> None:
    own = {**check("mine", "reject", -0.05), "interval": None, "threshold": -0.02}
    assert interval(own) == "-5.0 points must be above -2.0"
    assert interval({**own, "threshold": None}) == "-5.0 points"
    counted = {**UNDECIDED, "estimate": 1.0, "interval": [1.0, 1.0], "threshold": 1.5}
    assert interval({**counted, "side": "below"}) == "1× must be below 1.5×"


def test_an_interval_is_told_apart_from_its_threshold() -> None:
    close = {**check("retention", "pass", -0.005), "threshold": -0.02}
    assert (
        interval({**close, "interval": [-0.01996, 0.001]})
        == "-0.500 points [-1.996, +0.100], must be above -2.000"
    )
    assert (
        interval({**close, "interval": [-0.01, 0.001]})
        == "-0.5 points [-1.0, +0.1], must be above -2.0"
    )
    harm = {**close, "name": "harm/history/cycle-1", "veto": True, "interval": [-0.04, 0.001]}
    assert "must not lie wholly below -2.0" in interval(harm)
    assert interval(check("retention", "waived", None)) == ""


def charged(number: int, alpha: float, **tried: Any) -> dict[str, Any]:
    return {
        "decision_number": number,
        "alpha": alpha,
        "charge": Charge(number, **tried).to_dict(),
    }


@pytest.mark.parametrize(
    ("decision", "told"),
    [
        (
            charged(1, 0.05, trial=True, trials=3),
            "trial 3 of a sweep on these new rows, each test at 0.05: trials are not counted; the "
            "best one on validation rows counts once, when it is applied",
        ),
        (
            charged(2, 0.025, trial=True, trials=1),
            "trial 1 of a sweep on these new rows, each test at 0.025 instead of 0.05: trials are "
            "not counted; the best one on validation rows counts once, when it is applied",
        ),
        (
            charged(1, 0.05, trials=12, best=True),
            "the best on validation rows of 12 trials on these new rows counts once; each test at "
            "0.05",
        ),
        (
            charged(2, 0.025, trials=1, best=True),
            "the best on validation rows of 1 trial on these new rows counts once; decision 2 on "
            "these new rows: each test at 0.025 instead of 0.05",
        ),
        (
            charged(3, 0.0125, trials=3),
            "not the best on validation rows of 3 trials on these new rows, so charged for all of "
            "them; decision 3 on these new rows: each test at 0.013 instead of 0.05",
        ),
    ],
)
def test_trials_of_a_sweep_are_told_with_what_they_cost(
    decision: dict[str, Any], told: str
) -> None:
    assert charge(decision) == told


@pytest.mark.parametrize("number", range(1, 10))
def test_a_repeated_decision_tells_the_gate_s_own_level(number: int) -> None:
    alpha = level(Policy(alpha=0.04), number)
    told = charge(charged(number, alpha))
    if number == 1:
        assert told == ""
    else:
        assert told.endswith(f"each test at {alpha:.2g} instead of 0.04")
        assert f"decision {number} " in told
