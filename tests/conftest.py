"""One way to run the real configuration in a test: composed, shrunk, in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty registry folder that the default configuration uses."""
    folder = tmp_path / "home"
    monkeypatch.setenv("PERENNIAL_HOME", str(folder))
    return folder


@pytest.fixture
def compose(home: Path) -> Callable[..., dict[str, Any]]:
    """Composes ``train.yaml`` with overrides, as plain values."""

    def composed(*overrides: str, config: str = "train") -> dict[str, Any]:
        from hydra import compose, initialize_config_dir
        from omegaconf import OmegaConf

        from perennial.paths import CONF_DIR

        with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR.absolute())):
            resolved = OmegaConf.to_container(compose(config, list(overrides)), resolve=True)
        assert isinstance(resolved, dict)
        return {str(key): value for key, value in resolved.items()}

    return composed


@pytest.fixture
def run(compose: Callable[..., dict[str, Any]], tmp_path: Path) -> Run:
    """Runs one cycle with overrides, without tracking, and returns its result."""
    count = iter(range(1000))

    def job(*overrides: str) -> dict[str, Any]:
        from perennial.launch import run_job

        folder = tmp_path / f"run-{next(count)}"
        folder.mkdir()
        config = compose("tracking=none", "trainer.accelerator=cpu", *overrides)
        result, _ = run_job(config, folder=folder, multirun=False)
        return {**result, "folder": str(folder)}

    return job
