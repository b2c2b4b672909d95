"""Models and data by hub id, through the hub's own client and over a real connection."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch

from perennial.models.reference import MLP
from support.hub_server import Hub, Repository, serve

WEIGHTS = safetensors.torch.save(dict(MLP(inputs=64, classes=10).state_dict()))
TOKEN = "hf_" + "x" * 30
# What a process of a user's reads, who knows the hub by its address alone.
READ = """
import json, sys
from pathlib import Path
from perennial.data.opening import open_source
from perennial.errors import PerennialError
from perennial.promotion.registry import Registry
from perennial.steps.checkpoint import open_checkpoint

registry = Registry(url=f"sqlite:///{sys.argv[1]}/registry.db")

def read(spec):
    try:
        if not spec.startswith("hf://"):
            return open_source(spec, name="new").to_dict()
        found = open_checkpoint(spec, registry)
        return [found.kind, {k: v.sum().item() for k, v in found.weights.items()}]
    except PerennialError as error:
        return str(error)

sys.stdout.write(json.dumps({spec: read(spec) for spec in sys.argv[2:]}))
"""
FRAME = pd.DataFrame({"x": np.arange(300.0), "label": ["a", "b"] * 150})


def parquet() -> bytes:
    sink = io.BytesIO()
    FRAME.to_parquet(sink, index=False)
    return sink.getvalue()


def repositories() -> dict[str, Repository]:
    model, table = {"config.json": b"{}", "model.safetensors": WEIGHTS}, parquet()
    with_code = {**model, "modeling.py": b"raise SystemExit", "flax_model.msgpack": b"?"}
    kinds: dict[str, Any] = {
        "good": {},
        "gated": {"token": TOKEN},
        "short": {"breaks": "short"},
        "drops": {"breaks": "drops"},
    }
    return {
        **{f"models/team/{name}": Repository(with_code, **how) for name, how in kinds.items()},
        **{
            f"datasets/team/{name}": Repository({"train.parquet": table}, **how)
            for name, how in kinds.items()
        },
    }


def read(hub: Hub, folder: Path, *names: str, **more: str) -> dict[str, Any]:
    """What each name gives, as a model and as a data set."""
    specs = [spec for name in names for spec in (f"hf://team/{name}", f"team/{name}")]
    unset = ("HF_TOKEN", "HF_HUB_OFFLINE")
    base = {key: value for key, value in os.environ.items() if key not in unset}
    done = subprocess.run(
        [sys.executable, "-c", READ, str(folder), *specs],
        env={**base, **hub.environment(folder / "cache", **more)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def right(told: Any) -> bool:
    """Whether it is the whole model or the whole table."""
    if isinstance(told, list):
        sums = {k: v.sum().item() for k, v in safetensors.torch.load(WEIGHTS).items()}
        return told == ["huggingface", sums]
    return bool(told == FRAME.to_dict(orient="list"))


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any], Hub]:
    """Read with a connection, then from the same cache without, and the server with its log."""
    folder = tmp_path_factory.mktemp("hub")
    with serve(Hub(repositories())) as hub:
        told = read(hub, folder, "good", "gated", "short", "drops", "gone", "good@v9")
        before = len(hub.asked)
        offline = read(hub, folder, "good", "gated", "short", "drops", HF_HUB_OFFLINE="1")
        assert len(hub.asked) == before, "without network nothing is asked for"
    return told, offline, hub


@pytest.mark.parametrize("spec", ["hf://team/good", "team/good"])
def test_what_is_there_is_read_and_kept(online: Any, spec: str) -> None:
    told, offline, hub = online
    assert right(told[spec]), told[spec]
    assert right(offline[spec]), offline[spec]
    assert not [one for one in hub.asked if one.endswith(("modeling.py", "msgpack"))]


@pytest.mark.parametrize("spec", ["hf://team/drops", "team/drops"])
def test_a_broken_connection_is_taken_up_where_it_broke(online: Any, spec: str) -> None:
    told, offline, _ = online
    assert right(told[spec]), told[spec]
    assert right(offline[spec]), offline[spec]


@pytest.mark.parametrize(
    ("spec", "words", "mend"),
    [
        ("hf://team/gone", "404", "HF_ENDPOINT"),
        ("hf://team/good@v9", "RevisionNotFoundError", "check the name"),
        ("hf://team/gated", "GatedRepoError", "HF_TOKEN"),
        ("hf://team/short", "should be of size", "hf download team/short"),
        ("team/gone", "doesn't exist on the Hub", "HF_ENDPOINT"),
        ("team/gated", "gated dataset", "HF_TOKEN"),
        ("team/short", "should be of size", "the network"),
    ],
)
def test_what_is_not_there_is_said(online: Any, spec: str, words: str, mend: str) -> None:
    told = online[0][spec]
    assert isinstance(told, str)
    assert spec in told
    assert words in told
    assert mend in told.partition("mend:")[2]


@pytest.mark.parametrize("kind", ["hf://", ""])
@pytest.mark.parametrize("name", ["gated", "short"])
def test_a_part_of_a_download_is_never_read_as_the_whole(online: Any, kind: str, name: str) -> None:
    told = online[1][f"{kind}team/{name}"]
    assert isinstance(told, str)
    assert "offline" in told.lower() or "network" in told


def test_a_token_opens_what_is_gated(tmp_path: Path) -> None:
    with serve(Hub(repositories())) as hub:
        told = read(hub, tmp_path, "gated", HF_TOKEN=TOKEN)
    assert all(map(right, told.values())), told
