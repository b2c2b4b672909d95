"""Pages that the site makes of what lies elsewhere: ``conf/``, help texts, notebooks."""

from __future__ import annotations

import base64
import json
import re
from itertools import dropwhile
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from perennial import usage

ROOT = Path(__file__).parents[1]
CONF, NOTEBOOKS = ROOT / "conf", ROOT / "notebooks"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the navigation's decisions with the pages there are, named by their first lines."""
    assert config.nav is not None
    understand = next(entry["Understand"] for entry in config.nav if "Understand" in entry)
    decisions = next(e for e in understand if isinstance(e, dict) and "Decisions" in e)
    decisions["Decisions"] = [
        {path.read_text().splitlines()[0].lstrip("# ").partition(":")[0]: f"adr/{path.name}"}
        for path in sorted((ROOT / "docs" / "adr").glob("*.md"))
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages before navigation and links are checked."""
    files.append(File.generated(config, "reference/settings.md", content=settings()))
    files.append(File.generated(config, "reference/commands.md", content=commands()))
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        name = f"tutorials/{path.stem}"
        page, pictures = notebook(json.loads(path.read_text()), name=path.stem)
        files.append(File.generated(config, f"{name}.md", content=page))
        for picture, content in pictures.items():
            files.append(File.generated(config, f"tutorials/{picture}", content=content))
    return files


def settings() -> str:
    """Each group with its choices, each file as it is: its comments are its documentation."""
    parts = [
        "# Settings",
        "One file per constructor. `group=choice` picks a file, `group.key=value` changes a value "
        "in it, and every setting with its value is shown by `--cfg job`.",
    ]
    for main in sorted(CONF.glob("*.yaml"), key=lambda path: path.stem != "train"):
        parts += [f"## {main.stem}", _yaml(main)]
    for folder in sorted(path for path in CONF.iterdir() if path.is_dir()):
        parts.append(f"## {folder.name}=…")
        for path in sorted(folder.glob("*.yaml")):
            parts += [f"### {folder.name}={path.stem}", _yaml(path)]
    for path in sorted(CONF.glob("*/*/*.yaml")):  # files for other tools, and no choices
        parts += [f"## {path.relative_to(CONF)}", _yaml(path)]
    return "\n\n".join(parts) + "\n"


def _yaml(path: Path) -> str:
    """Its opening comments as text, with the command of the first line, then the file."""
    lines = path.read_text().splitlines()
    command, *purpose = usage.opening(lines)
    rest = "\n".join(dropwhile(lambda line: line.startswith("#"), lines))
    told = f"{' '.join(purpose)}\n\n" if purpose else ""
    return f"{told}`{command}`\n\n```yaml\n{rest}\n```"


def commands() -> str:
    """What each verb says with ``--help``."""
    from perennial.cli import USAGE
    from perennial.verbs import watch

    parts = ["# Commands", f"```text\n{USAGE.strip()}\n```"]
    for name in ("train", "monitor", "backtest", "adopt", "evaluate", "decide"):
        parts += [f"## perennial {name}", f"```text\n{usage.help_text(name, [CONF])}```"]
    parts += ["## perennial watch", f"```text\n{watch.parser().format_help()}```"]
    return "\n\n".join(parts) + "\n"


def notebook(content: dict[str, Any], *, name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook with its outputs as a page, and its pictures by file name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in content["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                file = f"{name}-{len(pictures)}.png"
                pictures[file] = base64.b64decode(data["image/png"])
                parts.append(f"![What the cell above draws]({file})")
            elif text := "".join(output.get("text") or data.get("text/plain") or ""):
                plain = re.sub("\x1b\\[[0-9;]*m", "", text).rstrip()
                parts.append(f"```text\n{plain}\n```")
    return "\n\n".join(parts) + "\n", pictures
