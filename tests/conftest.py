"""One way to run the real configuration in a test: composed, shrunk, in a folder of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from support.postgres import server, url  # noqa: F401

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


def _become(arguments: tuple[str, ...], streams: tuple[Path, Path], folder: Path) -> NoReturn:
    """Go on, in a fork, as the command; what is heavy has been imported already."""
    code: Any = 99
    try:
        for number, path in enumerate(streams, start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        # pytest has put its own in their place
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        os.chdir(folder)
        # narrower than any table: a file is not a terminal, and nothing may be cut for it
        os.environ["COLUMNS"] = "40"
        from perennial.cli import main

        sys.argv = ["perennial", *arguments]
        main()
        code = 0
    except SystemExit as stopped:
        code = stopped.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


@pytest.fixture
def verb(home: Path, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Runs ``perennial ...`` in the project's folder; exit code, stdout and stderr."""

    count = iter(range(1000))

    def called(*arguments: str) -> tuple[int, str, str]:
        told = tmp_path / f"told-{next(count)}"
        streams = (told.with_suffix(".out"), told.with_suffix(".err"))
        sys.stdout.flush()
        child = os.fork()
        if not child:
            _become(arguments, streams, tmp_path)
        _, status = os.waitpid(child, 0)
        out, err = (path.read_text() for path in streams)
        assert "Traceback" not in err
        return os.waitstatus_to_exitcode(status), out, err

    return called
