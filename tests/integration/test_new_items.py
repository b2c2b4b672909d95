"""Whole cycles of a recommender whose new rows bring items that the champion does not know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import perennial
from perennial.promotion.registry import Registry

Run = Callable[..., dict[str, Any]]
SIZE = 8
# in the alphabet of all, the new ones come between the old ones
NAMES = np.array([f"{letter}{number:02}" for letter in "qbzm" for number in range(SIZE)])
OLD, NEW = sorted(NAMES[: 2 * SIZE].tolist()), sorted(NAMES[2 * SIZE :].tolist())


def events(rows: int, genres: list[int], seed: int) -> pd.DataFrame:
    """Users go through the items of a genre in a circle by ones and twos; some have met none."""
    draw = np.random.default_rng(seed)
    genre, start = draw.choice(genres, rows), draw.integers(0, SIZE, rows)
    step = np.ones((rows, 5), dtype=np.int64)
    step[:, :4] += draw.random((rows, 4)) < 0.4
    item = NAMES[SIZE * genre[:, None] + (start[:, None] + step.cumsum(axis=1)) % SIZE]
    first = draw.choice(5, rows, p=[0.4, 0.3, 0.2, 0.05, 0.05])
    met = [row[a:4].tolist() for row, a in zip(item, first, strict=True)]
    users = [f"{seed}-{row}" for row in range(rows)]
    return pd.DataFrame({"event": users, "user": users, "items": met, "next_item": item[:, 4]})


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    events(1100, [0, 1], 1).to_parquet(tmp_path / "history.parquet")
    mixed = pd.concat([events(900, [2, 3], 2), events(200, [0], 3)])
    mixed.to_parquet(tmp_path / "new.parquet")
    events(1100, [2, 3], 4).to_parquet(tmp_path / "later.parquet")
    return (
        "task=ranking",
        "task.cutoffs=[1,3]",
        "model=sequential",
        "model.width=16",
        "model.layers=1",
        "model.dropout=0.0",
        "data=sequence",
        f"data.history={tmp_path / 'history.parquet'}",
        f"data.new={tmp_path / 'new.parquet'}",
        "data.id_column=event",
        "data.group_column=user",
        "data.preprocess.max_length=4",
        "data.duplicates=allow",
        "optimizer.lr=0.01",
        "model_name=shop",
        "data.holdout_fraction=0.25",
        "data.validation_fraction=0.1",
        "trainer.max_steps=150",
        "trainer.validate_every=150",
        "gate.retention.margin=0.2",
        "gate.retention.total=0.3",
    )


def registry(home: Path) -> Registry:
    return Registry(url=f"sqlite:///{home / 'registry.db'}")


def weight(version: Any, name: str) -> npt.NDArray[Any]:
    from perennial.models.checkpoint import version_weights

    return version_weights(version)[name].numpy()


@pytest.mark.parametrize(
    "method",
    [
        "default",
        pytest.param("[replay,interpolation]", marks=pytest.mark.slow),
        pytest.param("[replay,lwf]", marks=pytest.mark.slow),
    ],
)
def test_items_that_come_later_are_recommended_by_name(
    method: str, run: Run, home: Path, files: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(*files, f"method={method}", "data.new_classes=grow")
    assert result["error"] is None, result["error"]
    assert result["status"] == "promoted", result["decision"]
    assert result["data"]["new"]["new_classes"] == NEW
    assert f"{len(NEW)} new items, matched by name" in capsys.readouterr().out

    first, second = (registry(home).version(f"shop@{number}") for number in (1, 2))
    assert first.manifest["label_names"] == ["", *OLD]
    assert second.manifest["label_names"] == ["", *OLD, *NEW]
    assert second.manifest["model"]["head"] == {"name": "", "outputs": 33}
    assert weight(first, "items.weight").shape == (17, 16)
    assert weight(second, "items.weight").shape == (33, 16)
    assert weight(second, "bias").shape == (33,)

    rows = pq.read_table(second.open("predictions/holdouts.parquet")).to_pandas()
    new = rows[rows["holdout"] == "new"]
    unknown = new["label"] > len(OLD)
    assert unknown.sum() > 20
    assert not new["champion_score"][unknown].any(), "what it does not know it misses"
    assert rows["champion_score"][rows["holdout"] != "new"].mean() > 0.5
    assert new["candidate_score"][unknown].mean() > 0.4

    champion, previous = perennial.load("shop@champion"), perennial.load("shop@1")
    started = [["z00", "z01", "z02"], ["m06", "m07"], ["z00", "never seen", "z01", "z02"]]
    told = champion.predict({"items": started})
    assert [row[0] for row in told] == ["z03", "m00", "z03"]
    assert all(len(row) <= 3 and set(row) <= set(NAMES) for row in told)
    assert {item for row in previous.predict({"items": started}) for item in row} <= set(OLD)
    empty = champion.predict(pd.DataFrame({"items": [[], ["b00"]]}))
    assert len(empty) == 2
    assert champion.predict({"items": "z00|z01|z02"})[0] == told[0]


def test_the_next_cycle_goes_on_with_the_longer_catalogue(
    run: Run, home: Path, files: tuple[str, ...], tmp_path: Path
) -> None:
    run(*files, "data.new_classes=grow")
    later = [name for name in files if not name.startswith("data.new=")]
    result = run(*later, f"data.new={tmp_path / 'later.parquet'}")
    assert result["candidate"] == {"id": "shop@3"}, result["error"]
    assert result["data"]["new"]["new_classes"] == []
    second, third = (registry(home).version(f"shop@{number}") for number in (2, 3))
    assert second.manifest["label_names"] == third.manifest["label_names"]
    assert second.manifest["model"]["head"] == third.manifest["model"]["head"]
    assert result["metrics"]["champion"]["new"]["recall@1"] > 0.5


def test_by_default_an_unknown_item_is_bad_data(run: Run, home: Path, files: Any) -> None:
    result = run(*files)
    assert result["exit_code"] == 30
    assert "data.new_classes=grow" in result["error"]["mend"]
    assert registry(home).champion("shop") is None, "said before anything is trained"


def test_numbers_and_names_of_items_do_not_mix(run: Run, files: Any, tmp_path: Path) -> None:
    run(*files, "data.new_classes=grow", "trainer.max_steps=2", "promote=false")
    numbered = events(50, [0], 5).assign(next_item=3)
    numbered.to_parquet(tmp_path / "numbered.parquet")
    later = [name for name in files if not name.startswith("data.new=")]
    result = run(*later, f"data.new={tmp_path / 'numbered.parquet'}")
    assert result["exit_code"] == 30
    assert "give the items as text" in result["error"]["mend"]


class Fixed(torch.nn.Module):
    """An embedding and an output of so many items, and no word of how they grow."""

    def __init__(self, items: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(items, 8)
        self.head = torch.nn.Linear(8, items)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """Scores of all items after the last one."""
        scores: torch.Tensor = self.head(self.embedding(items[:, -1]))
        return scores


def test_a_model_whose_inputs_cannot_grow_is_refused(run: Run, home: Path, files: Any) -> None:
    own = [name for name in files if not name.startswith("model")]
    target = f"model._target_={__name__}.Fixed"
    result = run(*own, "model=custom", target, "+model.items=null", "data.new_classes=grow")
    assert result["exit_code"] == 1
    assert "grow_outputs" in result["error"]["mend"]
    assert registry(home).champion("digits") is None
