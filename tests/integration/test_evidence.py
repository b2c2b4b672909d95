"""What the gate is given over a lineage, against the stored models themselves; and what is kept."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch

from perennial import cycle as story
from perennial.data.store import read_rows_file
from perennial.evaluation import serving as serving_room
from perennial.models.checkpoint import read_safetensors
from perennial.models.reference import MLP
from perennial.promotion import best, predictions
from perennial.promotion.gate import decide
from perennial.promotion.policy import Policy
from perennial.promotion.registry import Registry, Version
from perennial.reporting.result import schema
from perennial.steps import evidence
from perennial.types import EvaluationReport
from support.remembered import stored

Run = Callable[..., dict[str, Any]]
SETTINGS = (
    *("trainer.max_steps=8", "trainer.validate_every=4", "data=files", "model_name=animals"),
    *("data.label=animal", "data.features=[x0,x1]", "model.inputs=2", "model.classes=3"),
    *("model.hidden=[8]", "data.id_column=rid"),
)
GATE = ("gate.retention.margin=0.3", "gate.retention.total=0.4")
COUNTRY = ("data.slice_columns=[country]",)


def frame(rows: int, *, seed: int, turn: float = 0.0) -> pd.DataFrame:
    """Three classes around a circle, turned a little further with each cycle."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 3, size=rows)
    angle = 2 * np.pi * label / 3 + turn
    centre = 2.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    values = (centre + generator.normal(size=(rows, 2))).astype(np.float32)
    return pd.DataFrame(
        {
            "rid": np.arange(rows) + 10_000 * seed,
            "x0": values[:, 0],
            "x1": values[:, 1],
            "country": generator.choice(["de", "fr", ""], size=rows),
            "animal": np.array(["cat", "dog", "eel"])[label],
        }
    )


def write(path: Path, rows: pd.DataFrame) -> str:
    rows.to_parquet(path)
    return str(path)


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> list[tuple[EvaluationReport, Policy, Any]]:
    """Each report, policy and decision; every candidate is promoted, whatever was decided."""
    seen = []

    def promoting(report: EvaluationReport, policy: Policy, **options: Any) -> Any:
        decision = decide(report, policy, **options)
        seen.append((report, policy, decision))
        return replace(decision, verdict="promoted")

    monkeypatch.setattr(story, "decide", promoting)
    return seen


def registry(home: Path) -> Registry:
    return Registry(url=f"sqlite:///{home / 'registry.db'}")


def scores(version: Version | None, home: Path) -> dict[str, dict[str, float]]:
    """Holdout to row id to score of a version's model, or of an untrained one."""
    pl.seed_everything(0, verbose=False)
    model = MLP(inputs=2, classes=3, hidden=[8])
    if version is not None:
        model.load_state_dict(dict(read_safetensors(version.open("model.safetensors"))))
    newest = registry(home).versions("animals")[-1]
    found = {}
    for path in newest.files:
        if path.startswith("holdout/"):
            rows, _ = read_rows_file(newest.open(path))
            inputs = torch.tensor(np.stack([rows.features["x0"], rows.features["x1"]], axis=1))
            with torch.no_grad():
                right = model(inputs).argmax(1).numpy() == rows.label
            found[Path(path).stem] = dict(zip(rows.id.tolist(), right.astype(float), strict=True))
    return found


def mean(table: dict[str, dict[str, float]], name: str) -> float:
    return float(np.mean(list(table[name].values())))


def lineage(run: Run, home: Path, tmp_path: Path) -> list[dict[str, Any]]:
    """Versions 1, 2 and 3; back to 2; versions 4 and 5, unprotected, so that they forget.

    Countries are known from cycle 3 on.
    """
    old = frame(800, seed=0).drop(columns="country")
    common = (*SETTINGS, *GATE, f"data.history={write(tmp_path / 'old.parquet', old)}")
    paths = [
        write(tmp_path / f"{turn}.parquet", frame(500, seed=turn, turn=turn))
        for turn in range(1, 5)
    ]
    results = [run(*common, f"data.new={paths[0]}")]
    results.append(run(*common, *COUNTRY, f"data.new={paths[1]}"))
    registry(home).rollback("animals")
    fast = ("method=none", "optimizer.lr=0.05", "trainer.max_steps=40", "trainer.keep=last")
    results += [run(*common, *COUNTRY, *fast, f"data.new={path}") for path in paths[2:]]
    for result in results:
        assert result["error"] is None, result["error"]
    return results


