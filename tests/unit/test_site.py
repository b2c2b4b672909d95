"""What the site makes of configuration, help texts and notebooks."""

from __future__ import annotations

import base64
import importlib.util
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_settings_has_every_line_of_every_file(hooks: ModuleType) -> None:
    page = re.sub(" +", " ", hooks.settings())
    for path in (ROOT / "conf").rglob("*.yaml"):
        inside = path.relative_to(ROOT / "conf")
        title = {
            1: f"## {path.stem}",
            2: f"### {path.parent.name}={path.stem}",
            3: f"## {inside}",
        }[len(inside.parts)]
        assert f"{title}\n" in page
        for line in path.read_text().splitlines():
            told = re.sub(" +", " ", line.removeprefix("# ").removeprefix("@package _global_"))
            assert told in page, f"{path}: {line}"


def test_every_decision_is_in_the_navigation(hooks: ModuleType) -> None:
    config = SimpleNamespace(nav=[{"Home": "index.md"}, {"Understand": [{"Decisions": []}]}])
    (decisions,) = hooks.on_config(config).nav[1]["Understand"]
    found = [path for entry in decisions["Decisions"] for path in entry.values()]
    assert found == sorted(f"adr/{path.name}" for path in (ROOT / "docs" / "adr").glob("*.md"))
    assert next(iter(decisions["Decisions"][0])) == "1 · The house"


def test_the_page_of_commands_has_every_verb(hooks: ModuleType) -> None:
    page = hooks.commands()
    for verb in ("init", "train", "adopt", "evaluate", "monitor", "decide", "registry"):
        assert f"perennial {verb}" in page
    for verb in ("train", "watch", "monitor", "backtest"):
        assert f"## perennial {verb}\n" in page
    assert "--longest-pause" in page
    assert "Exit codes: 0 promoted" in page


def test_a_notebook_becomes_a_page_with_its_pictures(hooks: ModuleType) -> None:
    picture = base64.b64encode(b"PNG").decode()
    outputs = [
        {"text": ["\x1b[1mtold\x1b[0m\n"]},
        {"data": {"image/png": picture, "text/plain": ["<Figure>"]}},
        {"data": {"text/plain": ["42"]}},
    ]
    content = {
        "cells": [
            {"cell_type": "markdown", "source": ["# Title\n", "words"]},
            {"cell_type": "code", "source": ["x = 1"], "outputs": outputs},
        ]
    }
    page, pictures = hooks.notebook(content, name="book")
    assert page == (
        "# Title\nwords\n\n```python\nx = 1\n```\n\n```text\ntold\n```\n\n"
        "![What the cell above draws](book-0.png)\n\n```text\n42\n```\n"
    )
    assert pictures == {"book-0.png": b"PNG"}


def test_what_pages_include_is_included() -> None:
    for path in (ROOT / "docs").rglob("*.md"):
        for line in path.read_text().splitlines():
            if line.startswith("--8"):
                found = re.fullmatch(r'--8<-- "([^":]+)(:\d+:)?"', line)
                assert found, f"{path}: {line}"
                assert (ROOT / found[1]).is_file()
