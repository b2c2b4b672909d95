"""A page of documentation as a script: its titled blocks become files, its commands are run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"(?:<!-- (?P<mark>[a-z]+)(?: (?P<code>\d+))?[^>]*-->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n"
    r"(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
MARKS = ("shown", "composed", "exit")


@dataclass(frozen=True)
class Block:
    """A fenced block; ``<!-- exit 20 -->`` above it says how its last command ends.

    ``<!-- composed -->`` has the settings of its commands checked without a run, ``<!-- shown -->``
    is for what needs a machine that a test has not, a scheduler say.
    """

    language: str
    title: str | None
    text: str
    mark: str | None
    code: int


def blocks(page: str) -> Iterator[Block]:
    for found in _BLOCK.finditer(page):
        indent = len(found["indent"])
        text = "".join(line[indent:] for line in found["text"].splitlines(keepends=True))
        assert found["mark"] in (None, *MARKS), found["mark"]
        assert (found["mark"] == "exit") == (found["code"] is not None)
        yield Block(found["language"], found["title"], text, found["mark"], int(found["code"] or 0))


def run_page(page: str, folder: Path) -> int:
    """Do what a page says in a folder; returns how many blocks were run or composed."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PERENNIAL_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "WANDB_MODE": "offline",
        "CUDA_VISIBLE_DEVICES": "",
    }
    count = 0
    for block in blocks(page):
        if block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
            continue
        commands = _commands(block)
        if commands is None:
            continue
        count += 1
        done = subprocess.run(
            commands, cwd=folder, env=environment, text=True, capture_output=True, check=False
        )
        told = f"{block.text}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == block.code, told
        assert "Traceback" not in done.stderr, told
    return count


def _commands(block: Block) -> list[str] | None:
    if block.language == "python" and block.mark != "shown" and ">>>" not in block.text:
        return [sys.executable, "-c", block.text]
    if block.language != "bash":
        return None
    if block.mark == "shown":
        return ["bash", "-n", "-c", block.text]
    if block.mark == "composed":
        joined = re.sub(r"\\\n\s*", " ", block.text)
        lines = [re.sub(r" +#.*", "", line) for line in joined.splitlines() if line[:1] != "#"]
        # Hydra composes no sweep: the first of several values stands for them all
        lines = [re.sub(r"(=[^\s,\[{']+),\S+", r"\1", line).replace(" -m ", " ") for line in lines]
        assert all(line.startswith("perennial ") for line in lines), lines
        whole = "\n".join(f"{line} --cfg job > /dev/null" for line in lines)
        return ["bash", "-euo", "pipefail", "-c", whole]
    return ["bash", "-euo", "pipefail", "-c", block.text]
