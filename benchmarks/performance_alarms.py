"""Alarms on a champion's own errors: how often without a change, and how soon after one.

python benchmarks/performance_alarms.py --json performance_alarms.json

Each life draws held-out rows, calibrates detectors on them, and watches five years in which nothing
changes and one in which accuracy falls from 0.9 to 0.8 after a quarter of it. Beside them river's
detectors with their own settings. Estimates without labels are held against windows whose inputs
are harder, and against windows in which the labels alone mean something else.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from harness import bar, finish
from river import drift

from perennial.monitoring.performance import HeldOut, detectors, estimated, recorded, thresholds
from perennial.monitoring.performance.stream import Rhythm, scale

GOOD, BAD, YEARS, ALLOWED = 0.9, 0.8, 5, 1.2
OWN = "river's own "
Draw = Callable[[np.random.Generator, int, float], Any]


def right(generator: np.random.Generator, rows: int, share: float) -> Any:
    return (generator.random(rows) < share).astype(float)


def skewed(generator: np.random.Generator, rows: int, share: float) -> Any:
    """Minus exponential errors, whose mean moves as far as accuracy does in its own deviation."""
    return -generator.exponential(1 + (GOOD - share) / np.sqrt(GOOD * (1 - GOOD)), rows)


# name, draws scores at an accuracy, held-out rows, rows a year, false alarms a year
CASES: list[tuple[str, Draw, int, int, float]] = [
    ("0/1, 1,000 held out, 50,000 rows a year", right, 1000, 50_000, 1.0),
    ("0/1, 300 held out, 5,000 rows a year", right, 300, 5_000, 1.0),
    ("skewed, 1,000 held out, 5,000 rows a year", skewed, 1000, 5_000, 1.0),
    ("0/1, 1,000 held out, 50,000 rows a year, one a month", right, 1000, 50_000, 12.0),
    ("0/1, 300 held out, 400,000 rows a year", right, 300, 400_000, 1.0),
]


def rivers_own(kind: str, errors: Any) -> list[int]:
    """Alarms of a detector as river sets it, on the errors themselves."""
    made = drift.ADWIN() if kind == detectors.ADWIN else drift.PageHinkley(mode="up")
    found = []
    for at, value in enumerate(errors.tolist()):
        before = made.estimation if kind == detectors.ADWIN else 0.0
        made.update(value)
        if made.drift_detected and (kind != detectors.ADWIN or made.estimation > before):
            found.append(at)
    return found


def alarms_of(draw: Draw, generator: np.random.Generator, held_out: int, rows: int, rate: float):
    """A way of watching and scores to the rows of its alarms, for a version of its own."""
    known = HeldOut(draw(generator, held_out, GOOD))
    measured = scale(known)
    assert measured is not None
    how = thresholds.watch(known, measured, Rhythm(52, rows), rate=rate / 2, smallest_drop=0.01)
    before = thresholds.points_before(known, measured, how.block)

    def alarms(way: str, score: Any) -> list[int]:
        if way not in detectors.KINDS:
            return rivers_own(way.removeprefix(OWN), -score)
        found = detectors.alarms(
            way,
            before,
            measured.errors(score, how.block),
            threshold=how.thresholds[way],
            slack=how.slack,
        )
        return [(at + 1) * how.block - 1 for at in found]

    return alarms


def quantile(found: list[float], share: float) -> float | None:
    """Of delays; None where it was not seen within the year."""
    value = float(np.quantile(found, share, method="higher"))
    return value if np.isfinite(value) else None


def watched(draw: Draw, held_out: int, rows: int, rate: float, lives: int) -> dict[str, Any]:
    """False alarms a year and delays in rows, calibrated and as river sets them."""
    ways = [*detectors.KINDS, *(f"{OWN}{kind}" for kind in detectors.KINDS)]
    false, delays = dict.fromkeys(ways, 0), {way: [] for way in [*ways, "either"]}
    start = rows // 4
    for life in range(lives):
        generator = np.random.default_rng(life)
        alarms = alarms_of(draw, generator, held_out, rows, rate)
        for _ in range(YEARS):
            score = draw(generator, rows, GOOD)
            for way in ways:
                false[way] += len(alarms(way, score))
        score = np.concatenate([draw(generator, start, GOOD), draw(generator, rows - start, BAD)])
        for way in ways:
            at = next((a for a in alarms(way, score) if a >= start), None)
            delays[way].append(np.inf if at is None else at - start + 1)
        delays["either"].append(min(delays[kind][-1] for kind in detectors.KINDS))
    return {
        "allowed": rate,
        "false_alarms": {way: count / (YEARS * lives) for way, count in false.items()},
        "delay": {way: quantile(found, 0.5) for way, found in delays.items()},
        "slow_delay": {way: quantile(found, 0.9) for way, found in delays.items()},
    }


def unlabelled(windows: int, *, alarm: float = 0.05) -> dict[str, float]:
    """Share of windows of 300 rows on which the estimate alarms, 1,000 rows held out."""
    changes = {"none": (0.0, 0.0), "harder inputs": (0.7, 0.0), "labels alone": (0.0, 0.15)}
    counts = dict.fromkeys(changes, 0)
    for seed in range(windows):
        generator = np.random.default_rng(seed)

        def rows(count: int, hard: float, concept: float, generator: Any = generator) -> Any:
            x = generator.normal(1.5 - hard, 1, count)
            sure = 1 / (1 + np.exp(-2 * np.abs(x)))
            return sure, (generator.random(count) < sure - concept).astype(float)

        sure, score = rows(1000, 0, 0)
        known = HeldOut(score, sure, np.zeros(1000, int), 3)
        for name, change in changes.items():
            window = recorded(
                np.arange(300).astype(str),
                np.zeros(300, int),
                confidence=rows(300, *change)[0],
                now=datetime(2026, 1, 1, tzinfo=UTC),
                where="window",
            )
            found = estimated.estimates(known, window, alarm=alarm, smallest_drop=0.0)
            counts[name] += found[0].is_low
    return {name: count / windows for name, count in counts.items()}


def main() -> None:
    """Print a table and the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reduced", action="store_true", help="fewer lives and windows")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows, bars = [], []
    for name, draw, held_out, per_year, rate in CASES[1:2] if chosen.reduced else CASES:
        lives = 2 if chosen.reduced else 8 if per_year > 100_000 else 40
        found = watched(draw, held_out, per_year, rate, lives)
        rows.append({"case": name, "lives": lives, **found})
        both = sum(found["false_alarms"][kind] for kind in detectors.KINDS)
        shown = {way: f"{value:.2f}" for way, value in found["false_alarms"].items()}
        print(f"{name}: {rate:g} false alarms a year allowed, {shown}", flush=True)
        print(
            f"  rows to the alarm, median: {found['delay']}; of nine in ten: {found['slow_delay']}"
        )
        bars.append(
            bar(f"false alarms of those allowed: {name}", both / rate, ALLOWED, higher=False)
        )
    found = unlabelled(20 if chosen.reduced else 400)
    rows.append({"case": "estimated, windows of 300", "allowed": 0.05, "alarms": found})
    print(f"estimated without labels, 5% allowed: {found}")
    limit = found["none"] / 0.05
    bars.append(bar("false alarms of those allowed: estimated", limit, ALLOWED, higher=False))
    finish(rows, bars, chosen.json)


if __name__ == "__main__":
    main()
