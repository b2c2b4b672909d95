"""What a version carries to tell drift by: made by a cycle, read with its hash, forgotten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from perennial.data.preprocess import Table
from perennial.data.query import Query
from perennial.data.store import read_rows_file
from perennial.errors import IntegrityError, RegistryError
from perennial.monitoring import reference as module
from perennial.monitoring.calibration import Calibration
from perennial.monitoring.drift import Examiner
from perennial.monitoring.window import Window
from perennial.promotion.registry import Registry
from perennial.steps.forget import forget, plan
from perennial.steps.learner import Constructor, build_learner
from perennial.steps.reference import reference_of, represent
from perennial.tasks.classification import Classification
from support.drifting import columns, reference, rows

Run = Callable[..., dict[str, Any]]
SETTINGS = (
    "data=table", "model=tabular", "model_name=churn", "data.label=left", "data.time_column=day",
    "data.id_column=rid", "trainer.max_steps=4", "trainer.validate_every=2", "method=replay",
    "gate.retention.margin=0.5", "gate.retention.total=0.5",
)  # fmt: skip


def frame(rows: int, *, seed: int, shift: float = 0.0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 2, rows)
    spent = (generator.normal(size=rows) + 2 * label + shift).astype(np.float32)
    day = pd.Timestamp("2026-01-01") + pd.to_timedelta(100 * seed + np.arange(rows) // 10, "D")
    plan = np.array(["free", "paid"])[generator.integers(0, 2, rows)].astype(object)
    plan[3] = f"only-{seed}"
    return pd.DataFrame(
        {
            "rid": [f"row-{seed}-{i:05}-" for i in range(rows)],
            "spent": np.where(generator.random(rows) < 0.1, np.nan, spent),
            "plan": plan,
            "age": generator.uniform(18, 90, rows),
            "day": day,
            "left": np.array(["no", "yes"])[label],
        }
    )


@pytest.fixture
def registry(run: Run, home: Path, tmp_path: Path) -> Registry:
    """A first version, and the candidate of one cycle."""
    paths = [tmp_path / f"{seed}.parquet" for seed in range(2)]
    for seed, path in enumerate(paths):
        frame(700 if not seed else 500, seed=seed).to_parquet(path)
    result = run(*SETTINGS, f"data.history={paths[0]}", f"data.new={paths[1]}")
    assert result["error"] is None
    return Registry(url=f"sqlite:///{home / 'registry.db'}")


def test_each_version_carries_its_own_cycle(registry: Registry, tmp_path: Path) -> None:
    for number, seed in ((1, 0), (2, 1)):
        version = registry.version(f"churn@{number}")
        found = reference_of(version)
        index, extra = read_rows_file(version.open(f"rows/cycle-{number}.arrow"))
        expected = set(index.id[np.isin(extra["role"], ["train", "holdout"])].tolist())
        assert set(found.rows.id.tolist()) == expected
        assert sum(found.total.values()) == len(expected)
        assert (found.version, found.cycle) == (version.id, f"cycle-{number}")
        assert f"only-{seed}" in found.known["plan"] or f"row-{seed}-00003-" not in expected
        assert found.reads == {"spent": "number", "plan": "category", "age": "number"}
        assert found.has_time
        given = frame(700 if not seed else 500, seed=seed).set_index("rid").loc[found.rows.id]
        np.testing.assert_array_equal(
            found.rows.features["spent"], given["spent"].to_numpy(np.float32)
        )
        assert (np.diff(given["day"].to_numpy()[np.argsort(found.order)].astype(int)) >= 0).all()
        # the latest rows are held out
        assert found.order[found.role == "holdout"].min() > found.order[found.role == "train"].max()

    # a window needs no labels
    found = reference_of(registry.version("churn@2"))
    path = tmp_path / "week.csv"
    calibration = Calibration(draws=100)
    for shift in (0.0, 2.0):
        frame(300, seed=7, shift=shift)[["age", "plan", "spent"]].to_csv(path, index=False)
        examiner = Examiner(found, calibration=calibration, permutations=100)
        findings = examiner.examine(Window.open(path, found))
        assert findings.alarm == (shift > 0), findings.to_dict()
        assert findings.version == "churn@2"
    names = {one.measured.name: one.measured for one in findings.moved}
    assert names["spent"].effect > 1
    version = registry.version("churn@2")
    stored = version.open(module.ROWS)
    stored.chmod(0o644)
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.write_bytes(bytes(content))
    with pytest.raises(IntegrityError):
        reference_of(registry.version("churn@2"))


def test_what_a_model_makes_of_unlabelled_rows() -> None:
    found = reference(rows(columns(300, 0)))
    table = Table()
    table.fit(found.rows.features)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = torch.nn.Linear(3, 5), torch.nn.Linear(5, 2)

        def forward(self, numerical: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
            both = torch.cat([numerical, categorical.float()], dim=1)
            return self.head(self.body(both).relu())

    torch.manual_seed(0)
    learner = build_learner(
        model=Constructor("Net", {}, lambda **_: Net()),
        task=Classification(label="left"),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        device=torch.device("cpu"),
        form="dict",
        label="left",
        preprocess=table,
    )
    window = {name: values[:50] for name, values in found.rows.features.items()}
    made = represent(learner, ("no", "yes"))(window)
    assert made.vectors is not None
    assert made.vectors.shape == (50, 5)
    inputs = table.apply(window)
    with torch.no_grad():
        logits = learner.model(*(torch.from_numpy(inputs[n]) for n in ("numerical", "categorical")))
    share = logits.softmax(dim=1).numpy()
    assert made.confidence == pytest.approx(share.max(axis=1), abs=1e-6)
    assert made.prediction is not None
    assert made.prediction.tolist() == np.array(["no", "yes"])[share.argmax(axis=1)].tolist()


def test_forgotten_rows_leave_it(registry: Registry) -> None:
    before = reference_of(registry.version("churn@1"))
    assert before.known["plan"]["only-0"] == 1
    gone = {"row-0-00003-", "row-0-00010-", "row-0-00690-"} & set(before.rows.id.tolist())
    assert "row-0-00003-" in gone
    made = plan(registry, "churn", Query("ids", ids=frozenset(gone)), dry=False)
    forget(registry, made)
    after = reference_of(registry.version("churn@1"))
    stays = ~np.isin(before.rows.id, sorted(gone))
    assert after.rows.id.tolist() == before.rows.id[stays].tolist()
    assert after.order.tolist() == before.order[stays].tolist()
    assert "only-0" not in after.known["plan"]
    assert sum(after.total.values()) == sum(before.total.values()) - len(gone)
    other = registry.version("churn@2")
    assert reference_of(other).known["plan"] == counted(reference_of(other), "plan")
    forget(
        registry,
        plan(registry, "churn", Query("ids", ids=frozenset(after.rows.id.tolist())), dry=False),
    )
    with pytest.raises(RegistryError, match="churn@1 carries no reference"):
        reference_of(registry.version("churn@1"))


def counted(found: Any, column: str) -> dict[str, int]:
    return module.counted(found.rows.features[column])
