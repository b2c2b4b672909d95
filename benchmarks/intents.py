"""Five domains of CLINC150, then the five others: what is left of the first under each method.

PERENNIAL_DATA=FOLDER python benchmarks/intents.py --seeds 2 --per-domain 5 --json intents.json
PERENNIAL_DATA=FOLDER python benchmarks/intents.py --method none replay --reduced

`experiment=intents` with another method each time: of one seed all start from the same champion,
see the same new rows in batches of the same size for as many steps, which are two passes where
half of a batch is replayed, and are judged on the official test rows.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import finish
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from retention import count

from perennial.paths import CONF_DIR

# the experiment's share of new rows is replay's alone; all of history is what joint means
METHODS = {
    "none": ("method=none", "~method.replay"),
    "replay": ("method=replay",),
    "default": ("method=default",),
    "joint": ("method=joint", "~method.replay", "history=all"),
}
BATCH, NEW_FRACTION, PASSES = 64, 0.5, 2
DOMAINS, INTENTS, ROWS, TENTH = 5, 15, 100, 10  # of each half; of a domain; of an intent


def composed(*overrides: str) -> dict[str, Any]:
    """``experiment=intents`` with overrides, as plain values."""
    given = ["experiment=intents", "trainer.accelerator=cpu", *overrides]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR.absolute())):
        config: Any = OmegaConf.to_container(compose("train", given), resolve=True)
    return dict(config)


def sizes(per_domain: int, per_intent: int) -> list[str]:
    """Overrides that keep so many intents of a domain and rows of an intent.

    Two passes, and a memory of a tenth, as the experiment has them for all of the rows.
    """
    intents = DOMAINS * per_domain
    rows = intents * per_intent
    steps = round(PASSES * rows / (BATCH * NEW_FRACTION))
    return [
        f"per_domain={per_domain}",
        f"per_intent={per_intent}",
        f"model.classes={intents}",
        f"data.memory.capacity={rows // TENTH}",
        f"trainer.max_steps={steps}",
        f"trainer.validate_every={steps}",
    ]


def retrained(
    seed: int, methods: Sequence[str], overrides: Sequence[str], *, folder: Path
) -> Iterator[dict[str, Any]]:
    """One row a method: accuracies before and after, and what it cost.

    The first run founds the lineage; no candidate is promoted.

    Args:
        seed: Of everything random.
        methods: Names of `METHODS`.
        overrides: Of ``train.yaml``.
        folder: For the registry and results.
    """
    from perennial.launch import run_job

    os.environ["PERENNIAL_HOME"] = str(folder)
    for name in methods:
        # each is one more decision on the same rows, and few rows could not carry the fourth
        unjudged = ("promote=false", "gate.retention=waived")
        given = [f"seed={seed}", *unjudged, *METHODS[name], *overrides]
        run = folder / name
        run.mkdir()
        result, _ = run_job(composed(*given), folder=run, multirun=False)
        if result["error"]:
            raise SystemExit(result["error"]["what"])
        scores = {
            f"{part}_{who}": result["metrics"][who][part]["accuracy"]
            for part in ("history", "new")
            for who in ("champion", "candidate")
        }
        cost = {
            key: result["cost"][key] for key in ("optimizer_steps", "train_rows", "replayed_rows")
        }
        champion = result["champion"]["id"]
        yield {"method": name, "seed": seed, "champion": champion, **scores, **cost}


def show(name: str, rows: Sequence[dict[str, Any]]) -> None:
    """One line of the table: means over seeds, in points."""
    mine = [row for row in rows if row["method"] == name]
    old, before, new = (
        100 * np.mean([row[key] for row in mine])
        for key in ("history_candidate", "history_champion", "new_candidate")
    )
    print(f"{name:10} old {before:5.1f} → {old:5.1f}  new {new:5.1f}  mean {(old + new) / 2:5.1f}")


def main() -> None:
    """Print the table, write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=count, default=2)
    parser.add_argument("--per-domain", type=count, default=INTENTS, help="intents of a domain")
    parser.add_argument("--per-intent", type=count, default=ROWS, help="rows of an intent")
    parser.add_argument("--reduced", action="store_true", help="one seed, 2 intents of 10 rows")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    if chosen.reduced:
        chosen.seeds, chosen.per_domain, chosen.per_intent = 1, 2, 10
    rows: list[dict[str, Any]] = []
    for seed in range(chosen.seeds):
        overrides = sizes(chosen.per_domain, chosen.per_intent)
        with tempfile.TemporaryDirectory() as folder:
            rows += retrained(seed, chosen.method, overrides, folder=Path(folder))
    for name in chosen.method:
        show(name, rows)
    finish(rows, [], chosen.json)


if __name__ == "__main__":
    main()
