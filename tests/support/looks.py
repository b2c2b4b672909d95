"""Days of a table whose labels come late, a lineage founded on them, and looks at them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir
from rich.console import Console

from perennial import clock
from perennial.cli import plain_config
from perennial.launch import found_job
from perennial.paths import CONF_DIR
from perennial.verbs.monitor import monitor_job

START = datetime(2026, 11, 26, 6, tzinfo=UTC)
FIRST = pd.Timestamp("2026-11-01")
ROWS = 200
TABLE = (
    "data=table",
    "data.label=bad",
    "data.id_column=id",
    "data.time_column=time",
    "data.preprocess.numerical=[score,amount,age]",
    "data.preprocess.categorical=[channel]",
    "model=tabular",
    "model.hidden=[]",
    "model_name=fraud",
    "trainer.accelerator=cpu",
)


def day(number: int, *, shift: float = 0.0, flipped: float = 0.0, rows: int = ROWS) -> pd.DataFrame:
    """Rows of one day.

    Args:
        number: Of the day.
        shift: By how many standard deviations the score has moved.
        flipped: Share of rows whose label is the other one: the concept has moved.
        rows: How many there are.
    """
    random = np.random.default_rng(number)
    score = random.normal(size=rows)
    bad = (score + 0.3 * random.normal(size=rows) > 0) ^ (random.random(rows) < flipped)
    time = FIRST + pd.to_timedelta(number, unit="D")
    return pd.DataFrame(
        {
            "id": [f"{number:03d}-{row:05d}" for row in range(rows)],
            "time": time + pd.to_timedelta(np.arange(rows) * 60, unit="s"),
            "score": score + shift,
            "amount": np.exp(random.normal(3, 1, size=rows)).round(2),
            "age": random.integers(18, 80, size=rows),
            "channel": random.choice(["web", "app", "shop"], size=rows),
            "bad": np.where(bad, "yes", "no"),
        }
    )


def unlabelled(folder: Path, number: int, **moved: Any) -> Path:
    """A day's rows before their labels come, in a file."""
    path = folder / f"day_{number}.parquet"
    day(number, **moved).drop(columns="bad").to_parquet(path)
    return path


def labels(folder: Path, number: int, **moved: Any) -> Path:
    """A day's labels, in a file."""
    path = folder / f"labels_{number}.csv"
    day(number, **moved)[["id", "bad"]].to_csv(path, index=False)
    return path


def composed(home: Path, config: str, *overrides: str) -> dict[str, Any]:
    """A main configuration over the table, as plain values."""
    url = f"registry.url=sqlite:///{home / 'registry.db'}"
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR.absolute())):
        return plain_config(compose(config, [url, "tracking=none", *TABLE, *overrides]))


def found(home: Path) -> None:
    """Found the lineage on twenty days."""
    history = home / "history.parquet"
    home.mkdir(parents=True, exist_ok=True)
    pd.concat([day(number) for number in range(20)]).to_parquet(history)
    with clock.read_from(lambda: START):
        found_job(
            composed(
                home,
                "train",
                f"data.history={history}",
                f"data.new={history}",
                "optimizer.lr=0.05",
                "trainer.max_steps=100",
                "trainer.validate_every=100",
            )
        )


def look(
    home: Path, folder: Path, new: Path | str, *overrides: str, days: float = 0.0
) -> tuple[int, dict[str, Any], str]:
    """Exit code, what monitor.json keeps, and what was printed, so many days after the start."""
    printed = io.StringIO()
    config = composed(home, "monitor", f"data.new={new}", f"folder={folder}", *overrides)
    with clock.read_from(lambda: START + timedelta(days=days)):
        code = monitor_job(config, console=Console(file=printed, width=100))
    told = json.loads((folder / "monitor.json").read_text())
    return code, told, printed.getvalue()


def moved(told: dict[str, Any]) -> Sequence[str]:
    """What moved, in the order of its tests."""
    return [one["name"] for one in told["drift"]["shifts"] if one["moved"]]
