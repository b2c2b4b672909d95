"""Retention over a series of contexts, through the real cycle: every method, seeds, two scenarios.

python benchmarks/retention.py --protocol split --source digits --scenario class domain \
    --method none replay joint --seeds 5 --json retention.json

Other sources: a folder of IDX files, of images in one folder per class, or a table. What is usual
for 28 x 28 digits:

python benchmarks/retention.py --protocol split --source mnist/ --scenario class domain \
    --hidden 400 400 --batch 128 --iterations 2000 --memory-per-class 100

Fashion-MNIST, a fifth of it, and in seconds:

python benchmarks/retention.py --source published:fashion-mnist --fraction 0.2 \
    --method none replay der ewc default joint --seeds 3 --tuning-seeds 1 --memory-per-class 50
python benchmarks/retention.py --method none replay --reduced
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from contestants import CONTESTANTS, Setting, compete
from harness import bar, finish
from protocols import PROTOCOLS, SCENARIOS, TEST_FRACTION, load, series, thinned

MEASURES = ("average_accuracy", "forgetting", "backward_transfer", "forward_transfer")

# Split-Digits as the options' defaults have it, mean accuracy over five seeds in %, measured with
# a bare training loop of the same protocol: 1,400 training and 397 test rows a seed, five pairs of
# classes, MLP 64-100-100, one Adam 1e-3, 300 iterations of 64 rows a context, 20 rows per class.
REFERENCE = {
    "none": {"domain": 83.0, "class": 19.7},
    "replay": {"domain": 96.0, "class": 92.6},
    "joint": {"domain": 98.1, "class": 96.2},
    "ewc": {"domain": 86.2, "class": 19.9},
}
TUNING_SHARE = 0.2


def count(text: str) -> int:
    """A whole number from 1 up."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def share(text: str) -> float:
    """A number above 0, up to 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share, above 0 and up to 1")
    return value


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--protocol", choices=PROTOCOLS, default="split")
    add("--source", default="digits", help="digits, published:NAME, or a path")
    add("--fraction", type=share, default=1.0, help="of the rows of each class, the first ones")
    add("--label", default="label", help="label column of a table")
    add("--scenario", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    add("--classes-per-context", type=count, default=2, help="of split")
    add("--contexts", type=count, default=5, help="of permuted and rotated")
    add("--method", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    add("--knob", nargs="*", default=[], metavar="METHOD=VALUE", help="instead of choosing one")
    add("--seeds", type=count, default=5)
    add("--tuning-seeds", type=count, default=2, help="seeds that a knob is chosen on")
    add("--hidden", type=count, nargs="*", default=[100, 100])
    add("--lr", type=float, default=1e-3)
    add("--iterations", type=count, default=300, help="optimizer steps a context")
    add("--batch", type=count, default=64, help="new rows of a batch; replay adds as many")
    add("--memory-per-class", type=count, default=20)
    add("--equal", choices=("steps", "passes"), default="steps")
    add("--test-fraction", type=float, default=TEST_FRACTION)
    add("--accelerator", choices=("auto", "cpu", "cuda"), default="auto")
    add("--reduced", action="store_true", help="one seed, ten steps a context, no choice of a knob")
    add("--json", type=Path)
    chosen = parser.parse_args(arguments)
    if chosen.reduced:
        chosen.seeds, chosen.iterations = 1, 10
        defaults = {name: one.default for name, one in CONTESTANTS.items()}
        chosen.knob = [*(f"{name}={value}" for name, value in defaults.items()), *chosen.knob]
    return chosen


class Comparison:
    """Contestants on one source under one setting."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen = chosen
        self.source = thinned(load(chosen.source, chosen.label), chosen.fraction)
        classes, each = self.source.classes, chosen.classes_per_context
        if chosen.protocol == "split" and (classes % each or classes == each):
            raise SystemExit(
                f"--classes-per-context {each} does not divide the {classes} classes of "
                f"{chosen.source} into two contexts or more of equal size; what does: "
                + (", ".join(str(n) for n in range(1, classes) if not classes % n) or "nothing")
            )
        self.setting = Setting(
            hidden=tuple(chosen.hidden),
            lr=chosen.lr,
            iterations=chosen.iterations,
            batch=chosen.batch,
            memory_per_class=chosen.memory_per_class,
            equal=chosen.equal,
            accelerator=chosen.accelerator,
        )
        self.given = {name: float(value) for name, value in (k.split("=") for k in chosen.knob)}

    def run(self, name: str, scenario: str, seed: int, knob: float, tuning: float = 0.0) -> Any:
        """One contestant, one seed."""
        contexts = series(
            self.source,
            protocol=self.chosen.protocol,
            scenario=scenario,
            seed=seed,
            classes_per_context=self.chosen.classes_per_context,
            contexts=self.chosen.contexts,
            test_fraction=self.chosen.test_fraction,
            tuning=tuning,
        )
        return compete(
            CONTESTANTS[name],
            contexts,
            scenario=scenario,
            setting=self.setting,
            seed=seed,
            knob=knob,
        ).to_dict()

    def knob(self, name: str, scenario: str) -> float:
        """The knob that was given, or the best one on rows held out of training."""
        contestant = CONTESTANTS[name]
        if name in self.given or not contestant.grid:
            return self.given.get(name, contestant.default)
        scores = {
            value: np.mean(
                [
                    self.run(name, scenario, seed, value, TUNING_SHARE)["average_accuracy"]
                    for seed in range(self.chosen.tuning_seeds)
                ]
            )
            for value in contestant.grid
        }
        told = ", ".join(f"{value:g}: {100 * score:.1f}" for value, score in scores.items())
        best = max(scores, key=lambda value: scores[value])
        print(f"{scenario:7} {name:14} {contestant.knob} {best:g}  ({told})", flush=True)
        return best

    def rows(self, name: str, scenario: str) -> list[dict[str, Any]]:
        """One row per seed."""
        knob = self.knob(name, scenario)
        rows = []
        for seed in range(self.chosen.seeds):
            began = time.monotonic()
            result = self.run(name, scenario, seed, knob)
            windows = result.pop("windows")
            totals = {
                key: sum(window[key] for window in windows)
                for key in ("optimizer_steps", "train_rows", "replayed_rows", "wall_seconds")
            }
            row = {"method": name, "scenario": scenario, "seed": seed, "knob": knob}
            rows.append({**row, **result, **totals, "process_seconds": time.monotonic() - began})
        show(name, scenario, rows)
        return rows


