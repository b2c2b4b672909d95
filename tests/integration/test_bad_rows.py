"""Rows and settings that cannot be used, before a lineage is founded and in the middle of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import perennial
from perennial.promotion.registry import Registry

Run = Callable[..., dict[str, Any]]
NAMES = ["cat", "dog", "eel"]
TABLE = (
    *("trainer.max_steps=6", "trainer.validate_every=3", "data=files", "model_name=animals"),
    *("data.label=animal", "model.inputs=4", "model.classes=3", "method=none"),
)
WITH_IDS = ("data.id_column=rid", "data.features=[x0,x1,x2,x3]")


def frame(rows: int, seed: int, *, names: list[Any] = NAMES, first_id: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    label = generator.integers(0, len(names), size=rows)
    values = generator.normal(size=(rows, 4))
    values[:, 0] += 4 * label
    columns = {f"x{i}": values[:, i] for i in range(4)}
    rid = np.arange(first_id, first_id + rows)
    return pd.DataFrame({**columns, "rid": rid, "animal": np.array(names)[label]})


def write(path: Path, rows: pd.DataFrame, *, ids: bool = False) -> str:
    rows = rows if ids else rows.drop(columns="rid")
    rows.to_csv(path, index=False) if path.suffix == ".csv" else rows.to_parquet(path, index=False)
    return str(path)


def told(result: dict[str, Any], *words: str, code: int = 30) -> None:
    error = result["error"]
    assert (result["status"], result["exit_code"]) == ("failed", code), result
    text = " ".join(str(error[key]) for key in ("what", "where", "mend"))
    assert "did not foresee" not in text, error
    for word in words:
        assert word in text, (word, error)


def in_order(names: list[str]) -> str:
    """The override that names a model's outputs, as text."""
    quoted = ",".join("'" + name + "'" for name in names)
    return f"task.labels=[{quoted}]"


def versions(home: Path) -> int:
    return len(Registry(url=f"sqlite:///{home / 'registry.db'}").versions("animals"))


@pytest.fixture
def lineage(run: Run, home: Path, tmp_path: Path) -> tuple[str, ...]:
    """Settings under which a lineage of animals was founded, with ids."""
    history = write(tmp_path / "old.parquet", frame(1000, 0, first_id=0), ids=True)
    new = write(tmp_path / "new.parquet", frame(600, 1, first_id=5000), ids=True)
    settings = (*TABLE, *WITH_IDS, f"data.history={history}")
    assert run(*settings, f"data.new={new}")["error"] is None
    return settings


