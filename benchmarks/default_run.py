"""The default run over seeds: how often it is promoted, by how much, and at what cost.

python benchmarks/default_run.py --seeds 20 --json default_run.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]


def run(folder: Path, *overrides: str) -> dict[str, Any]:
    """One process, one fresh registry, as a user starts it."""
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "train.py"),
            "tracking=none",
            f"hydra.run.dir={folder}",
            *overrides,
        ],
        env={**os.environ, "PERENNIAL_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    path = folder / "result.json"
    if not path.exists():
        raise SystemExit(done.stderr)
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def seeded(seed: int) -> tuple[str, ...]:
    """Overrides that give the run and the division of the images one seed."""
    return tuple(f"{name}={seed}" for name in ("seed", "data.history.seed", "data.new.seed"))


def row(seed: int, result: dict[str, Any]) -> dict[str, Any]:
    """What the bars need of one result."""
    metrics = result["metrics"]
    return {
        "seed": seed,
        "status": result["status"],
        **{
            f"{part}_{who}": metrics[who][part]["accuracy"]
            for part in ("new", "history")
            for who in ("champion", "candidate")
        },
        "wall_seconds": result["cost"]["wall_seconds"],
        "rejecting": [c["name"] for c in result["decision"]["checks"] if c["outcome"] == "reject"],
    }


def bar(name: str, value: float, limit: float, *, higher: bool) -> dict[str, Any]:
    """A figure against its limit."""
    passed = value >= limit if higher else value <= limit
    return {
        "name": name,
        "value": value,
        "limit": limit,
        "higher_is_better": higher,
        "passed": bool(passed),
    }


def main() -> None:
    """Print a table and the bars; exit 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("overrides", nargs="*")
    chosen = parser.parse_args()
    rows, plain = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for seed in range(chosen.seeds):
            result = run(folder / f"{seed}", *seeded(seed), *chosen.overrides)
            rows.append(row(seed, result))
            print(json.dumps(rows[-1]), flush=True)
        for seed in range(min(chosen.seeds, 3)):
            plain.append(row(seed, run(folder / f"none-{seed}", *seeded(seed), "method=none")))
            print("none", json.dumps(plain[-1]), flush=True)
        again = row(0, run(folder / "again", *seeded(0), *chosen.overrides))
    gain = [r["new_candidate"] - r["new_champion"] for r in rows]
    change = [r["history_candidate"] - r["history_champion"] for r in rows]
    same = {k: v for k, v in again.items() if k != "wall_seconds"}
    bars = [
        bar(
            "promoted, share", np.mean([r["status"] == "promoted" for r in rows]), 0.95, higher=True
        ),
        bar("gain on new, points, least", 100 * min(gain), 25, higher=True),
        bar("change on history, points, mean", 100 * float(np.mean(change)), -1.5, higher=True),
        bar(
            "same seed, same metrics",
            float(same == {k: rows[0][k] for k in same}),
            1,
            higher=True,
        ),
        bar(
            "method=none rejected for history, share",
            np.mean([r["status"] == "rejected" and "retention" in r["rejecting"] for r in plain]),
            1,
            higher=True,
        ),
        bar("wall seconds, largest", max(r["wall_seconds"] for r in rows), 60, higher=False),
    ]
    print(json.dumps(bars, indent=2))
    if chosen.json:
        import torch

        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        record = {"machine": machine, "versions": versions, "rows": [*rows, *plain], "bars": bars}
        chosen.json.write_text(json.dumps(record, indent=2, default=float))
    raise SystemExit(0 if all(one["passed"] for one in bars) else 1)


if __name__ == "__main__":
    main()
