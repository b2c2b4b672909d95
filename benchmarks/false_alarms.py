"""How often the monitor cries without a change, and how soon it does after one.

python benchmarks/false_alarms.py --workers 2 --json false_alarms.json

Stationary streams: a reference of 600 rows and windows of 120, four columns of numbers and one of
categories, all tied to each other and to a class. Seasonal ones: eight weeks of days, then windows
of one day; weekends differ in the mean, hours in the spread, or months in the categories, and
nothing else happens. Beside the monitor stand the rules that people write, any column with p < 0.05
and any with PSI > 0.2. For delays these rules get, from the stationary streams, the very threshold
at which they cry as often as the monitor may; in practice nobody knows it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from harness import bar, finish
from river.drift import ADWIN

from perennial.data.columns import TEXT
from perennial.data.preprocess import Table
from perennial.data.rows import Rows
from perennial.monitoring.calibration import Calibration
from perennial.monitoring.drift import Examiner
from perennial.monitoring.reference import Reference, sample
from perennial.monitoring.window import Window

SCHEMA = {**{f"x{i}": "float32 ()" for i in range(4)}, "plan": "str ()"}
PLANS = np.array(["free", "basic", "pro", "team"]).astype(TEXT)
REFERENCE, WINDOW, WINDOWS = 600, 120, 13
WEEKLY = Calibration(
    false_alarms_per_year=4, every=timedelta(weeks=1), minimum_effect=0.0, draws=200
)
RATES = {
    "weekly, 4 a year": WEEKLY,
    "weekly, 1 a year": replace(WEEKLY, false_alarms_per_year=1),
    "daily, 4 a year": replace(WEEKLY, every=timedelta(days=1)),
}
DAY, DAYS = 100, 56
SEASONS = ("weekends", "hours", "months")
SHIFTS = ("mean", "covariance", "class prior", "P(y|x)")
ERROR, WORSE = 0.1, 0.3


def columns(
    count: int, generator: np.random.Generator, *, prior: float = 0.5, tied: float = 0.0
) -> dict[str, Any]:
    """Rows of two classes, of which the first number and the plan tell."""
    label = generator.random(count) < prior
    x = generator.normal(size=(count, 4))
    x[:, 0] += label
    x[:, 2] = tied * x[:, 1] + np.sqrt(1 - tied**2) * x[:, 2]
    x[:, 3] = np.floor(np.exp(x[:, 3]))
    place = generator.random(count) + 0.2 * label
    plan = PLANS[np.searchsorted([0.5, 0.8, 1.05], place)]
    return {**{f"x{i}": x[:, i].astype(np.float32) for i in range(4)}, "plan": plan}


def reference(features: dict[str, Any], *, in_time: bool = False) -> Reference:
    """What a version would carry of these rows."""
    count = len(features["plan"])
    ids = np.arange(count).astype(np.str_)
    rows = Rows(
        features=features,
        label=np.zeros(count, np.int64),
        id=ids,
        content=ids,
        cluster=ids,
        time=np.arange(count) if in_time else None,
    )
    parts = {"train": rows, "holdout": rows.take(slice(0, 0))}
    found = sample(parts, capacity=10_000, seed=0, schema=SCHEMA, preprocess=Table())
    assert found is not None
    return found


def looked(examiner: Examiner, features: dict[str, Any]) -> dict[str, Any]:
    """One window by every rule: what it says, and by how much."""
    findings = examiner.examine(Window.of(features, examiner.reference))
    own = [one.measured for one in findings.shifts if one.of == "input"]
    rows, tests = findings.rows, len(findings.shifts)
    alarms = {}
    for name, calibration in RATES.items():
        examiner.calibration = calibration
        alarms[name] = findings.overall <= examiner.threshold(rows, tests=tests)
    return {
        "alarms": alarms,
        "p": min(one.p for one in own),
        "psi": max(one.detail["psi"] for one in own),
    }


def examiner_of(whole: Reference, **settings: Any) -> Examiner:
    """Ready to look, on one thread."""
    return Examiner(whole, calibration=WEEKLY, permutations=100, workers=1, **settings)


def stationary(seed: int, *, tests: tuple[str, ...] = ("mmd",)) -> list[dict[str, Any]]:
    """One stream in which nothing happens."""
    generator = np.random.default_rng([1, seed])
    examiner = examiner_of(reference(columns(REFERENCE, generator)), tests=tests)
    return [looked(examiner, columns(WINDOW, generator)) for _ in range(WINDOWS)]


def seasonal(seed: int, *, season: str) -> list[dict[str, Any]]:
    """One stream in which there is a season and nothing else."""
    generator = np.random.default_rng([2, SEASONS.index(season), seed])

    def days(first: int, count: int) -> dict[str, Any]:
        features = columns(DAY * count, generator)
        day = np.repeat(np.arange(first, first + count), DAY)
        hour = np.tile(np.arange(DAY) * 24 // DAY, count)
        if season == "weekends":
            features["x1"] += (day % 7 >= 5).astype(np.float32)
        elif season == "hours":
            features["x1"] *= np.where((hour > 8) & (hour < 20), 1, 3).astype(np.float32)
        else:
            often = generator.random(len(day)) < 0.2 * (1 + np.sin(2 * np.pi * day / 28))
            features["plan"] = np.where(often, "team", features["plan"])
        return features

    examiner = examiner_of(reference(days(0, DAYS), in_time=True))
    return [looked(examiner, days(DAYS + one, 1)) for one in range(14)]


def shifted(seed: int, *, shift: str) -> list[dict[str, Any]]:
    """One stream in which something happened just before its first window."""
    generator = np.random.default_rng([3, SHIFTS.index(shift), seed])
    examiner = examiner_of(reference(columns(REFERENCE, generator)))
    detector = ADWIN()
    for wrong in generator.random(REFERENCE) < ERROR:
        detector.update(int(wrong))
    found = []
    for _ in range(WINDOWS):
        features = columns(
            WINDOW,
            generator,
            prior=0.75 if shift == "class prior" else 0.5,
            tied=0.7 if shift == "covariance" else 0.0,
        )
        if shift == "mean":
            features["x1"] += np.float32(0.3)
        error = WORSE if shift == "P(y|x)" else ERROR
        worse = False
        for wrong in generator.random(WINDOW) < error:
            detector.update(int(wrong))
            worse |= detector.drift_detected
        found.append({**looked(examiner, features), "adwin": worse})
    return found


def shares(streams: Sequence[Sequence[dict[str, Any]]]) -> dict[str, float]:
    """Of all windows, those in which each rule cries."""
    windows = [window for stream in streams for window in stream]
    found = {name: mean(window["alarms"][name] for window in windows) for name in RATES}
    found["any column p < 0.05"] = mean(window["p"] < 0.05 for window in windows)
    found["any column PSI > 0.2"] = mean(window["psi"] > 0.2 for window in windows)
    return {name: float(share) for name, share in found.items()}


def delays(
    streams: Sequence[Sequence[dict[str, Any]]], cries: Callable[[dict[str, Any]], bool]
) -> dict[str, float]:
    """Median windows to the first cry, one more than all where there is none, and how many cry."""
    first = [
        next((place for place, window in enumerate(stream, 1) if cries(window)), WINDOWS + 1)
        for stream in streams
    ]
    return {"median": float(median(first)), "share": mean(one <= WINDOWS for one in first)}


def compared(
    still: Sequence[Sequence[dict[str, Any]]], moved: Sequence[Sequence[dict[str, Any]]]
) -> dict[str, dict[str, float]]:
    """Delays of the monitor, of the rules at the same rate, and of the detector of errors."""
    windows = [window for stream in still for window in stream]
    name = "weekly, 1 a year"
    probability = RATES[name].probability
    p = float(np.quantile([window["p"] for window in windows], probability))
    psi = float(np.quantile([window["psi"] for window in windows], 1 - probability))
    return {
        "monitor": delays(moved, lambda window: window["alarms"][name]),
        "smallest p, same rate": delays(moved, lambda window: window["p"] <= p),
        "largest PSI, same rate": delays(moved, lambda window: window["psi"] >= psi),
        "ADWIN on errors": delays(moved, lambda window: window["adwin"]),
    }


def main() -> None:
    """Print two tables and the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reduced", action="store_true", help="a fiftieth of the streams")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    part = 50 if chosen.reduced else 1
    counts = {"stationary": 1000 // part, "season": max(20 // part, 2), "shift": max(40 // part, 6)}
    with ProcessPoolExecutor(chosen.workers) as pool:
        still = list(pool.map(stationary, range(counts["stationary"]), chunksize=5))
        classified = list(
            pool.map(partial(stationary, tests=("classifier",)), range(counts["season"]))
        )
        seasons = {
            one: list(pool.map(partial(seasonal, season=one), range(counts["season"])))
            for one in SEASONS
        }
        moved = {
            one: list(pool.map(partial(shifted, shift=one), range(counts["shift"])))
            for one in SHIFTS
        }
    rows: list[dict[str, Any]] = []
    everything = {"stationary": still, "stationary, by the classifier": classified, **seasons}
    for name, streams in everything.items():
        rows.append({"streams": name, "count": len(streams), **shares(streams)})
        print(f"{name} ({len(streams)} streams)")
        for rule, share in shares(streams).items():
            told = f" of {RATES[rule].probability:.2%} allowed" if rule in RATES else ""
            print(f"  {rule:24} {share:7.2%}{told}")
    for shift, streams in moved.items():
        print(f"{shift}: median windows of {WINDOW} rows to the alarm, share that gives one")
        for rule, found in compared(still, streams).items():
            rows.append({"shift": shift, "rule": rule, **found})
            print(f"  {rule:24} {found['median']:4.1f}  {found['share']:.0%}")
    limits = [
        bar(
            f"alarms over those allowed, {name}: {rate}",
            shares(streams)[rate] / RATES[rate].probability,
            1.2,
            higher=False,
        )
        for name, streams in (
            ("stationary", still),
            ("seasonal", [stream for one in seasons.values() for stream in one]),
        )
        for rate in RATES
    ]
    # a fiftieth of the streams cannot tell one rate from another
    finish(rows, limits[:0] if chosen.reduced else limits, chosen.json)


if __name__ == "__main__":
    main()