def test_a_lineage_with_a_rollback(
    run: Run, home: Path, tmp_path: Path, decided: list[tuple[EvaluationReport, Policy, Any]]
) -> None:
    results = lineage(run, home, tmp_path)
    versions = {v.number: v for v in registry(home).versions("animals")}
    assert [versions[number].parent for number in range(1, 6)] == [None, 1, 2, 2, 4]
    actual = {number: scores(version, home) for number, version in versions.items()}
    fresh = scores(None, home)

    # the matrix is what the stored models score, in the names of versions and holdouts
    told = results[-1]["forgetting"]
    assert told["versions"] == [f"animals@{number}" for number in (1, 2, 4, 5)]
    assert told["holdouts"] == [f"cycle-{number}" for number in range(1, 6)]
    known = {1: (1, 2), 2: (1, 2, 4), 4: (1, 2, 3, 4, 5), 5: (1, 2, 3, 4, 5)}
    for row, (number, cycles) in zip(told["matrix"], known.items(), strict=True):
        expected = [
            mean(actual[number], f"cycle-{cycle}") if cycle in cycles else None
            for cycle in range(1, 6)
        ]
        assert row == expected, number
    initial = versions[5].manifest["initial"]
    assert initial == {f"cycle-{n}": mean(fresh, f"cycle-{n}") for n in (2, 4, 5)}
    ahead = [
        mean(actual[version], f"cycle-{cycle}") - mean(fresh, f"cycle-{cycle}")
        for version, cycle in ((1, 2), (2, 4), (4, 5))
    ]
    assert told["forward_transfer"] == pytest.approx(np.mean(ahead))
    moved = [
        mean(actual[5], f"cycle-{cycle}") - mean(actual[version], f"cycle-{cycle}")
        for version, cycle in ((1, 1), (2, 2), (4, 3), (4, 4))
    ]
    assert told["backward_transfer"] == pytest.approx(np.mean(moved))

    # the best champion ever on each holdout: of those that were scored on it
    report = decided[-1][0]
    asked = {1: (1, 2, 4), 2: (1, 2, 4), 3: (4,), 4: (2, 4)}
    assert report.best is not None
    assert np.isnan(report.best[report.is_new]).all()
    for cycle, line in asked.items():
        name = f"cycle-{cycle}"
        winner = max(line, key=lambda number: (mean(actual[number], name), -number))
        assert report.best_versions[f"history/{name}"] == f"animals@{winner}"
        mask = report.cycle == name
        expected = [actual[winner][name][row] for row in report.row_id[mask].tolist()]
        assert report.best[mask].tolist() == expected
    assert len(set(report.best_versions.values())) > 1, "or nothing is told apart here"
    assert decided[0][0].best is None, "the founding version was the only champion"

    # slices: unknown in the holdouts of cycles that did not have the column
    assert decided[0][0].slices == {}
    country = report.slices["country"]
    assert set(country[np.isin(report.cycle, ["cycle-1", "cycle-2"])]) == {""}
    for cycle in (3, 4, 5):
        assert set(country[report.cycle == f"cycle-{cycle}"]) == {"de", "fr", ""}
    checks = {check["name"] for check in results[-1]["decision"]["checks"]}
    assert {"slice/history/country=de", "slice/history/country=fr"} <= checks

    # what was decided on is kept to the last bit, and decides the same again
    for number, (given, policy, decision) in zip((2, 3, 4, 5), decided, strict=True):
        paths = [versions[number].open(path) for path in (predictions.ROWS, predictions.FACTS)]
        again = predictions.read(*paths)
        assert predictions.write(again) == predictions.write(given)
        assert decide(again, policy, decision_number=decision.decision_number) == decision

    # nothing of it is remembered with rows to learn from
    assert stored(versions[5]).slices == {}


