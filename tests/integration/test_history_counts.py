"""Each trained row of history counts once in EWC's precision, whatever of it can still be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import perennial
from perennial import cycle as story
from perennial.data.store import read_rows_file
from perennial.methods.ewc import EWC
from perennial.methods.fisher import diagonal_fisher
from perennial.promotion.registry import Registry
from perennial.types import MethodContext
from support.remembered import stored

Run = Callable[..., dict[str, Any]]
COMMON = (
    "data=files", "model_name=drifting", "data.label=y", "data.id_column=rid", "model.inputs=3",
    "model.classes=2", "trainer.max_steps=5", "trainer.validate_every=5", "optimizer.lr=1e-5",
    "gate.retention.margin=0.5", "gate.retention.total=0.5", "method=none",
)  # fmt: skip


def table(path: Path, *, rows: int, scale: float, first: int, rare: float) -> str:
    """Two classes of which one may be rare, and rows whose Fisher grows with their scale."""
    generator = np.random.default_rng(first)
    y = (generator.random(rows) < rare).astype(np.int64)
    x = generator.normal(size=(rows, 3)) * (scale * (1 + 2 * y))[:, None]
    frame = pd.DataFrame(x.astype(np.float32), columns=list("abc"))
    frame.assign(y=y, rid=np.arange(first, first + rows)).to_parquet(path)
    return str(path)


@dataclass
class Lineage:
    """Two promoted cycles, the second with rows of another scale and less of them."""

    run: Run
    home: Path
    sources: list[str]
    settings: tuple[str, ...]
    precision: list[float]
    told: list[tuple[int, float]]

    def expected(self, *, without: frozenset[str] = frozenset()) -> float:
        """Σ P over every row that was trained on, at the champion's weights, by the file of it."""
        version = Registry(url=f"sqlite:///{self.home / 'registry.db'}").version("drifting@2")
        model = perennial.load("drifting@2").model.eval()
        total = 0.0
        for number, path in enumerate(self.originals, start=1):
            index, extra = read_rows_file(version.open(f"rows/cycle-{number}.arrow"))
            trained = set(index.id[extra["role"] == "train"].tolist()) - without
            frame = path[path.rid.astype(str).isin(trained)]
            x = torch.from_numpy(frame[list("abc")].to_numpy(np.float32, copy=True))
            mean, count = diagonal_fisher(model, [x], logits=model, kind="true")
            total += count * sum(float(value.sum()) for value in mean.values())
        return total

    def found(self, *overrides: str) -> float:
        """Σ P as the next cycle estimates it."""
        result = self.run(
            *self.settings, "method=ewc", "method.ewc.fisher=true", f"data.new={self.sources[2]}",
            "promote=false", "force=true", *overrides,
        )  # fmt: skip
        assert result["error"] is None, result["error"]
        return self.precision[-1]

    def __post_init__(self) -> None:
        self.originals = [pd.read_parquet(path) for path in self.sources[:2]]

    def drop_half(self, number: int) -> frozenset[str]:
        frame = self.originals[number]
        gone = frame.rid % 2 == 0
        frame[~gone].to_parquet(self.sources[number])
        return frozenset(frame.rid[gone].astype(str))


@pytest.fixture
def lineage(
    run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Lineage]:
    decide, prepare = story.decide, EWC.prepare
    monkeypatch.setattr(
        story, "decide", lambda *args, **kw: replace(decide(*args, **kw), verdict="promoted")
    )
    precision: list[float] = []
    told: list[tuple[int, float]] = []

    def spied(self: EWC, context: MethodContext) -> None:
        prepare(self, context)
        precision.append(sum(float(value.sum()) for value in self.precision.values()))
        weight = context.history_weight
        assert weight is not None
        told.append((context.history_count, float(weight.sum())))

    monkeypatch.setattr(EWC, "prepare", spied)

    def made(*overrides: str, rare: float = 0.5) -> Lineage:
        sources = [
            table(tmp_path / f"{i}.parquet", rows=rows, scale=scale, first=10_000 * i, rare=rare)
            for i, (rows, scale) in enumerate(((3000, 1.0), (1000, 4.0), (800, 1.0)))
        ]
        settings = (*COMMON, *overrides)
        result = run(*settings, f"data.history={sources[0]}", f"data.new={sources[1]}")
        assert result["decision"]["applied"], result
        return Lineage(run, home, sources, settings, precision, told)

    return made


def test_all_sources_readable(lineage: Callable[..., Lineage]) -> None:
    made = lineage("data.memory.capacity=300")
    assert made.found() == pytest.approx(made.expected(), rel=1e-4)


def test_memory_alone(lineage: Callable[..., Lineage]) -> None:
    made = lineage("data.memory.capacity=300")
    assert made.found("history=memory") == pytest.approx(made.expected(), rel=0.15)
    assert made.told[-1][0] == 300


@pytest.mark.parametrize("gone", [0, 1])
def test_one_source_gone(lineage: Callable[..., Lineage], gone: int) -> None:
    made = lineage("data.memory.capacity=300")
    Path(made.sources[gone]).unlink()
    assert made.found() == pytest.approx(made.expected(), rel=0.15)


@pytest.mark.parametrize("gone", [(0, 1), (1,)])
def test_class_balanced_memory_of_a_rare_class(
    lineage: Callable[..., Lineage], gone: tuple[int, ...]
) -> None:
    made = lineage("data.memory.capacity=300", "data.memory.selection=class_balanced", rare=0.05)
    for number in gone:
        Path(made.sources[number]).unlink()
    assert made.found() == pytest.approx(made.expected(), rel=0.15)


@pytest.mark.parametrize("corrected", [0, 1])
def test_rows_that_left_a_source_have_left(lineage: Callable[..., Lineage], corrected: int) -> None:
    made = lineage("data.memory.capacity=300")
    whole = made.expected()
    without = made.drop_half(corrected)
    expected = made.expected(without=without)
    assert expected < 0.92 * whole
    assert made.found() == pytest.approx(expected, rel=1e-4)
    number, stands_for = made.told[-1]
    assert number == stands_for, "memory brings none of them back"


def test_a_file_that_holds_other_rows_now_is_stood_for_by_memory(
    lineage: Callable[..., Lineage],
) -> None:
    made = lineage("data.memory.capacity=300")
    Path(made.sources[1]).write_bytes(Path(made.sources[2]).read_bytes())
    assert made.found() == pytest.approx(made.expected(), rel=0.15)


@pytest.mark.parametrize("method", ["joint", "scratch"])
def test_all_of_history_is_refused_where_a_source_is_gone(
    lineage: Callable[..., Lineage], method: str
) -> None:
    made = lineage("data.memory.capacity=300")
    new = f"data.new={made.sources[2]}"
    settings = [one for one in made.settings if not one.startswith("method")]
    assert made.run(*settings, f"method={method}", new, "promote=false")["error"] is None
    Path(made.sources[0]).unlink()
    result = made.run(*settings, f"method={method}", new, "promote=false", "seed=1")
    assert (result["status"], result["exit_code"]) == ("failed", 1)
    assert f"{made.sources[0]} (cycle-1)" in result["error"]["what"]
    version = Registry(url=f"sqlite:///{made.home / 'registry.db'}").version("drifting@2")
    index, extra = read_rows_file(version.open("rows/cycle-1.arrow"))
    trained = index.id[extra["role"] == "train"]
    kept = stored(version)
    missing = len(trained) - int(np.isin(trained, kept.id).sum())
    assert f" {missing} of {made.sources[0]}" in result["error"]["what"]
    enough = made.run(*settings, "method=replay", new, "promote=false", "seed=1")
    assert enough["error"] is None
