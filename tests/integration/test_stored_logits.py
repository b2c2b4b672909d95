"""Cycles that hand stored logits to each other through the registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

import perennial
from perennial.data.rows import OWN, Rows
from perennial.data.shards import read_index
from perennial.data.store import read_rows_file
from perennial.promotion.registry import Registry, Version
from perennial.steps.candidate import Trained
from perennial.steps.remember import index_path, shard_path
from support.remembered import stored

Run = Callable[..., dict[str, Any]]
NAMES = ("cat", "dog", "eel")
COMMON = (
    "data=files", "data.label=animal", "model_name=animals", "model.inputs=4", "model.classes=3",
    "trainer.max_steps=120", "trainer.validate_every=60", "optimizer.lr=0.003",
    "data.memory.capacity=300", "gate.retention.margin=0.06", "gate.retention.total=0.06",
)  # fmt: skip


def table(path: Path, *, rows: int, shift: float, seed: int) -> str:
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 3, size=rows)
    values = generator.normal(size=(rows, 4))
    values[:, 0] += 4 * label + shift
    values[:, 1] -= 4 * label
    frame = pd.DataFrame({f"x{i}": values[:, i] for i in range(4)})
    frame["animal"] = np.array(NAMES)[label]
    frame.to_parquet(path)
    return str(path)


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    sizes = ((1000, 0.0), (600, 9.0), (600, -9.0))
    return [
        table(tmp_path / f"{i}.parquet", rows=count, shift=shift, seed=i)
        for i, (count, shift) in enumerate(sizes)
    ]


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[Rows]:
    """What each cycle replayed from."""
    from perennial import cycle

    seen: list[Rows] = []
    own = cycle.train

    def train(*args: Any, **kwargs: Any) -> Trained:
        trained = own(*args, **kwargs)
        assert trained.history is not None
        seen.append(trained.history)
        return trained

    monkeypatch.setattr(cycle, "train", train)
    return seen


def version(home: Path, number: int) -> Version:
    return Registry(url=f"sqlite:///{home / 'registry.db'}").version(f"animals@{number}")


def memory(home: Path, number: int) -> tuple[Rows, dict[str, Any]]:
    """What a version remembers, and what the one file that it wrote says of itself."""
    one = version(home, number)
    index = read_index(one.open(index_path("train")))
    own = next(name for name, shard in index.shards.items() if shard.version == OWN)
    schema = pa.ipc.open_file(pa.memory_map(str(one.open(shard_path("train", own))))).schema
    described: dict[str, Any] = json.loads(schema.metadata[b"perennial"])
    return stored(one, names=NAMES), described


def logits_of(number: int, rows: Rows) -> np.ndarray:
    model = perennial.load(f"animals@{number}").model.eval()
    values = np.stack([rows.features[f"x{i}"] for i in range(4)], axis=1)
    with torch.no_grad():
        return model(torch.from_numpy(values.astype(np.float32))).numpy()


def by_id(rows: Rows) -> dict[str, tuple[list[float], int]]:
    assert rows.logits is not None
    assert rows.logits_version is not None
    pairs = zip(rows.logits.tolist(), rows.logits_version.tolist(), strict=True)
    return dict(zip(rows.id.tolist(), pairs, strict=True))


def test_the_second_cycle_replays_the_logits_that_the_first_one_stored(
    run: Run, home: Path, sources: list[str], replayed: list[Rows]
) -> None:
    der = ("method=der", "method.der.dtype=float16", f"data.history={sources[0]}")
    first = run(*COMMON, *der, f"data.new={sources[1]}")
    assert (first["error"], first["status"]) == (None, "promoted")

    founded, described = memory(home, 1)
    assert described["label_names"] == list(NAMES)
    assert described["columns"]["logits"] == {"dtype": "<f2", "shape": [3]}
    assert described["columns"]["logits_version"]["dtype"] == "<i4"
    assert len(founded) == 300
    assert set(founded.logits_version.tolist()) == {1}
    np.testing.assert_allclose(founded.logits, logits_of(1, founded), rtol=2e-3, atol=2e-3)

    promoted, _ = memory(home, 2)
    from_founded = promoted.logits_version == 1
    assert 0 < from_founded.sum() < 300
    assert set(promoted.logits_version.tolist()) == {1, 2}
    for part, number in ((promoted.take(from_founded), 1), (promoted.take(~from_founded), 2)):
        np.testing.assert_allclose(part.logits, logits_of(number, part), rtol=2e-3, atol=2e-3)
    assert (
        np.abs(logits_of(2, promoted.take(from_founded)) - promoted.logits[from_founded]).max()
        > 0.1
    )

    second = run(*COMMON, *der, f"data.new={sources[2]}")
    assert second["error"] is None
    assert len(replayed) == 2
    kept, used = by_id(promoted), by_id(replayed[1])
    assert replayed[1].logits.dtype == np.float16
    assert len(used) > len(kept), "every readable source is replayed"
    for name, (logits, number) in kept.items():
        assert used[name] == (logits, number)
    given = replayed[1].take(~np.isin(replayed[1].id, promoted.id))
    assert set(given.logits_version.tolist()) == {2}, "the champion's, where none were stored"
    np.testing.assert_allclose(given.logits, logits_of(2, given), rtol=2e-3, atol=2e-3)
    last, _ = memory(home, 3)
    assert set(last.logits_version.tolist()) == {1, 2, 3}


def test_rows_remembered_without_logits_keep_those_they_were_replayed_with(
    run: Run, home: Path, sources: list[str], replayed: list[Rows]
) -> None:
    settings = (*COMMON, f"data.history={sources[0]}")
    assert run(*settings, "method=replay", f"data.new={sources[1]}")["status"] == "promoted"
    assert "logits" not in memory(home, 2)[1]["columns"]
    assert replayed[0].logits is None
    assert run(*settings, "method=der", f"data.new={sources[2]}")["error"] is None
    last = by_id(memory(home, 3)[0])
    used = by_id(replayed[1])
    old = [name for name in last if name in used]
    assert old
    for name in old:
        assert last[name] == used[name]
        assert last[name][1] == 2
    assert {number for name, (_, number) in last.items() if name not in used} == {3}


def test_memory_alone_is_replayed_where_the_sources_can_be_read_too(
    run: Run, home: Path, sources: list[str], replayed: list[Rows]
) -> None:
    settings = (*COMMON, "method=der", f"data.history={sources[0]}")
    assert run(*settings, f"data.new={sources[1]}")["status"] == "promoted"
    result = run(*settings, "history=memory", f"data.new={sources[2]}")
    assert result["error"] is None
    assert all(Path(path).exists() for path in sources)
    champion = version(home, 2)
    remembered, _ = memory(home, 2)
    assert replayed[1].id.tolist() == remembered.id.tolist()
    np.testing.assert_array_equal(replayed[1].logits, remembered.logits)
    assert result["data"]["history"]["rows"] == 300
    held = [
        read_rows_file(champion.open(path))[0]
        for path in champion.files
        if path.startswith("holdout/")
    ]
    assert len(held) == 2
    for rows in held:
        for kind in ("train", "validation"):
            kept = stored(champion, kind)
            assert not np.isin(kept.id, rows.id).any()
            assert not np.isin(kept.content, rows.content).any()


def test_without_replay_it_is_refused_at_start(run: Run, sources: list[str]) -> None:
    result = run(
        *COMMON, "method=der", "~method.replay", f"data.history={sources[0]}",
        f"data.new={sources[1]}",
    )  # fmt: skip
    assert (result["status"], result["exit_code"]) == ("failed", 1)
    assert "no method replays" in result["error"]["what"]