def show(name: str, scenario: str, rows: list[dict[str, Any]]) -> None:
    """One line of the table: means over seeds, in points, with the deviation of the accuracy."""
    values = {key: 100 * np.array([row[key] for row in rows], dtype=float) for key in MEASURES}
    mean = "  ".join(f"{values[key].mean():+6.1f}" for key in MEASURES[1:])
    accuracy = values["average_accuracy"]
    print(
        f"{scenario:7} {name:14} {accuracy.mean():5.1f} ± {accuracy.std():3.1f}  {mean}  "
        f"{rows[0]['optimizer_steps']:7d} {rows[0]['train_rows']:9d} "
        f"{np.mean([row['wall_seconds'] for row in rows]):7.1f}",
        flush=True,
    )


def is_reference(chosen: argparse.Namespace) -> bool:
    """Whether this is the protocol that the reference was measured with."""
    return (
        chosen.protocol == "split"
        and (chosen.source, chosen.fraction) == ("digits", 1)
        and chosen.hidden == [100, 100]
        and (chosen.lr, chosen.iterations, chosen.batch) == (1e-3, 300, 64)
        and (chosen.memory_per_class, chosen.classes_per_context) == (20, 2)
        and (chosen.seeds, chosen.equal, chosen.test_fraction) == (5, "steps", TEST_FRACTION)
    )


def bars(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean accuracies in points against the reference."""
    found = []
    for name, expected in REFERENCE.items():
        for scenario, value in expected.items():
            measured = [
                100 * row["average_accuracy"]
                for row in rows
                if (row["method"], row["scenario"]) == (name, scenario)
            ]
            if not measured:
                continue
            mean = float(np.mean(measured))
            title = f"{name}, {scenario}: accuracy, points"
            if name == "none":
                off = abs(mean - value)
                found.append(bar(f"{title} from {value:g}", off, 2, higher=False))
            else:
                found.append(bar(title, mean, value - 1.5, higher=True))
    return found


def main() -> None:
    """Print the table and the bars; exit 1 where one is missed."""
    chosen = parsed()
    comparison = Comparison(chosen)
    heads = ("accuracy", "forgot", "backward", "forward", "steps", "rows", "seconds")
    print(f"{'':22} {heads[0]:>11}  " + "  ".join(f"{head:>6}" for head in heads[1:]))
    rows = [
        row
        for scenario in chosen.scenario
        for name in chosen.method
        for row in comparison.rows(name, scenario)
    ]
    finish(rows, bars(rows) if is_reference(chosen) else [], chosen.json)


if __name__ == "__main__":
    main()
