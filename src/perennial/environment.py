"""What a run ran on: library versions, device and git commit, as plain values.

No host name, user name or path is recorded: a report may be published.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "lightning", "numpy", "datasets", "perennial")
_GIT_SECONDS = 5.0


def versions() -> dict[str, str | None]:
    """Installed versions of the libraries that a result depends on; ``None`` where one is absent.

    Read from the packages' metadata, so nothing heavy is imported.
    """
    found: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def capture(device: str | None = None, *, folder: Path | None = None) -> dict[str, Any]:
    """Describe the environment as JSON-safe values.

    Args:
        device: torch device such as ``"cuda:0"`` or ``"cpu"``; by default the first CUDA device
            where there is one, else the CPU.
        folder: Where to look for a git repository; by default the working directory.

    Returns:
        ``python``, ``platform``, ``cpu_count``, the `versions`, ``device`` (a name),
        ``cuda_runtime`` and ``cuda_driver`` (``None`` without CUDA), ``git_commit`` and
        ``git_dirty`` (``None`` outside a repository or without git).
    """
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.release()}-{platform.machine()}",
        "cpu_count": os.cpu_count(),
        **versions(),
        **_device(device),
        **_git(folder if folder is not None else Path()),
    }


def _device(device: str | None) -> dict[str, str | None]:
    import torch

    runtime = torch.version.cuda
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not device.startswith("cuda") or not torch.cuda.is_available():
        name = platform.processor() or platform.machine()
        label = f"cpu ({name})" if device == "cpu" else device
        return {"device": label, "cuda_runtime": runtime, "cuda_driver": None}
    return {
        "device": torch.cuda.get_device_name(device),
        "cuda_runtime": runtime,
        "cuda_driver": _run(
            "nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"
        ),
    }


def _git(folder: Path) -> dict[str, str | bool | None]:
    commit = _run("git", "rev-parse", "--verify", "HEAD", folder=folder)
    if commit is None:
        return {"git_commit": None, "git_dirty": None}
    changes = _run("git", "status", "--porcelain", "--untracked-files=no", folder=folder)
    return {"git_commit": commit, "git_dirty": None if changes is None else bool(changes)}


def _run(*command: str, folder: Path | None = None) -> str | None:
    """Output of a command, or ``None``: a missing tool must never stop a run."""
    try:
        done = subprocess.run(  # noqa: S603
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
            # Reading the status must not take the index lock from a user's own git command.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()
