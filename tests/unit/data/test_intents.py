"""Intents: halves of domains, splits as the files have them, and how they are made fewer."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from perennial.data.intents import intents
from perennial.errors import ConfigError, DataError

DOMAINS = {f"domain {d}": [f"{d}{i}" for i in "cab"] for d in range(10)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    clinc, bank = tmp_path / "clinc150", tmp_path / "banking77"
    clinc.mkdir()
    bank.mkdir()
    every = [intent for names in DOMAINS.values() for intent in names]
    said = {
        split: [[f"{split} {intent} {n}", intent] for n in range(rows) for intent in every]
        for split, rows in (("train", 3), ("val", 1), ("test", 2))
    }
    said |= {"oos_train": [["what else", "oos"]]}
    said["train"].append(["a row of no intent", "oos"])
    (clinc / "data_full.json").write_text(json.dumps(said))
    (clinc / "domains.json").write_text(json.dumps(DOMAINS))
    for split, rows in (("train", 4), ("test", 2)):
        frame = pd.DataFrame({"text": [f"{split}, {n}" for n in range(rows)], "category": "card"})
        frame.to_csv(bank / f"{split}.csv", index=False)
    return tmp_path


def test_the_halves_share_no_intent_and_leave_out_what_has_none(path: Path) -> None:
    first, second = (intents(path=str(path), part=part) for part in ("first", "second"))
    assert set(first["domain"]) == set(list(DOMAINS)[:5])
    assert set(second["domain"]) == set(list(DOMAINS)[5:])
    assert set(first["label"]) == {intent for name in list(DOMAINS)[:5] for intent in DOMAINS[name]}
    assert not set(first["label"]) & set(second["label"])
    assert Counter(first["split"]) == {"train": 45, "validation": 15, "test": 30}
    for row in second:
        assert row["label"] in DOMAINS[row["domain"]]
        assert row["label"] in row["text"]
        assert row["text"].startswith({"validation": "val"}.get(row["split"], row["split"]))


def test_the_bank_has_no_validation_rows(path: Path) -> None:
    bank = intents(path=str(path), part="banking77")
    assert Counter(bank["split"]) == {"train": 4, "test": 2}
    assert set(bank["label"]) == {"card"}
    assert set(bank["domain"]) == {"banking77"}


def test_fewer_intents_and_rows_are_the_first_ones(path: Path) -> None:
    few = intents(path=str(path), part="first", per_domain=2, per_intent=1)
    assert set(few["label"]) == {f"{d}{i}" for d in range(5) for i in "ab"}
    assert Counter(few["split"]) == dict.fromkeys(("train", "validation", "test"), 10)
    assert all(text.endswith(" 0") for text in few["text"])


@pytest.mark.parametrize("wrong", [{"part": "third"}, {"per_domain": 0}, {"per_intent": 0}])
def test_a_setting_out_of_range_is_refused(path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="part is"):
        intents(**{"path": str(path), "part": "first", **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("file", "content", "part"),
    [
        ("clinc150/data_full.json", "{", "first"),
        ("clinc150/data_full.json", '{"train": []}', "first"),
        ("clinc150/data_full.json", '{"train": [["text"]], "val": [], "test": []}', "first"),
        ("clinc150/domains.json", "[1]", "first"),
        ("banking77/test.csv", "text,label\na,b\n", "banking77"),
    ],
)
def test_a_file_of_another_form_is_named(path: Path, file: str, content: str, part: str) -> None:
    (path / file).write_text(content)
    with pytest.raises(DataError, match=r"intent|category") as caught:
        intents(path=str(path), part=part)
    assert file.partition("/")[0] in str(caught.value.where)


def test_a_missing_file_is_named(path: Path) -> None:
    (path / "clinc150" / "domains.json").unlink()
    with pytest.raises(DataError, match="cannot be read") as caught:
        intents(path=str(path), part="second")
    assert str(caught.value.where).endswith("domains.json")
