"""Dated partitions: one command a day, and each day's rows are learned once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from perennial.paths import home as registry_home
from perennial.promotion.registry import Registry

Run = Callable[..., dict[str, Any]]


def write(folder: Path, day: int, rows: int) -> None:
    generator = np.random.default_rng(day)
    label = generator.integers(0, 2, rows)
    told, noise = generator.normal(3 * label - 1.5, 1), generator.normal(size=rows)
    x, y = (told, noise) if day < 3 else (noise, told)  # the drift: another column tells
    frame = pd.DataFrame({"x": x, "y": y, "label": label})
    (folder / f"dt=2026-11-{day:02}").mkdir(parents=True)
    frame.to_csv(folder / f"dt=2026-11-{day:02}" / "rows.csv", index=False)


def test_a_command_a_day(run: Run, home: Path, tmp_path: Path) -> None:
    days = tmp_path / "days"
    for day in (1, 2, 3):
        write(days, day, 1000)
    command = (
        "data=files",
        "model_name=daily",
        "model.inputs=2",
        "model.classes=2",
        "trainer.max_steps=150",
        "trainer.validate_every=50",
        "optimizer.lr=0.01",
        "gate.retention.margin=0.05",
        "gate.retention.total=0.1",
        "gate.slices.classes=false",
        f"data.new={days}",
    )
    first = run(*command, f"data.history={{partitions: {days}, until: 2026-11-02}}")
    assert first["error"] is None, first["error"]
    registry = Registry(url=f"sqlite:///{registry_home() / 'registry.db'}")
    assert registry.version("daily@1").manifest["sources"] == {
        "cycle-1": {"partitions": str(days), "until": "2026-11-02"}
    }
    third = {"partitions": str(days), "after": "2026-11-02", "until": "2026-11-03"}
    assert registry.version("daily@2").manifest["sources"]["cycle-2"] == third
    assert first["status"] == "promoted", first["decision"]
    again = run(*command)
    assert (again["status"], again["error"]) == ("skipped", None)
    write(days, 4, 1000)
    fourth = run(*command)
    assert fourth["error"] is None, fourth["error"]
    learned = fourth["data"]
    assert 600 < learned["new"]["rows"] < 700  # of 1,000, without validation and holdout
    assert 1800 < learned["history"]["rows"] < 2100  # days 1 to 3, each read from its partition
    assert not (Path(fourth["folder"]) / "traceback.txt").exists()
