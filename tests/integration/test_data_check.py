"""`perennial data check` says of made data what was made wrong with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

Verb = Callable[..., tuple[int, str, str]]
Run = Callable[..., dict[str, Any]]


def frame(rows: int, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 2, rows)
    age, city = generator.normal(40 + 5 * label, 5), generator.choice(["bonn", "ulm"], rows)
    names = np.array(["no", "yes"])[label]
    return pd.DataFrame(
        {"age": age, "city": city, "debt": generator.normal(size=rows), "label": names}
    )


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    frame(2000, 0).to_csv(old, index=False)
    made = frame(1000, 1)
    made["age"] += 10
    made.loc[:99, "city"] = "köln"
    made.loc[100:119, "age"] = np.nan
    contradiction = made.iloc[[500]].assign(label={"no": "yes", "yes": "no"}[made["label"][500]])
    pd.concat([made, made.iloc[200:230], contradiction]).to_csv(new, index=False)
    return old, new


def checked(verb: Verb, *arguments: str) -> tuple[int, dict[str, Any]]:
    code, out, err = verb("data", "check", *arguments, "--json")
    assert not err, err
    return code, json.loads(out)


def test_what_is_found(verb: Verb, tables: tuple[Path, Path]) -> None:
    old, new = tables
    given = ("data=table", "model_name=shop", f"data.new={new}", f"data.history={old}")
    code, found = checked(verb, *given)
    assert (code, found["exit_code"], found["decides"], found["champion"]) == (0, 0, None, None)
    columns = {one["name"]: one for one in found["columns"]}
    assert [columns[name]["kind"] for name in ("age", "city")] == ["float64 ()", "category"]
    assert columns["age"]["missing"] == 20
    assert columns["age"]["shift"]["ks"] > 0.4
    assert columns["city"]["shift"]["unseen"] == pytest.approx(100 / 1031)
    assert (found["duplicates"], found["contradictions"]) == (30, 1)
    assert sum(found["target"]["new"]["counts"].values()) == found["rows"] == 1031
    assert sum(found["split"].values()) == 1031
    code, out, err = verb("data", "check", *given)
    assert (code, err) == (0, "")
    assert "IN ORDER" in out
    assert "9.7% never seen" in out
    assert "contradictions: 1" in out


def test_rows_of_a_holdout_are_leaks(run: Run, verb: Verb, tables: tuple[Path, Path]) -> None:
    old, new = tables
    net = (
        "model=custom",
        "model._target_=support.nets.Mixed",
        "+model.numerical=null",
        "+model.cardinalities=null",
        "+model.classes=2",
    )
    short = ("trainer.max_steps=4", "trainer.validate_every=2")
    given = ("data=table", "model_name=shop", f"data.history={old}", f"data.new={new}")
    result = run(*given, *net, *short)
    assert result["error"] is None, result["error"]
    again = old.with_name("again.csv")
    known, fresh = pd.read_csv(old)[:500], frame(1000, 5)
    known.loc[0, "label"] = "yes" if known["label"][0] == "no" else "no"
    pd.concat([known, fresh]).to_csv(again, index=False)
    code, found = checked(verb, *given[:3], f"data.new={again}")
    assert code == 0
    assert found["champion"] == "shop@1"
    # a fifth of history was held out; of its first 500 rows all but one are known as they are
    leak = found["leaks"]["cycle-1"]
    assert 60 < leak["tied"] < 140
    assert leak["same_features"] - leak["tied"] in (0, 1)
    assert leak["tied"] + found["learned"] == 499
    assert found["split"]["left_out"] >= 499


def test_too_few_rows_to_decide(verb: Verb, tables: tuple[Path, Path], tmp_path: Path) -> None:
    old, _ = tables
    few = tmp_path / "few.csv"
    frame(12, 3).to_csv(few, index=False)
    given = ("data=table", "model_name=shop", f"data.new={few}", f"data.history={old}")
    code, found = checked(verb, *given)
    assert (code, found["exit_code"]) == (30, 30)
    assert "no result on them could be significant" in found["decides"]["what"]
    code, out, _ = verb("data", "check", *given)
    assert code == 30
    assert "THE GATE COULD NOT DECIDE" in out


def test_a_folder_of_images_is_described(verb: Verb, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for part, rows, names in (("old", 800, ("cat", "dog")), ("new", 700, ("cat", "dog", "eel"))):
        for number in range(rows):
            folder = tmp_path / part / names[number % len(names)]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (6, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    shutil.copy(tmp_path / "new" / "cat" / "0.png", tmp_path / "new" / "cat" / "again.png")
    given = ("data=files", f"data.new={tmp_path / 'new'}", f"data.history={tmp_path / 'old'}")
    code, found = checked(verb, *given, "data.new_classes=grow")
    assert code == 0, found["decides"]
    assert [(one["name"], one["kind"]) for one in found["columns"]] == [
        ("image", "image uint8 (1, 6, 4)")
    ]
    assert (found["rows"], found["duplicates"]) == (701, 1)
    assert found["target"]["new"]["counts"] == {"cat": 235, "dog": 233, "eel": 233}
    history = found["target"]["history"]["counts"]
    # what was held out of it is compared with nothing
    assert history.pop("eel") == 0
    assert 400 < sum(history.values()) < 700
    code, found = checked(verb, *given)
    assert (code, found["exit_code"]) == (30, 30)
    assert "eel" in found["error"]["what"]


def test_bad_data_are_said(verb: Verb, tables: tuple[Path, Path], tmp_path: Path) -> None:
    code, _, err = verb("data", "check", "data=files", f"data.new={tmp_path / 'nowhere.csv'}")
    assert code == 30
    assert "nowhere.csv" in err
    code, found = checked(verb, "data=files", f"data.new={tmp_path / 'nowhere.csv'}")
    assert (code, found["exit_code"]) == (30, 30)
    assert "nowhere.csv" in found["error"]["where"]
    code, _, err = verb("data", "chek")
    assert code == 1
    assert "perennial data check" in err


@pytest.mark.parametrize(
    ("task", "values", "words"),
    [
        ("regression", lambda n: n / 2, "median"),
        ("multilabel", lambda n: ["red", "round"] if n % 4 == 0 else ["red"], "label (share of"),
        ("ranking", lambda n: n % 30 if n % 2 else 7, "share of the ten most frequent"),
        ("tokens", lambda n: [n % 2, 1, -100], "label of a position"),
        ("language", None, "time: 2028-03-11"),
    ],
)
def test_targets_of_each_kind_are_described(
    verb: Verb, tmp_path: Path, task: str, values: Any, words: str
) -> None:
    rows = np.arange(1600)
    made = pd.DataFrame({"x": rows.astype(float), "ids": [[n, n + 1, n + 2] for n in rows]})
    made["day"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(rows, unit="D")
    label = "data.label=null"
    if values is not None:
        made["y"], label = [values(n) for n in rows.tolist()], "data.label=y"
    feature = "ids" if task in ("tokens", "language") else "x"
    for name, part in {"old": made[:800], "new": made[800:]}.items():
        part.to_parquet(tmp_path / f"{name}.parquet")
    tokens = ("task.tokens=ids",) if task == "language" else ()
    given = (
        "data=files", f"task={task}", label, f"data.features=[{feature}]", "data.time_column=day",
        f"data.new={tmp_path / 'new.parquet'}", f"data.history={tmp_path / 'old.parquet'}", *tokens,
    )  # fmt: skip
    code, found = checked(verb, *given)
    assert code == 0, found["decides"]
    target, new = found["target"], found["target"]["new"]
    assert found["time"][0].startswith("2028-03-11")
    assert new["total"] == (1600 if task == "tokens" else 800)
    y = None if values is None else [values(n) for n in range(800, 1600)]
    if task == "regression":
        assert new["quantiles"]["0.5"] == np.median(y)
        assert sum(new["histogram"]["counts"]) == 800
        assert new["histogram"]["edges"] == target["history"]["histogram"]["edges"]
        assert target["shift"]["ks"] == 1
    elif task == "multilabel":
        assert new["counts"] == {"red": 800, "round": 200}
    elif task == "ranking":
        counts = pd.Series(y).value_counts()
        assert new["items"] == len(counts)
        assert new["head"] == counts.head(10).sum() / 800
        assert target["shift"]["unseen"] == 0
    elif task == "tokens":
        assert new["counts"] == {"0": 400, "1": 1200}
    else:
        assert "counts" not in new
    code, out, err = verb("data", "check", *given)
    assert (code, err) == (0, "")
    assert words in out


def test_rows_that_the_lineage_has_met_are_nothing_new(
    verb: Verb, run: Run, tables: tuple[Path, Path]
) -> None:
    old, _ = tables
    given = ("data=table", "model_name=shop", f"data.new={old}", f"data.history={old}")
    code, found = checked(verb, *given)
    assert (code, found["exit_code"], found["unmet"], found["decides"]) == (10, 10, 0, None)
    code, out, _ = verb("data", "check", *given)
    assert code == 10
    assert "NOTHING NEW" in out
    assert "COULD NOT DECIDE" not in out
    assert checked(verb, *given, "exit_zero=true")[0] == 0


def test_it_takes_the_words_that_train_takes(
    verb: Verb, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = tables
    own = tmp_path / "conf" / "experiment"
    own.mkdir(parents=True)
    (own / "shop.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /data: table\n  - override /model: tabular\n"
        "  - override /method: replay\nmodel_name: shop\ncheckpoint: serving.ckpt\n"
        f"data:\n  history: {old}\n  new: {new}\ntrainer:\n  max_steps: 30\n"
    )
    words = ("--config-dir", str(tmp_path / "conf"), "experiment=shop", "debug=dry")
    code, found = checked(verb, *words, "trainer.batch_size=16", "optimizer.lr=0.1")
    assert (code, found["rows"], found["decides"]) == (0, 1031, None)
