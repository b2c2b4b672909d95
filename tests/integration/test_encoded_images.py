"""Images as the bytes of their files, from a source through memory and replay to a prediction."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import perennial
from perennial.data.images import encoded_as
from perennial.data.query import Query
from perennial.data.store import read_rows_file
from perennial.errors import DataError
from perennial.promotion.registry import Registry
from perennial.steps.forget import forget, plan
from support.remembered import stored

Run = Callable[..., dict[str, Any]]
COMMON = (
    "data=files", "model=mlp", "model.inputs=64", "model.classes=3", "model_name=pictures",
    "trainer.max_steps=6", "trainer.validate_every=3", "method=replay", "gate.retention=waived",
    "data.memory.capacity=150",
)  # fmt: skip


def pictures(count: int, seed: int) -> tuple[list[bytes], Any, Any]:
    """Files of pictures with a bright stripe, the pixels (N, 8, 8), and where the stripe is."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 3, count)
    pixels = generator.integers(0, 60, (count, 8, 8), dtype=np.uint8)
    pixels[np.arange(count), 2 * label] += 150
    found = []
    for one in pixels:
        sink = io.BytesIO()
        Image.fromarray(one).save(sink, "PNG")
        found.append(sink.getvalue())
    return found, pixels, label


def written(folder: Path, seed: int, form: str) -> str:
    """A source of 600 rows."""
    encoded, pixels, label = pictures(600, seed)
    columns: dict[str, list[Any]] = {
        "bytes": encoded,
        "structs": [{"bytes": one, "path": None} for one in encoded],
        "pixels": pixels[:, None].tolist(),
    }
    path = folder / f"{seed}-{form}.parquet"
    pd.DataFrame({"image": columns[form], "label": label}).to_parquet(path)
    return str(path)


def opened(home: Path) -> Registry:
    return Registry(url=f"sqlite:///{home / 'registry.db'}")


@pytest.mark.parametrize("form", ["bytes", "structs"])
def test_memory_and_holdouts_keep_files_that_replay_and_predictions_see(
    run: Run, home: Path, tmp_path: Path, form: str
) -> None:
    old, new = (written(tmp_path, seed, form) for seed in range(2))
    result = run(*COMMON, f"data.history={old}", f"data.new={new}", "history=memory")
    assert result["error"] is None
    assert result["cost"]["replayed_rows"] > 0
    registry = opened(home)
    first = registry.version("pictures@1")
    assert first.manifest["schema"] == {"image": "image uint8 (1, 8, 8)"}
    files = set(pictures(600, 0)[0])
    held = read_rows_file(first.open("holdout/cycle-1.arrow"))[0]
    for rows in (stored(first), held):
        assert len(rows) > 80
        assert set(rows.features["image"].tolist()) <= files

    predictor = perennial.load("pictures@2")
    encoded, pixels, _ = pictures(20, 5)
    expected = predictor.predict(pixels)
    for given in (
        encoded,
        pd.DataFrame({"image": encoded}),
        [{"image": one} for one in encoded],
        [Image.open(io.BytesIO(one)) for one in encoded],
        [{"image": {"bytes": one, "path": None}} for one in encoded],
    ):
        assert predictor.predict(given) == expected
    assert predictor.predict(encoded[3]) == expected[3:4]
    with pytest.raises(DataError, match="image in row 1 cannot be read"):
        predictor.predict([encoded[0], b"no image"])

    gone = str(held.id[0])
    forget(registry, plan(registry, "pictures", Query("ids", ids=frozenset({gone})), dry=False))
    left = read_rows_file(registry.version("pictures@1").open("holdout/cycle-1.arrow"))[0]
    assert left.features["image"].tolist() == held.features["image"].tolist()[1:]


@pytest.mark.parametrize(("founded", "then"), [("pixels", "bytes"), ("bytes", "pixels")])
def test_a_lineage_takes_new_images_in_another_form(
    run: Run, home: Path, tmp_path: Path, founded: str, then: str
) -> None:
    old, new = written(tmp_path, 0, founded), written(tmp_path, 1, then)
    result = run(*COMMON, f"data.history={old}", f"data.new={new}")
    assert result["error"] is None
    kept = stored(opened(home).version("pictures@2"))
    assert set(kept.features["image"].shape) == ({150} if founded == "bytes" else {150, 1, 8})
    # the same pictures in either form are the same rows
    again = written(tmp_path, 0, then)
    told = run(*COMMON, f"data.history={old}", f"data.new={again}")
    assert told["status"] == "skipped"


def test_encoded_images_are_watched_for_drift(run: Run, home: Path, tmp_path: Path) -> None:
    old, new = (written(tmp_path, seed, "bytes") for seed in range(2))
    assert run(*COMMON, f"data.history={old}", f"data.new={new}")["error"] is None
    drift = ("trigger=drift", "trigger.draws=100", "trigger.permutations=200", "trigger.every=7d")
    same = run(*COMMON, *drift, f"data.new={written(tmp_path, 2, 'bytes')}")
    assert (same["status"], same["trigger"]["due"]) == ("skipped", False)
    _, pixels, label = pictures(600, 3)
    darker = [encoded_as(one[None, None] // 2)[0] for one in pixels]
    path = tmp_path / "darker.parquet"
    pd.DataFrame({"image": darker, "label": label}).to_parquet(path)
    moved = run(*COMMON, *drift, f"data.new={path}")
    assert moved["trigger"]["due"], moved["trigger"]
    assert "image" in moved["trigger"]["reason"]


def test_a_column_of_bytes_that_are_no_images_is_refused(run: Run, tmp_path: Path) -> None:
    encoded, _, label = pictures(600, 0)
    encoded[417] = b"GIF89a and no more"
    path = tmp_path / "bad.parquet"
    pd.DataFrame({"image": encoded, "label": label}).to_parquet(path)
    result = run(*COMMON, f"data.history={path}", f"data.new={path}")
    assert (result["status"], result["exit_code"]) == ("failed", 30)
    assert "The image in row 417 cannot be read" in result["error"]["what"]
    assert "data.features" in result["error"]["mend"]
