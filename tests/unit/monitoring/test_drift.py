"""Windows held against a reference: what moved, what did not, and how often chance cries."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from scipy import stats

from perennial.data.columns import TEXT
from perennial.errors import ConfigError, DataError
from perennial.monitoring.calibration import PHASES, Calibration
from perennial.monitoring.drift import Examiner, Represented, examine
from perennial.monitoring.findings import Findings
from perennial.monitoring.joint import Vectors
from perennial.monitoring.window import Window
from perennial.statistics import benjamini_hochberg, tail_threshold
from support.drifting import columns, reference, rows

DAILY = Calibration(draws=100)
REFERENCE = reference(rows(columns(2000, 0)))


@pytest.fixture(scope="module")
def examiner() -> Examiner:
    return Examiner(REFERENCE, calibration=DAILY, permutations=200)


def found(examiner: Examiner, features: dict[str, Any]) -> Findings:
    return examiner.examine(Window.of(features, examiner.reference))


def moved(findings: Findings) -> set[tuple[str, str, str]]:
    return {(one.of, one.measured.name, one.measured.test) for one in findings.moved}


def test_nothing_moved(examiner: Examiner) -> None:
    findings = found(examiner, columns(500, 1))
    assert not findings.alarm
    assert findings.reason == "nothing moved by more than chance in 500 rows"
    assert {one.measured.name for one in findings.shifts} == {"a", "b", "city", "rows"}
    (a,) = [one.measured for one in findings.shifts if one.measured.name == "a"]
    expected = stats.ks_2samp(REFERENCE.numbers("a"), columns(500, 1)["a"], method="asymp")
    assert a.p == pytest.approx(expected.pvalue)
    q = stats.false_discovery_control([one.measured.p for one in findings.shifts])
    assert [one.q for one in findings.shifts] == pytest.approx(list(q))


def test_a_mean_that_moved(examiner: Examiner) -> None:
    findings = found(examiner, columns(500, 1, shift=0.5))
    assert findings.alarm
    assert ("input", "a", "ks") in moved(findings)
    assert ("input", "b", "ks") not in moved(findings)
    assert findings.reason.startswith("a (by 0.49 ")
    assert json.loads(json.dumps(findings.to_dict(), allow_nan=False))["alarm"] is True


def test_a_correlation_that_moved_while_no_column_did(examiner: Examiner) -> None:
    findings = found(examiner, columns(800, 1, tied=0.8))
    assert moved(findings) == {("rows", "rows", "mmd")}
    assert findings.reason == "the columns together moved in 800 rows"


@pytest.mark.slow
def test_the_classifier_sees_it_too() -> None:
    both = Examiner(REFERENCE, calibration=DAILY, tests=("classifier",))
    assert not found(both, columns(800, 1)).alarm
    assert moved(found(both, columns(800, 1, tied=0.8))) == {("rows", "rows", "classifier")}


def test_a_city_never_seen_and_values_gone_missing(examiner: Examiner) -> None:
    features = columns(500, 1)
    features["city"][:60] = "Ulm"
    features["b"][:100] = np.nan
    findings = found(examiner, features)
    assert {("input", "city", "chi_square"), ("input", "b", "missing")} <= moved(findings)
    assert "city (never seen: Ulm)" in findings.reason
    assert "in categories never seen)" in findings.nameless
    assert "Ulm" not in findings.nameless
    assert "b (missing 0.0%, now 20.0%)" in findings.reason


def test_many_rows_do_not_alarm_at_nothing() -> None:
    wide = Examiner(REFERENCE, calibration=DAILY, tests=())
    features = columns(60_000, 1, shift=0.08)
    findings = found(wide, features)
    (a,) = [one for one in findings.shifts if one.measured.name == "a"]
    assert a.q < 2e-3 < DAILY.minimum_effect / 2 < a.measured.effect < DAILY.minimum_effect
    assert not findings.alarm
    strict = Examiner(REFERENCE, calibration=Calibration(draws=100, minimum_effect=0.0), tests=())
    assert found(strict, columns(60_000, 1, shift=0.3)).alarm


def test_a_season_inside_the_reference_raises_no_alarm() -> None:
    def days(first: int, count: int, seed: int) -> dict[str, Any]:
        features = columns(100 * count, seed)
        weekend = np.repeat(np.arange(first, first + count) % 7 >= 5, 100)
        features["a"] += 1.5 * weekend.astype(np.float32)
        return features

    given = rows(days(0, 84, 0), time=np.arange(8400))
    weekly = Calibration(draws=200, false_alarms_per_year=2)
    seasonal = Examiner(reference(given), calibration=weekly, tests=())
    blind = Examiner(reference(rows(days(0, 84, 0))), calibration=weekly, tests=())
    saturday = days(5, 1, 3)
    assert not found(seasonal, saturday).alarm
    assert found(blind, saturday).alarm, "without time nothing says that there is a season"
    new = days(5, 1, 3)
    new["a"] += 3
    assert found(seasonal, new).alarm


def test_the_strictest_beginning_of_windows_decides() -> None:
    features = columns(1200, 0)
    # every other stretch of 100 rows is another: windows that begin between them see half of each
    features["a"] += np.float32(2) * (np.arange(1200) // 100 % 2).astype(np.float32)
    whole = reference(rows(features, time=np.arange(1200)))
    examiner = Examiner(
        whole, calibration=Calibration(draws=400, false_alarms_per_year=100), tests=()
    )
    drawn = examiner._under_no_shift(100)
    parts = np.split(benjamini_hochberg(drawn).min(axis=1), PHASES)
    each = [tail_threshold(part, examiner.calibration.probability) for part in parts]
    assert max(each) > 100 * min(each)
    assert examiner.threshold(100, tests=3) == min(each)


def test_so_do_the_rows_that_all_columns_are_looked_at_by(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    monkeypatch.setattr(Vectors, "measured", lambda self, given: looked.append(len(given)) or [])
    small = reference(rows(columns(4000, 0), time=np.arange(4000)), capacity=1000)
    findings = examine(small, Window.of(columns(800, 1), small), calibration=DAILY)
    assert looked == [findings.joint_rows] == [200]


def test_a_window_counts_for_a_stretch_of_the_sample() -> None:
    small = reference(rows(columns(8000, 0), time=np.arange(8000)), capacity=2000)
    findings = examine(small, Window.of(columns(800, 1), small), calibration=DAILY, tests=())
    assert (findings.rows, findings.counted_rows) == (800, 200)
    assert any("the 800 rows of the window count for 200" in note for note in findings.notes)
    size = round(2000 * 200 / 2200)
    assert stats.kstwo.sf(findings.resolution, size) == pytest.approx(
        findings.threshold / 3, rel=0.05
    )


def test_what_a_model_makes_of_rows_is_compared_on_the_holdout() -> None:
    whole = reference(rows(columns(1500, 0)), held=500)
    asked: list[int] = []

    def model(features: Any) -> Represented:
        asked.append(len(features["a"]))
        a = features["a"].astype(np.float64)
        names = np.where(a > 0, "yes", "no").astype(TEXT)
        return Represented(np.stack([a, a**2], axis=1), names, 1 / (1 + np.exp(-np.abs(a))))

    examiner = Examiner(whole, calibration=DAILY, represent=model)
    same = found(examiner, columns(400, 1))
    assert asked == [500, 400]
    assert not same.alarm
    assert {(one.of, one.measured.name) for one in same.shifts} >= {
        ("features", "features"),
        ("prediction", "prediction"),
        ("prediction", "confidence"),
    }
    other = moved(found(examiner, columns(400, 2, shift=1.0)))
    assert {("prediction", "prediction", "chi_square"), ("features", "features", "mmd")} <= other


def test_a_model_without_features_and_predictions_is_no_obstacle() -> None:
    findings = examine(
        REFERENCE,
        Window.of(columns(300, 1), REFERENCE),
        calibration=DAILY,
        represent=lambda features: Represented(None),
    )
    assert not findings.alarm
    assert any("too few holdout rows" in note for note in findings.notes)


def test_columns_that_say_nothing_are_named(examiner: Examiner) -> None:
    features = columns(300, 0)
    features["a"][:] = 2.0
    features["b"][:] = np.nan
    whole = reference(rows(features))
    window = columns(100, 1)
    findings = examine(whole, Window.of(window, whole), calibration=DAILY)
    assert "a: constant in the reference, at 2" in findings.notes
    assert "b: missing in every row of the reference, so that its values compare with nothing" in (
        findings.notes
    )
    assert {("input", "a", "ks"), ("input", "b", "missing")} <= moved(findings)


def test_three_rows_say_nothing(examiner: Examiner) -> None:
    with pytest.raises(DataError, match="The window has 3 rows; 30 are the fewest"):
        found(examiner, columns(3, 1))
    with pytest.raises(DataError, match="has 50 rows, and 100 are"):
        Examiner(reference(rows(columns(50, 0))), calibration=DAILY)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="mmd, classifier"):
        Examiner(REFERENCE, calibration=DAILY, tests=("psi",))
    with pytest.raises(ConfigError, match="at least 100"):
        Examiner(REFERENCE, calibration=DAILY, permutations=10)


def test_the_same_seed_gives_the_same_answer() -> None:
    answers = [
        examine(REFERENCE, Window.of(columns(300, 1), REFERENCE), calibration=DAILY, workers=n)
        for n in (1, 3)
    ]
    assert answers[0] == answers[1]


@pytest.mark.slow
@pytest.mark.parametrize("has_time", [False, True])
def test_chance_alarms_as_often_as_it_may(has_time: bool) -> None:
    calibration = Calibration(
        false_alarms_per_year=5, every=timedelta(weeks=1), draws=200, minimum_effect=0.0
    )
    alarms = []
    for seed in range(40):
        time = np.arange(800) if has_time else None
        whole = reference(rows(columns(800, 1000 + seed), time=time))
        examiner = Examiner(whole, calibration=calibration, permutations=200)
        alarms += [
            found(examiner, columns(150, 10_000 + 100 * seed + one)).alarm for one in range(10)
        ]
    allowed = calibration.probability
    assert np.mean(alarms) <= allowed + 2.5 * np.sqrt(allowed / len(alarms))
    assert np.mean(alarms) > 0.2 * allowed
