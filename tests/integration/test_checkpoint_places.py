"""``checkpoint=`` from the hub's cache, from W&B and from the registry itself."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from perennial.errors import CheckpointError, RegistryError
from perennial.launch import adopt_job
from perennial.models.reference import MLP
from perennial.promotion.registry import Registry
from perennial.steps.checkpoint import check_checkpoint, open_checkpoint

_PATH = Path(__file__).parents[1] / "support" / "wandb_server.py"
_SPEC = importlib.util.spec_from_file_location("wandb_server", _PATH)
assert _SPEC is not None
_SERVER: Any = importlib.util.module_from_spec(_SPEC)
assert _SPEC.loader is not None
_SPEC.loader.exec_module(_SERVER)
WEIGHTS = dict(MLP(inputs=64, classes=10).state_dict())


def _registry(home: Path) -> Registry:
    return Registry(url=f"sqlite:///{home / 'registry.db'}")


def _same(found: dict[str, torch.Tensor]) -> None:
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], value) for name, value in WEIGHTS.items())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local cache of the hub with one model, and no network."""
    import huggingface_hub.constants as settings

    folder = tmp_path / "hub" / "models--team--digits"
    commit = "c" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "snapshots" / commit).mkdir(parents=True)
    for name in ("main", "v2"):
        (folder / "refs" / name).write_text(commit)
    safetensors.torch.save_file(WEIGHTS, folder / "snapshots" / commit / "model.safetensors")
    (folder / "snapshots" / commit / "config.json").write_text("{}")
    monkeypatch.setattr(settings, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(settings, "HF_HUB_OFFLINE", True)
    return folder


@pytest.mark.parametrize("reference", ["hf://team/digits", "hf://team/digits@v2"])
def test_the_hubs_cache_serves_without_network(hub: Path, home: Path, reference: str) -> None:
    read = open_checkpoint(reference, _registry(home))
    assert read.kind == "huggingface"
    _same(read.weights)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("hf://team/other", r"could not be had(.|\n)*HF_ENDPOINT(.|\n)*hf download team/other"),
        ("hf://team/digits@v3", "could not be had"),
        ("hf://digits", "names no model"),
        ("hf://../../etc", "names no model"),
        ("wandb://digits:v1", "names no artifact"),
        ("wandb://team/project/digits:v1", "W&B is offline"),
    ],
)
def test_what_is_out_of_reach_says_how_to_reach_it(
    hub: Path, home: Path, reference: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_checkpoint(reference)
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(reference, _registry(home))


def test_places_that_are_none_are_refused_before_any_work() -> None:
    for reference, words in (("s3://bucket/x.pt", "no place"), ("gone.pt", "does not exist")):
        with pytest.raises(CheckpointError, match=words):
            check_checkpoint(reference)


def test_a_version_of_the_registry_founds_another_lineage(
    compose: Callable[..., dict[str, Any]], home: Path, tmp_path: Path
) -> None:
    torch.save(WEIGHTS, tmp_path / "net.pt")
    common = ("data=digits", "model=mlp", "method=none", "trainer.accelerator=cpu")

    def adopt(name: str, checkpoint: object) -> str:
        config = compose(*common, f"model_name={name}", f"checkpoint={checkpoint}", config="adopt")
        return adopt_job(config)

    assert adopt("first", tmp_path / "net.pt") == "first@1"
    for _ in range(2):  # noted as satisfied the second time
        assert adopt("second", "registry://first@champion") == "second@1"
    registry = _registry(home)
    one, two = (registry.version(f"{name}@1") for name in ("first", "second"))
    assert one.files["model.safetensors"] == two.files["model.safetensors"]
    with pytest.raises(RegistryError):
        open_checkpoint("registry://third@champion", registry)


FETCH = """
import json, sys
from pathlib import Path
import torch, wandb
from perennial.steps.checkpoint import open_checkpoint
run = wandb.init(project="models", entity="team", dir=sys.argv[1])
artifact = wandb.Artifact("digits", type="model")
artifact.add_file("net.pt")
run.log_artifact(artifact, aliases=["serving"]).wait()
run.finish()
read = open_checkpoint("wandb://team/models/digits:serving", None)
weights = torch.load("net.pt", weights_only=True)
assert read.weights.keys() == weights.keys()
assert all(torch.equal(read.weights[name], value) for name, value in weights.items())
print("FOUND" + json.dumps([read.kind, read.sha256]))
"""


def test_an_artifact_of_wandb_is_downloaded_and_read(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "net.pt")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_") and k != "NETRC"}
    places = {f"WANDB_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "CACHE", "DATA")}
    with _SERVER.WandbServer() as server:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", FETCH, str(tmp_path)], cwd=tmp_path,
            env={**kept, **places, "HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"),
                 "WANDB_BASE_URL": server.url, "WANDB_API_KEY": "k" * 40, "WANDB_SILENT": "true"},
            capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kind, sha256 = json.loads(done.stdout.split("FOUND")[1])
    assert kind == "state_dict"
    assert len(sha256) == 64
