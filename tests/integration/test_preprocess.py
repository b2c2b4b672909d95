"""Tables with categories and gaps, and texts, from CSV through two cycles to a prediction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import perennial
from perennial.paths import home as registry_home
from perennial.promotion.registry import Registry
from support.remembered import stored

Run = Callable[..., dict[str, Any]]
STEPS = ("trainer.max_steps=150", "trainer.validate_every=50", "optimizer.lr=0.01")


def customers(rows: int, seed: int, *, drift: bool) -> pd.DataFrame:
    """Whether someone stays; in another time there is a new city, whose people are loyal."""
    generator = np.random.default_rng(seed)
    cities = ["bonn", "köln", "ulm", *(["mainz"] * 3 if drift else [])]
    city = generator.choice(cities, rows).astype(object)
    age = generator.normal(45, 15, rows)
    score = (age > 45).astype(int) + np.isin(city, ["bonn", "mainz"])
    plan = generator.choice([10, 20, 30], rows)
    age[generator.random(rows) < 0.05] = np.nan
    city[generator.random(rows) < 0.01] = None
    label = np.array(["goes", "doubts", "stays"])[score]
    return pd.DataFrame({"age": age, "city": city, "plan": plan, "label": label})


TABLE = (
    *STEPS,
    "data=table",
    "model_name=customers",
    "model=custom",
    "model._target_=support.nets.Mixed",
    "+model.numerical=null",
    "+model.cardinalities=null",
    "+model.classes=3",
    "data.preprocess.categorical=[city,plan]",
)


@pytest.fixture
def table(tmp_path: Path) -> tuple[Path, Path]:
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    customers(3000, 0, drift=False).to_csv(old, index=False)
    customers(2000, 1, drift=True).to_csv(new, index=False)
    return old, new


def test_a_table_goes_to_a_promotion_and_a_prediction(
    run: Run, home: Path, table: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = table
    result = run(*TABLE, f"data.history={old}", f"data.new={new}", "gate.retention.total=0.05")
    assert result["error"] is None, result["error"]
    assert result["status"] == "promoted", result["decision"]
    told = capsys.readouterr().out
    assert "new: " in told
    assert "rows with a city never seen" in told
    assert "rows without age, filled by its median" in told
    registry = Registry(url=f"sqlite:///{registry_home() / 'registry.db'}")
    first, second = registry.version("customers@1"), registry.version("customers@2")
    path = "preprocess/vocabularies.json"
    assert first.files[path] == second.files[path]
    assert first.manifest["preprocess"] == second.manifest["preprocess"]
    assert first.manifest["model"]["arguments"]["cardinalities"] == [4, 4]
    rows = stored(second)
    assert set(rows.features["city"].tolist()) == {"", "bonn", "köln", "ulm", "mainz"}
    predictor = perennial.load("customers@champion", allow=["support.nets.Mixed"])
    fresh = customers(400, 2, drift=True)
    right = np.mean(np.array(predictor.predict(fresh.drop(columns="label"))) == fresh["label"])
    assert right == pytest.approx(result["metrics"]["candidate"]["new"]["accuracy"], abs=0.08)
    assert (
        predictor.predict({"age": 70, "city": "nowhere", "plan": 10})[0] in fresh["label"].unique()
    )


def test_another_preprocessing_is_refused(run: Run, home: Path, table: tuple[Path, Path]) -> None:
    old, new = table
    short = ("trainer.max_steps=4", "trainer.validate_every=2")
    given = (*TABLE, *short, f"data.history={old}", f"data.new={new}")
    assert run(*given)["error"] is None
    own = ("data.preprocess=null", "model.numerical=1", "model.cardinalities=[4,4]")
    kept = tuple(one for one in given if "preprocess" not in one)
    for result in (run(*given, "data.preprocess.standardise=false"), run(*kept, *own)):
        assert result["exit_code"] == 1
        assert "customers@" in result["error"]["what"]
        assert result["error"]["where"].startswith("data.preprocess")


def test_evaluation_preprocesses_as_training_did(
    run: Run, home: Path, table: tuple[Path, Path], verb: Callable[..., tuple[int, str, str]]
) -> None:
    old, new = table
    given = (*TABLE, f"data.history={old}", f"data.new={new}", "promote=false")
    result = run(*given)
    assert result["error"] is None, result["error"]
    score = result["metrics"]["champion"]["history/cycle-1"]["accuracy"]
    other = old.with_name("other.csv")
    customers(3000, 5, drift=False).to_csv(other, index=False)
    code, out, err = verb(
        "evaluate",
        "data=table",
        f"data.new={other}",
        "model_name=customers",
        "data.preprocess.categorical=[city,plan]",
        "allow=[support.nets.Mixed]",
        "accelerator=cpu",
    )
    assert code == 0, err
    found = float(out.split("all")[1].split()[1].rstrip("%")) / 100
    assert found == pytest.approx(score, abs=0.06)


WORDS = {
    "weather": ["rain", "sun", "snow", "cloud"],
    "food": ["bread", "soup", "cake", "rice"],
    "travel": ["train", "plane", "hotel", "map"],
}


def sentences(rows: int, seed: int, *, swapped: bool) -> pd.DataFrame:
    """Three words of a topic among ten others; later, topics change their names."""
    generator = np.random.default_rng(seed)
    names = sorted(WORDS)
    label = generator.integers(0, 3, rows)
    texts = []
    for one in label:
        own = generator.choice(WORDS[names[one]], 2)
        rest = generator.choice([f"w{i}" for i in range(200)], 6)
        words = [*own, *(["today"] if swapped else []), *rest]
        generator.shuffle(words)
        texts.append(" ".join(words))
    shown = (label + swapped) % 3
    return pd.DataFrame({"text": texts, "label": np.array(names)[shown]})


def test_texts_go_to_a_promotion_and_a_prediction(run: Run, home: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    sentences(2500, 0, swapped=False).to_csv(old, index=False)
    sentences(2500, 1, swapped=True).to_csv(new, index=False)
    words = ["[PAD]", "[UNK]", "today", *(f"w{i}" for i in range(200))]
    words += [word for own in WORDS.values() for word in own]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    result = run(
        *STEPS,
        "data=text",
        "model_name=topics",
        "model=custom",
        "model._target_=support.nets.Bag",
        "+model.vocabulary=null",
        "+model.classes=3",
        f"data.preprocess.tokenizer={tmp_path}",
        "data.preprocess.max_length=16",
        f"data.history={old}",
        f"data.new={new}",
        "gate.retention=waived",
    )
    assert result["error"] is None, result["error"]
    assert result["status"] == "promoted", result["decision"]
    (tmp_path / "tokenizer.json").unlink()
    predictor = perennial.load("topics@champion", allow=["support.nets.Bag"])
    fresh = sentences(300, 3, swapped=True)
    expected = result["metrics"]["candidate"]["new"]["accuracy"]
    right = np.mean(np.array(predictor.predict(fresh[["text"]])) == fresh["label"])
    assert right == pytest.approx(expected, abs=0.08)
    assert predictor.predict(fresh["text"].tolist()) == predictor.predict(fresh)
    assert predictor.predict("rain today snow") == predictor.predict(["rain today snow"])
    assert len(predictor.predict([""])) == 1