@pytest.fixture
def attempt(run: Run, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Founds a lineage on a table of whatever kind."""

    def job(path: Path, *settings: str) -> dict[str, Any]:
        new = write(tmp_path / "good.parquet", frame(600, 1))
        return run(*TABLE, f"data.history={path}", f"data.new={new}", *settings)

    return job


@pytest.mark.parametrize("names", [["3", "5", "7"], [*"012356789"], [*"012345678"]])
def test_text_labels_that_look_like_numbers_are_not_renamed(
    run: Run, home: Path, tmp_path: Path, names: list[str]
) -> None:
    history = write(tmp_path / "old.parquet", frame(1000, 0, names=names))
    new = write(tmp_path / "new.parquet", frame(600, 1, names=names))
    settings = (*TABLE, "model.classes=10", f"data.history={history}", f"data.new={new}")
    told(run(*settings), f"{len(names)} classes", "10 outputs", names[-1], "task.labels")
    told(run(*settings, in_order(names)), "fewer", "task.labels")

    every = in_order([*names, *sorted(set("0123456789") - {*names})])
    assert run(*settings, every)["error"] is None
    predictor = perennial.load("animals@champion")
    values = frame(20, 2, names=names)[["x0", "x1", "x2", "x3"]].to_numpy()
    assert predictor.label_names[: len(names)] == tuple(names)
    assert set(predictor.predict(values)) <= set("0123456789")


def test_whole_number_labels_stand_for_positions(run: Run, home: Path, tmp_path: Path) -> None:
    history = write(tmp_path / "old.parquet", frame(1000, 0, names=[0, 1, 2]))
    new = write(tmp_path / "new.parquet", frame(600, 1, names=[0, 1, 2]))
    result = run(*TABLE, "model.classes=5", f"data.history={history}", f"data.new={new}")
    assert result["error"] is None
    assert perennial.load("animals@champion").label_names == ("0", "1", "2", "3", "4")


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_label_is_no_class(
    attempt: Callable[..., dict[str, Any]], tmp_path: Path, blank: str
) -> None:
    rows = frame(1000, 0)
    rows.loc[[17, 40, 41], "animal"] = blank
    history = tmp_path / "old.csv"
    rows.drop(columns="rid").to_csv(history, index=False)
    told(attempt(history), "animal", "3 of 1000", "row 17", "blank")


def test_columns_of_one_name(attempt: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    rows = frame(1000, 0).drop(columns="rid")
    rows.columns = ["x0", "x1", "x1", "x3", "animal"]
    rows.to_csv(tmp_path / "twice.csv", index=False)
    told(attempt(tmp_path / "twice.csv"), "'x1'", "twice.csv")
    table = pa.table([pa.array(rows.iloc[:, i]) for i in range(5)], names=list(rows.columns))
    pq.write_table(table, tmp_path / "twice.parquet")
    told(attempt(tmp_path / "twice.parquet"), "x1", "twice.parquet")


@pytest.mark.parametrize("most", [2**64 - 1, 2**62, 1_000_000])
def test_a_label_beyond_all_classes(
    attempt: Callable[..., dict[str, Any]], tmp_path: Path, most: int
) -> None:
    rows = frame(1000, 0, names=[0, 1, 2])
    rows["animal"] = rows["animal"].astype(np.uint64)
    rows.loc[5, "animal"] = np.uint64(most)
    told(attempt(Path(write(tmp_path / "old.parquet", rows))), "animal")


@pytest.mark.parametrize("text", ["[1, 2, 3]", "[[1], [2]]", ' [{"x0": 1}, 7]'])
def test_a_list_that_is_no_table(
    attempt: Callable[..., dict[str, Any]], tmp_path: Path, text: str
) -> None:
    (tmp_path / "numbers.json").write_text(text)
    told(attempt(tmp_path / "numbers.json"), "numbers.json", "no records")


def test_a_number_that_float32_cannot_hold(
    attempt: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    rows = frame(1000, 0)
    rows.loc[[9, 30], "x2"] = 1e300
    told(attempt(Path(write(tmp_path / "old.parquet", rows))), "'x2'", "2 of 1000", "row 9")


def test_settings_of_another_kind(run: Run, attempt: Any, tmp_path: Path) -> None:
    history = Path(write(tmp_path / "old.parquet", frame(1000, 0)))
    told(attempt(history, "data.validation_fraction=abc"), "data.validation_fraction", code=1)
    told(attempt(history, "data.holdout_fraction=true"), "data.holdout_fraction", code=1)
    told(attempt(history, "data.memory=null"), "data.memory", code=1)
    told(attempt(history, "data.validation_fraction=0"), "data.validation_fraction", code=1)
    told(attempt(history, "data.form=dict"), "data.form", "x0", code=1)


def test_one_feature_by_its_name(run: Run, home: Path) -> None:
    short = ("trainer.max_steps=6", "trainer.validate_every=3")
    assert run(*short, "data.features=image")["error"] is None


def test_another_form_or_model_in_the_middle_of_a_lineage(
    run: Run, lineage: tuple[str, ...], tmp_path: Path
) -> None:
    new = f"data.new={write(tmp_path / 'b.parquet', frame(600, 2, first_id=9000), ids=True)}"
    told(run(*lineage, new, "data.form=dict"), "data.form", "x0", code=1)
    told(run(*lineage, new, "model.hidden=[64]"), "layers.1.weight", "animals@1", code=1)


def test_what_a_lineage_was_founded_with_stays(
    run: Run, home: Path, lineage: tuple[str, ...], tmp_path: Path
) -> None:
    rows = frame(600, 2, first_id=9000)
    new = f"data.new={write(tmp_path / 'b.parquet', rows, ids=True)}"
    before = versions(home)
    for changed in (
        "data.duplicates=allow",
        "data.id_column=null",
        "data.group_column=x3",
        "data.memory.seed=4",
        "task.labels=[dog,cat,eel]",
        "task.labels=[cat,dog,eel,fox]",
    ):
        told(run(*lineage, new, changed), changed.partition("=")[0], code=1)
    assert versions(home) == before
    assert run(*lineage, new, "task.labels=[cat,dog,eel]")["error"] is None
    assert versions(home) == before + 1


def test_a_few_new_rows_are_not_called_old(
    run: Run, lineage: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = 0
    for turn in range(12):
        row = frame(1, 100 + turn, first_id=9000 + turn)
        one = f"data.new={write(tmp_path / 'one.parquet', row, ids=True)}"
        result = run(*lineage, one)
        assert result["exit_code"] == 30, result
        seen += "has not met 1 rows" in result["error"]["what"]
    assert 2 <= seen <= 10  # the others fell into training, and there is no holdout
    old = f"data.new={tmp_path / 'old.parquet'}"
    capsys.readouterr()
    assert run(*lineage, old)["exit_code"] == 10
    assert "1000 rows left out, met in an earlier cycle" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["new", "history_holdout"])
def test_ids_that_start_anew_are_refused(
    run: Run, lineage: tuple[str, ...], tmp_path: Path, name: str
) -> None:
    rows = write(tmp_path / "again.parquet", frame(600, 9, first_id=900), ids=True)
    fresh = write(tmp_path / "b.parquet", frame(600, 2, first_id=9000), ids=True)
    result = run(*lineage, f"data.new={fresh}", f"data.{name}={rows}")
    told(result, "100 of 600 ids", "'900'", "data.id_column=rid", f"data.{name}")


def test_ids_of_an_own_test_set_are_not_those_of_history(
    run: Run, home: Path, tmp_path: Path
) -> None:
    history = write(tmp_path / "old.parquet", frame(1000, 0, first_id=0), ids=True)
    new = write(tmp_path / "new.parquet", frame(600, 1, first_id=5000), ids=True)
    test = write(tmp_path / "test.parquet", frame(300, 2, first_id=0), ids=True)
    settings = (*TABLE, *WITH_IDS, f"data.history={history}", f"data.new={new}")
    result = run(*settings, f"data.history_holdout={test}")
    told(result, "data.history_holdout", "data.id_column=rid")