def test_fit_and_cost_are_measured_and_told(
    run: Run,
    home: Path,
    tmp_path: Path,
    decided: list[tuple[EvaluationReport, Policy, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = {}

    def spied(models: Any, *args: Any, **options: Any) -> Any:
        for number, who in enumerate(("champion", "candidate"), start=1):
            served[number] = {k: v.clone() for k, v in models[who].model.state_dict().items()}
        return serving_room.serving(models, *args, **options)

    monkeypatch.setattr(evidence, "serving", spied)
    old = write(tmp_path / "old.parquet", frame(800, seed=0))
    new = write(tmp_path / "new.parquet", frame(2500, seed=1, turn=1.0))
    bound = "{metric: MulticlassF1Score, arguments: {average: macro}, rows: history, limit: 0.2}"
    result = run(
        *SETTINGS, *GATE, f"data.history={old}", f"data.new={new}", f"gate.bounds=[{bound}]"
    )
    assert result["error"] is None
    for number, weights_served in served.items():
        stored_at = registry(home).version(f"animals@{number}").open("model.safetensors")
        for name, value in read_safetensors(stored_at).items():
            assert torch.equal(value, weights_served[name]), (number, name)
    report = decided[0][0]
    assert report.fitted is not None
    assert len(report.fitted.champion) == len(report.fitted.candidate) == 1000
    trained, extra = read_rows_file(registry(home).version("animals@2").open("rows/cycle-2.arrow"))
    assert set(report.fitted.cluster) <= set(trained.cluster[extra["role"] == "train"])
    assert report.fitted.candidate.mean() != report.fitted.champion.mean()

    weights = 2 * 8 + 8 + 8 * 3 + 3
    for who in ("champion", "candidate"):
        told = result["serving"][who]
        assert (told["parameters"], told["bytes"]) == (weights, 4 * weights)
        assert 0 < told["latency_p50_ms"] <= told["latency_p95_ms"]
        assert len(report.serving[who].latency) == serving_room.ROUNDS
    for part in ("new", "history", "history/cycle-1"):
        assert 0 <= result["metrics"]["candidate"][part]["ece"] <= 1

    (measured,) = report.measured.values()
    f1 = result["metrics"]["candidate"]["history"]["f1_macro"]
    assert measured.value == pytest.approx(f1, abs=1e-6)
    assert len(measured.replicates) == 200
    stored = json.loads(registry(home).version("animals@2").read_text("result.json"))
    jsonschema.validate(stored, schema())
    assert stored["serving"] == result["serving"]
    own = best.read(registry(home).version("animals@2").open(best.FILE))
    assert own.versions == {"cycle-1": 1, "cycle-2": 1}


def test_measuring_moves_no_generator(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    gather = story.gather

    def spied(*args: Any, **options: Any) -> Any:
        def now() -> list[Any]:
            legacy = np.random.get_state()[1]
            return [torch.get_rng_state().tolist(), random.getstate(), np.array(legacy).tolist()]

        torch.rand(3), random.random(), np.random.rand()
        before = now()
        found = gather(*args, **options)
        states.append((before, now()))
        return found

    monkeypatch.setattr(story, "gather", spied)
    old = write(tmp_path / "old.parquet", frame(800, seed=0))
    new = write(tmp_path / "new.parquet", frame(500, seed=1))
    assert run(*SETTINGS, *GATE, f"data.history={old}", f"data.new={new}")["error"] is None
    ((before, after),) = states
    assert before == after


@pytest.mark.parametrize(
    ("setting", "code", "message"),
    [
        ("data.slice_columns=[county]", 30, "There is no column 'county'"),
        ("gate.slices.columns=[country]", 1, "no slice column 'country'"),
        ("gate.bounds=[{metric: MulticlasF1Score, limit: 0.5}]", 1, "no metric 'MulticlasF1Score'"),
        (
            "gate.bounds=[{metric: MulticlassF1Score, arguments: {averag: macro}, limit: 0.5}]",
            1,
            "averag",
        ),
    ],
)
def test_what_cannot_be_looked_at_is_said_before_training(
    run: Run, home: Path, tmp_path: Path, setting: str, code: int, message: str
) -> None:
    old = write(tmp_path / "old.parquet", frame(800, seed=0))
    new = write(tmp_path / "new.parquet", frame(500, seed=1))
    result = run(*SETTINGS, *GATE, f"data.history={old}", f"data.new={new}", setting)
    assert (result["status"], result["exit_code"]) == ("failed", code)
    assert message in result["error"]["what"]
    assert result["error"]["mend"]
    assert not registry(home).versions("animals")


def test_copies_of_a_row_without_ids_of_their_own_are_judged(
    run: Run, home: Path, tmp_path: Path, decided: list[tuple[EvaluationReport, Policy, Any]]
) -> None:
    old = frame(800, seed=0).drop(columns="rid")
    first, second = (frame(400, seed=n).drop(columns="rid") for n in (1, 2))
    common = (*SETTINGS, *GATE, "data.id_column=null")
    common += (f"data.history={write(tmp_path / 'old.parquet', pd.concat([old, old[:300]]))}",)
    for number, rows in enumerate((first, second)):
        twice = pd.concat([rows, rows, rows[:50]])
        result = run(*common, f"data.new={write(tmp_path / f'{number}.parquet', twice)}")
        assert result["error"] is None, result["error"]
    report = decided[-1][0]
    assert report.best is not None
    assert len(np.unique(report.cluster)) < len(report) - 100
    assert any("#3" in row for row in report.row_id.tolist())
