"""What comparing many runs costs, in CPU-seconds after the imports.

python benchmarks/compare_cost.py --runs 500 --json compare_cost.json

The runs are synthetic: of one sweep, each with its configuration, a result of the size of a real
one, and a version in a registry with stored predictions, then without any.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml
from harness import bar, finish

from perennial.promotion import predictions
from perennial.promotion.registry import Registry
from perennial.types import EvaluationReport, Predictions
from perennial.verbs.compare import compare_verb

LIMIT = 2.0
ROWS = 600
CONFIG: dict[str, Any] = {
    "data": {"_target_": "files", "label": "label", "new": "week.parquet", "holdout_fraction": 0.2},
    "task": {"_target_": "Classification", "label": "${data.label}"},
    "method": {
        name: {"_target_": name, "strength": 0.1, "new_fraction": 0.2, "forward": "auto"}
        for name in ("replay", "ewc", "si")
    },
    "trainer": {f"setting_{i}": i for i in range(60)} | {"max_steps": 1000},
    "seed": 0,
    "promote": True,
}
CHECK = {
    "name": "slice/new/class=0",
    "outcome": "pass",
    "estimate": 0.01,
    "interval": [-0.01, 0.03],
    "threshold": -0.02,
    "n": 50,
    "p_value": 0.2,
    "reason": "class 0 (new): a loss beyond 5.0 points is not significant at the level. " * 2,
}


def measured(report: EvaluationReport, who: str) -> dict[str, Any]:
    """Metrics of one model, by part."""
    score = getattr(report, who).score
    masks = {"new": report.is_new, "history": ~report.is_new}
    return {
        part: {"accuracy": float(score[mask].mean()), "loss": 0.4, "n": int(mask.sum())}
        for part, mask in masks.items()
    }


def scored(seed: int, skill: float) -> EvaluationReport:
    """A trial's predictions on the same new and history rows as any other's."""
    generator = np.random.default_rng(seed)
    total = 2 * ROWS

    def model(share: float) -> Predictions:
        score = (generator.random(total) < share).astype(np.float64)
        return Predictions(prediction=score.astype(np.int64), score=score, loss=1 - score)

    ids = np.array([f"{i:032x}" for i in range(total)])
    return EvaluationReport(
        row_id=ids,
        cluster=ids,
        holdout=np.array(["new"] * ROWS + ["history/cycle-1"] * ROWS),
        label=np.ones(total, dtype=np.int64),
        seen_by_champion=np.zeros(total, dtype=np.bool_),
        champion=model(0.8),
        candidate=model(skill),
        label_names=("no", "yes"),
    )


def result_of(report: EvaluationReport, number: int) -> dict[str, Any]:
    """A result of the size of a real one."""
    checks = [copy.deepcopy(CHECK) for _ in range(24)]
    decision = {"verdict": "rejected", "applied": False, "alpha": 0.05, "decision_number": 1}
    decision |= {"charge": {"trial": True, "trials": number, "best": False}, "checks": checks}
    cost = {"wall_seconds": 1.0 + number % 7, "device_seconds": 1.0, "train_rows": 64_000}
    cost |= {"replayed_rows": 0, "optimizer_steps": 1000, "peak_memory_bytes": 2**29}
    return {
        "schema_version": 1,
        "status": "rejected",
        "exit_code": 20,
        "created": "2026-11-25T10:00:00+00:00",
        "cycle_id": f"cycle{number}",
        "model_name": "made",
        "champion": {"id": "made@1"},
        "candidate": {"id": f"made@{number + 1}"},
        "bootstrap": False,
        "trigger": {"kind": "manual", "reason": "started by hand"},
        "task": {"kind": "class", "score": "accuracy", "unit": "points"},
        "metrics": {who: measured(report, who) for who in ("champion", "candidate")},
        "decision": decision,
        "forgetting": {"average_accuracy": 0.8, "matrix": [[0.8, 0.7], [0.9, 0.8]]},
        "serving": None,
        "validation": {
            "champion": {"new": 0.5, "history": 0.9},
            "candidate": {"new": 0.7, "history": 0.9},
            "curve": [{"step": 50 * i, "new": 0.5 + 0.01 * i, "history": 0.9} for i in range(21)],
        },
        "cost": cost,
        "config_sha256": "0" * 64,
        "data": {"new": {"rows": 1000, "sha256": "a" * 64}, "history": None, "memory": None},
        "report": None,
        "tracking": {"run_id": None, "url": None, "directory": None},
        "environment": {"python": "3.11"},
        "error": None,
    }


def make(folder: Path, runs: int, *, stored: bool) -> None:
    """Run folders, and their versions where predictions are stored."""
    registry = Registry(url=f"sqlite:///{folder / 'home' / 'registry.db'}")
    common: dict[str, Any] = {"new_holdout": "h" * 64, "decisions": None}
    for number in range(1, runs + 1):
        report = scored(number, 0.7 + 0.25 * number / runs)
        result = result_of(report, number)
        config = copy.deepcopy(CONFIG)
        config["method"]["replay"]["new_fraction"] = round(number / runs, 4)
        config["trainer"]["max_steps"] = 100 * (number % 9 + 1)
        place = folder / "multirun" / "sweep" / str(number)
        (place / ".hydra").mkdir(parents=True)
        (place / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        text = json.dumps(result, indent=2)
        (place / "result.json").write_text(text)
        if not stored:
            continue
        if number == 1:
            registry.commit(
                name="made",
                files={},
                manifest={"how": "bootstrap", "config": CONFIG},
                decision=None,
                verdict="promoted",
                cycle_id="cycle0",
                expected_champion=None,
                promote=True,
                **common,
            )
        registry.commit(
            name="made",
            files={**predictions.write(report), "result.json": text.encode()},
            manifest={"how": "retrained", "config": config},
            decision=result["decision"],
            verdict="rejected",
            cycle_id=result["cycle_id"],
            expected_champion=1,
            promote=False,
            trial=True,
            **common,
        )


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def seconds(folder: Path, rounds: int) -> tuple[float, dict[str, Any]]:
    """Median CPU-seconds of the whole verb, table and page included, and what it found."""
    url = f"sqlite:///{folder / 'home' / 'registry.db'}"
    taken = []
    with inside(folder), contextlib.redirect_stdout(io.StringIO()):
        for _ in range(rounds + 1):  # the first one imports
            began = time.process_time()
            compare_verb(["--url", url])
            taken.append(time.process_time() - began)
        compare_verb(["--url", url, "--json", "found.json"])
    return median(taken[1:]), json.loads((folder / "found.json").read_text())


def main() -> None:
    """Print the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows, bars = [], []
    for kind, stored in (("run folders", False), ("with stored predictions", True)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make(folder, chosen.runs, stored=stored)
            cpu, found = seconds(folder, chosen.rounds)
        paired = sum(bool(run["difference"]) for run in found["runs"])
        assert len(found["runs"]) == chosen.runs
        assert paired == (chosen.runs - 1 if stored else 0)
        rows.append({"kind": kind, "runs": chosen.runs, "cpu_seconds": cpu, "paired": paired})
        title = f"{chosen.runs} runs, {kind}: CPU-seconds after the imports"
        bars.append(bar(title, cpu, LIMIT, higher=False))
    finish(rows, bars, chosen.json)


if __name__ == "__main__":
    main()
