"""Cycles that hand memories to each other: herded, bounded otherwise, shared, damaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perennial import cycle as story
from perennial.data.memory import row_bytes
from perennial.data.shards import read_index
from perennial.promotion.registry import Registry, Version
from perennial.steps.remember import index_path, remembered
from support.remembered import stored

Run = Callable[..., dict[str, Any]]
COMMON = (
    "data=files", "data.label=animal", "model_name=animals", "model.inputs=4", "model.classes=3",
    "trainer.max_steps=6", "trainer.validate_every=3", "method=replay",
    "gate.retention.margin=0.5", "gate.retention.total=0.5",
)  # fmt: skip


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], str]:
    """A window's source; every candidate is promoted."""
    decide = story.decide
    monkeypatch.setattr(
        story, "decide", lambda *args, **kw: replace(decide(*args, **kw), verdict="promoted")
    )

    def written(seed: int) -> str:
        generator = np.random.default_rng(seed)
        label = generator.integers(0, 3, size=600)
        values = generator.normal(size=(600, 4))
        values[:, 0] += 4 * label
        frame = pd.DataFrame({f"x{i}": values[:, i] for i in range(4)})
        frame["animal"] = np.array(["cat", "dog", "eel"])[label]
        path = tmp_path / f"{seed}.parquet"
        frame.to_parquet(path)
        return str(path)

    return written


def version(home: Path, number: int) -> Version:
    return Registry(url=f"sqlite:///{home / 'registry.db'}").version(f"animals@{number}")


def test_memories_change_their_bound_and_share_their_files(
    run: Run, home: Path, new: Callable[[int], str], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = (*COMMON, f"data.history={new(0)}")
    herding = ("data.memory.selection=herding", "data.memory.capacity=60")
    assert run(*settings, *herding, f"data.new={new(1)}")["status"] == "promoted"
    first, second = (stored(version(home, number)) for number in (1, 2))
    for rows in (first, second):
        assert np.bincount(rows.label).tolist() == [20, 20, 20]
    memory = remembered(version(home, 2), "train", ())
    assert memory is not None
    assert set(memory.cycle.tolist()) == {1, 2}, "weighed, both cycles are near the mean"
    assert len(stored(version(home, 2), "validation")) == 60
    assert "memory: bounded" not in capsys.readouterr().out

    # most rows of the versions before fit in, and stay in the files they are in
    bound = 50_000
    in_bytes = ("data.memory.capacity=null", f"data.memory.capacity_bytes={bound}")
    assert run(*settings, *in_bytes, f"data.new={new(2)}")["status"] == "promoted"
    told = " ".join(capsys.readouterr().out.split())
    assert f"memory: bounded by {bound} bytes from now on, by 60 rows before; 60 rows" in told
    third = version(home, 3)
    rows = stored(third)
    assert 0.95 * bound <= row_bytes(rows).sum() <= bound
    shared = {path for path in third.files if path.startswith("memory/train/")}
    assert len(shared) > 1
    assert shared & set(version(home, 2).files)
    known = {*first.id.tolist(), *second.id.tolist()}
    assert len(known & set(rows.id.tolist())) > 30

    refused = run(*settings, *in_bytes[:1], "data.memory.capacity_bytes=50", f"data.new={new(3)}")
    assert refused["error"]["where"] == "data.memory.capacity_bytes"
    assert "which has 50 in all" in refused["error"]["what"]
    refused = run(*settings, "data.memory.capacity=0", f"data.new={new(3)}")
    assert "cannot keep 0 rows" in refused["error"]["what"]


def test_a_damaged_shard_is_said_before_anything_is_trained(
    run: Run, home: Path, new: Callable[[int], str]
) -> None:
    source = new(0)
    assert run(*COMMON, f"data.history={source}", f"data.new={new(1)}")["status"] == "promoted"
    champion = version(home, 2)
    name = next(iter(read_index(champion.open(index_path("train"))).shards))
    blob = home / "files" / name[:2] / name
    whole = blob.read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:middle], whole[:middle] + b"!!" + whole[middle + 2 :], None):
        blob.unlink()
        if damaged is not None:
            blob.write_bytes(damaged)
        result = run(*COMMON, f"data.history={source}", f"data.new={new(2)}")
        assert (result["status"], result["cost"]) == ("failed", None)
        assert f"memory/train/{name[:16]}.arrow of animals@2" in result["error"]["what"]
        blob.write_bytes(whole)
    aliases = Registry(url=f"sqlite:///{home / 'registry.db'}").aliases("animals")
    assert aliases["champion"] == 2
