from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from perennial.errors import CheckpointError
from perennial.models.checkpoint import read_state
from perennial.models.reference import MLP

WEIGHTS = dict(MLP(inputs=3, classes=2, hidden=(4,)).state_dict())


def _sharded(folder: Path, kind: str) -> Path:
    """Two shards and their index, as transformers writes them."""
    folder.mkdir(exist_ok=True)
    names = sorted(WEIGHTS)
    stem, suffix = {"safetensors": ("model", "safetensors"), "bin": ("pytorch_model", "bin")}[kind]
    weight_map = {}
    for number, part in enumerate((names[:3], names[3:]), 1):
        file = f"{stem}-{number:05}-of-00002.{suffix}"
        tensors = {name: WEIGHTS[name] for name in part}
        if kind == "bin":
            torch.save(tensors, folder / file)
        else:
            safetensors.torch.save_file(tensors, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


def _same(found: dict[str, torch.Tensor]) -> None:
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], value) for name, value in WEIGHTS.items())


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_are_read_by_their_index_or_their_folder(tmp_path: Path, kind: str) -> None:
    index = _sharded(tmp_path / "model", kind)
    read = read_state(index)
    _same(read.weights)
    assert read.kind == "shards"
    assert read_state(index.parent).sha256 == read.sha256
    (index.parent / "config.json").write_text("{}")
    assert read_state(index.parent).kind == "huggingface"
    shard = index.parent / json.loads(index.read_text())["weight_map"]["layers.1.bias"]
    changed = {name: value + 1 for name, value in read_state(shard).weights.items()}
    torch.save(changed, shard)
    assert read_state(index).sha256 != read.sha256


@pytest.mark.parametrize("name", ["last.ckpt", "net.pt", "weights.safetensors"])
def test_a_folder_with_one_checkpoint_is_that_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "README.md").write_text("words")
    if name.endswith("safetensors"):
        safetensors.torch.save_file(WEIGHTS, tmp_path / name)
    else:
        torch.save(WEIGHTS, tmp_path / name)
    _same(read_state(tmp_path).weights)
    torch.save(WEIGHTS, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"several checkpoints: .*other\.pt"):
        read_state(tmp_path)
    torch.save(WEIGHTS, tmp_path / "pytorch_model.bin")
    _same(read_state(tmp_path).weights)


def test_shards_and_index_have_to_agree(tmp_path: Path) -> None:
    index = _sharded(tmp_path, "safetensors")
    listed = json.loads(index.read_text())["weight_map"]
    first, second = sorted(set(listed.values()))
    for weight_map, words in (
        ({**listed, "more": first}, "do not agree about 'more'"),
        ({n: s for n, s in listed.items() if n != "layers.1.bias"}, "about 'layers.1.bias'"),
        ({**listed, "layers.1.bias": second}, "about 'layers.1.bias'"),
        ({**listed, "more": "model-3.safetensors"}, "'model-3.safetensors' is not there"),
        ({}, "no weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(CheckpointError, match=words):
            read_state(index)
    index.write_text("{" * 100_000)
    with pytest.raises(CheckpointError, match="no JSON"):
        read_state(index)


@pytest.mark.parametrize(
    "shard",
    [
        "../x.bin",
        "/etc/x.bin",
        "a/b.bin",
        "..\\x.bin",
        ".hidden.bin",
        "x.bin\0",
        "x.py",
        3,
        None,
        [],
        "",
    ],
)
def test_a_shard_is_a_file_of_weights_beside_the_index(tmp_path: Path, shard: object) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(CheckpointError, match="no file of weights beside it"):
        read_state(index)
