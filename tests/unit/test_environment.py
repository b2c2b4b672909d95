from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess

import torch

from perennial import environment


def _git(folder, *arguments):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_versions_are_those_of_the_installed_packages():
    found = environment.versions()
    assert found["numpy"] == importlib.metadata.version("numpy")
    assert set(found) == set(environment.LIBRARIES)


def test_an_absent_library_has_no_version(monkeypatch):
    monkeypatch.setattr(environment, "LIBRARIES", ("no-such-library",))
    assert environment.versions() == {"no-such-library": None}


def test_capture_is_json_safe_and_private(tmp_path):
    found = environment.capture("cpu", folder=tmp_path)
    text = json.dumps(found, allow_nan=False)
    assert found["python"] == platform.python_version()
    assert found["torch"] == importlib.metadata.version("torch")
    assert found["device"].startswith("cpu")
    assert found["cuda_driver"] is None or torch.cuda.is_available()
    assert platform.node() not in text
    assert str(tmp_path) not in text


def test_git_is_none_outside_a_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = environment.capture("cpu", folder=tmp_path)
    assert found["git_commit"] is None
    assert found["git_dirty"] is None


def test_git_commit_and_dirt(tmp_path):
    _git(tmp_path, "init", "-q")
    (tmp_path / "a.txt").write_text("a")
    _git(tmp_path, "add", "a.txt")
    _git(tmp_path, "commit", "-q", "-m", "a")
    clean = environment.capture("cpu", folder=tmp_path)
    assert clean["git_commit"] == _git(tmp_path, "rev-parse", "HEAD")
    assert clean["git_dirty"] is False
    (tmp_path / "a.txt").write_text("b")
    assert environment.capture("cpu", folder=tmp_path)["git_dirty"] is True


def test_a_missing_git_fails_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.capture("cpu", folder=tmp_path)["git_commit"] is None
