"""A checkpoint that is adopted is registered as it is, and as the first adoption made it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from perennial.errors import ConfigError
from perennial.launch import adopt_job
from perennial.promotion.registry import Registry
from perennial.tracking.wandb import NoTracker

MODULE = """
import torch
from torch import nn
from torch.nn.utils import parametrizations


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = parametrizations.spectral_norm(nn.Linear(4, 8))
        self.second = parametrizations.weight_norm(nn.Linear(8, 2))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.calls += 1
        return self.second(torch.relu(self.first(x)))
"""
Adopt = Callable[..., str]


@pytest.fixture
def adopt(
    compose: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Adopt:
    (tmp_path / "normed_net.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(1).normal(size=(900, 4)).astype(np.float32)
    frame = pd.DataFrame(x, columns=list("abcd")).assign(answer=(x[:, 0] > 0).astype(np.int64))
    frame.to_parquet("old.parquet")
    import normed_net  # type: ignore[import-not-found]

    torch.manual_seed(0)
    model = normed_net.Net()
    for _ in range(3):
        model(torch.from_numpy(x[:8]))
    torch.save(model.state_dict(), "serving.pt")

    def command(*overrides: str) -> str:
        config = compose(
            "model=custom", "model._target_=normed_net.Net", "data=files", "data.label=answer",
            "data.history=old.parquet", "trainer.accelerator=cpu", "checkpoint=serving.pt",
            *overrides, config="adopt",
        )  # fmt: skip
        return adopt_job(config)

    return command


@pytest.mark.parametrize("method", ["default", "der", "ewc", "si", "none"])
def test_the_version_is_the_checkpoint_bit_by_bit(adopt: Adopt, home: Path, method: str) -> None:
    assert adopt("model_name=served", f"method={method}") == "served@1"
    version = Registry(url=f"sqlite:///{home / 'registry.db'}").version("served@1")
    stored = load_file(version.open("model.safetensors"))
    given = torch.load("serving.pt", weights_only=True)
    assert stored.keys() == given.keys()
    for name, value in given.items():
        assert torch.equal(value, stored[name]), name


def test_adopting_again_under_other_settings_is_refused(adopt: Adopt) -> None:
    for _ in range(2):
        assert adopt("model_name=served", "method=ewc") == "served@1"
    for other, key, words in (
        (["method=[ewc,interpolation]"], "method.interpolation._target_", "without"),
        (["method=si"], "method.ewc._target_", "with"),
        (["method=ewc", "method.ewc.fisher=empirical"], "method.ewc.fisher", "with"),
        (["method=ewc", "data.memory.capacity=50"], "data.memory.capacity", "with"),
    ):
        with pytest.raises(ConfigError, match=f"adopted before, {words} {key}") as caught:
            adopt("model_name=served", *other)
        assert caught.value.where == key
        assert "model_name=served-2" in str(caught.value.mend)
    assert adopt("model_name=served-2", "method=si") == "served-2@1"


class Heard(NoTracker):
    """Keeps what a tracker is told."""

    told: ClassVar[list[tuple[str, Any]]] = []

    def start(self, **given: Any) -> None:
        self.told.append(("start", (given["job_type"], given["group"])))

    def identity(self) -> dict[str, str | None]:
        return {"run_id": "r", "url": None, "directory": None}

    def summary(self, values: Any) -> None:
        self.told.append(("summary", dict(values)))

    def artifact(self, **given: Any) -> None:
        self.told.append(("artifact", (given["name"], given["aliases"])))

    def tag(self, word: str) -> None:
        self.told.append(("tag", word))

    def finish(self, exit_code: int) -> None:
        self.told.append(("finish", exit_code))


def test_an_adoption_is_tracked(adopt: Adopt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perennial.tracking.wandb.NoTracker", Heard)
    adopt("model_name=served", "method=none")
    start, (_, founded), *rest = Heard.told
    assert start == ("start", ("adopt", "served"))
    assert founded["champion/id"] == "served@1"
    (score,) = (value for key, value in founded.items() if key.endswith("/accuracy"))
    assert 0 < score < 1
    assert rest == [
        ("artifact", ("served", ["version-1", "champion"])),
        ("summary", {"cycle/status": "adopted"}), ("tag", "adopted"), ("finish", 0),
    ]  # fmt: skip
    with pytest.raises(ConfigError):
        adopt("model_name=served", "method=si")
    assert Heard.told[-2:] == [("tag", "failed"), ("finish", 1)]
