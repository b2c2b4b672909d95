"""A model of transformers, from texts through a head that grows to a version that answers texts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import perennial
from perennial.paths import home as registry_home
from perennial.promotion.registry import Registry

WORDS = {
    "food": ["bread", "soup", "cake", "rice"],
    "travel": ["train", "plane", "hotel", "map"],
    "weather": ["rain", "sun", "snow", "cloud"],
}
FILLERS = [f"w{i}" for i in range(30)]


def sentences(topics: list[str], rows: int, seed: int) -> pd.DataFrame:
    """Two words of a topic among three that say nothing."""
    generator = np.random.default_rng(seed)
    label = generator.choice(topics, rows)
    texts = []
    for topic in label:
        words = [*generator.choice(WORDS[topic], 2), *generator.choice(FILLERS, 3)]
        generator.shuffle(words)
        texts.append(" ".join(words))
    return pd.DataFrame({"text": texts, "label": label})


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A tiny BERT with random weights, and its tokenizer beside it."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *FILLERS]
    words += [word for own in WORDS.values() for word in own]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = transformers.AutoConfig.for_model(
        "bert",
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
    )
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    folder = tmp_path / "bert"
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    made.save(str(folder / "tokenizer.json"))
    return folder


def test_texts_through_an_encoder_grow_to_a_version_that_needs_no_folder(
    run: Callable[..., dict[str, Any]], home: Path, bert: Path, tmp_path: Path
) -> None:
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    sentences(["food", "travel"], 1200, 0).to_csv(old, index=False)
    sentences(["weather"], 1000, 1).to_csv(new, index=False)
    result = run(
        "data=text",
        "model=huggingface",
        f"model.path={bert}",
        "model.auto=AutoModel",
        "model.pooling=mean",
        "model.classes=2",
        "model.freeze=[model.embeddings.position_embeddings.*]",
        "model_name=topics",
        f"data.preprocess.tokenizer={bert}",
        "data.preprocess.max_length=10",
        f"data.history={old}",
        f"data.new={new}",
        "data.new_classes=grow",
        "method.replay.new_fraction=0.4",
        "optimizer.lr=0.003",
        "trainer.max_steps=80",
        "trainer.batch_size=32",
        "trainer.validate_every=40",
        "gate.sanity.constant=false",  # the new rows are of one class
    )
    assert result["error"] is None, result["error"]
    assert result["status"] == "promoted", result["decision"]
    registry = Registry(url=f"sqlite:///{registry_home() / 'registry.db'}")
    first, second = registry.version("topics@1"), registry.version("topics@2")
    assert second.manifest["label_names"] == ["food", "travel", "weather"]
    assert second.manifest["model"]["head"] == {"name": "output", "outputs": 3}
    assert second.manifest["model"]["recorded"]["config"]["hidden_size"] == 32
    path = "preprocess/tokenizer.json"
    assert first.files[path] == second.files[path]

    shutil.rmtree(bert)
    predictor = perennial.load("topics@champion")
    fresh = sentences(list(WORDS), 300, 2)
    told = predictor.predict(fresh["text"].tolist())
    assert np.mean(np.array(told) == fresh["label"]) > 0.9
    assert predictor.predict("rain and snow") == ["weather"]
    before = perennial.load("topics@1")
    assert set(before.predict(fresh["text"].tolist())) == {"food", "travel"}
